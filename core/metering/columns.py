"""Accepted events column by column: the form in which they are logged, deduplicated, grouped and written.

Quantities are two integers, whole units and 10^-12ths, so that a hundred thousand of them a second stay exact without Decimal objects.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from core.metering.narrow import Narrow, narrow, widened
from core.metering.texts import NEITHER, WORD, Texts, field, joined, laid_out, texts
from core.money import EXACT

PLACES = 12
SCALE = 10**PLACES
Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Flags = NDArray[np.bool_]
_codecs = threading.local()


class Corrupt(ValueError):
    """A batch of the log cannot be read back."""


class _Stored(msgspec.Struct, array_like=True, gc=False):
    """The msgpack form. The columns are those of SHAPE, each as `narrow` stores it; `data` is that of Texts."""

    events: int
    columns: list[Narrow]
    data: bytes


class _StoredWide(msgspec.Struct, array_like=True, gc=False):
    """The form before. Number columns are little-endian; `data` and the three before it are those of Texts."""

    organizations: bytes
    events: bytes
    timestamps: bytes
    defaulted: bytes
    wholes: bytes
    fractions: bytes
    positions: bytes
    sizes: bytes
    key_places: bytes
    key_sizes: bytes
    data: bytes


class _StoredLists(msgspec.Struct, array_like=True, gc=False):
    """The form of the first release, still in logs."""

    organizations: bytes
    events: bytes
    timestamps: bytes
    defaulted: bytes
    wholes: bytes
    fractions: bytes
    positions: bytes
    keys: list[bytes]
    properties: list[bytes]
    units: dict[int, str]
    subscriptions: dict[int, bytes]


@dataclass(slots=True)
class Columns:
    """Events of one request, or of many. `timestamps` are microseconds since 1970; `defaulted` marks those the client left out."""

    organizations: Int32
    events: Int32
    timestamps: Int64
    defaulted: Flags
    wholes: Int64
    fractions: Int64
    positions: Int16
    texts: Texts

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(slots=True)
class Lone:
    """The one event of a request, without subscription and unit, and as little else as it takes: arrays of one cost more than they hold."""

    organization: int
    event: int
    timestamp: int
    defaulted: bool
    whole: int
    fraction: int
    key: bytes
    properties: bytes
    position: int = 0

    def __len__(self) -> int:
        return 1


LONE = np.dtype(
    [
        ("organizations", "<i4"),
        ("events", "<i4"),
        ("timestamps", "<i8"),
        ("defaulted", "?"),
        ("wholes", "<i8"),
        ("fractions", "<i8"),
        ("positions", "<i2"),
        ("key_sizes", "<i4"),
        ("sizes", "<i4"),
    ]
)
"""The numbers of a lone event in its payload; its piece of texts follows."""
LONE_FORM = b"\x03"
LONE_TEXTS = 1 + LONE.itemsize
_pack_lone = struct.Struct("<iiq?qqhii").pack


def is_lone(payload: bytes) -> bool:
    """Whether the payload holds one event as pack() writes a Lone, whole."""
    if payload[:1] != LONE_FORM or len(payload) < LONE_TEXTS:
        return False
    key_size, size = _sizes(payload, LONE_TEXTS - 2 * WORD)
    return bool(len(payload) == LONE_TEXTS + size and 0 < key_size <= size - len(NEITHER) - 2 * WORD)


def unpack_lone(payloads: Sequence[bytes]) -> Columns:
    """The events of payloads that are lone, one after another."""
    rows = np.frombuffer(b"".join([payload[1:LONE_TEXTS] for payload in payloads]), LONE)
    places = np.full(len(rows), len(NEITHER) + WORD, np.int32)
    key_sizes, sizes = (np.ascontiguousarray(rows[name]) for name in ("key_sizes", "sizes"))
    pieces = laid_out(b"".join([payload[LONE_TEXTS:] for payload in payloads]), sizes, places, key_sizes)
    numbers = {name: np.ascontiguousarray(rows[name]) for name in NUMBERS}
    return Columns(**numbers, texts=pieces)


def pack(accepted: Columns | Lone) -> bytes:
    """Events of one request, as they were accepted, as a payload of the log."""
    return _packed_lone(accepted) if isinstance(accepted, Lone) else _packed(accepted)


def _packed_lone(one: Lone) -> bytes:
    data = NEITHER + field(one.key) + field(one.properties)
    numbers = one.organization, one.event, one.timestamp, one.defaulted, one.whole, one.fraction, one.position
    return LONE_FORM + _pack_lone(*numbers, len(one.key), len(data)) + data


def _packed(columns: Columns) -> bytes:
    texts, places = columns.texts, np.arange(len(columns), dtype=np.int16)
    numbers = columns.organizations, columns.events, columns.timestamps, columns.defaulted.view(np.int8), columns.wholes, columns.fractions
    rest = columns.positions - places, texts.sizes, texts.key_places, texts.key_sizes
    stored = _Stored(len(columns), [narrow(column) for column in (*numbers, *rest)], texts.data)
    return FORM + _compressor().compress(_encode(stored))


def unpack(payload: bytes) -> Columns:
    """The columns of a payload; raises Corrupt."""
    try:
        if is_lone(payload):
            return unpack_lone([payload])
        if payload[:1] == FORM:
            columns = _unpacked(_decode(_decompressor().decompress(memoryview(payload)[1:])))
        else:
            columns = _unpacked_wide(payload)
    except (zstandard.ZstdError, msgspec.DecodeError, ValueError) as error:
        raise Corrupt(str(error)) from error
    _check(columns)
    return columns


def _unpacked(stored: _Stored) -> Columns:
    read = [widened(column, stored.events, kind) for column, kind in zip(stored.columns, SHAPE, strict=True)]
    numbers = dict(zip(NUMBERS, read, strict=False))
    numbers["positions"] += np.arange(stored.events, dtype=np.int16)
    return Columns(**numbers, texts=laid_out(stored.data, *read[len(NUMBERS) :]))


def _unpacked_wide(payload: bytes) -> Columns:
    stored: _StoredWide | _StoredLists
    if payload[:1] == FORM_WIDE:
        stored = _decode_wide(_decompressor().decompress(memoryview(payload)[1:]))
        pieces = laid_out(stored.data, *(np.frombuffer(part, np.int32) for part in (stored.sizes, stored.key_places, stored.key_sizes)))
    else:
        stored = _decode_lists(_decompressor().decompress(payload))
        pieces = texts(stored.keys, stored.properties, stored.units, stored.subscriptions)
    return Columns(
        np.frombuffer(stored.organizations, np.int32),
        np.frombuffer(stored.events, np.int32),
        np.frombuffer(stored.timestamps, np.int64),
        np.frombuffer(stored.defaulted, np.bool_),
        np.frombuffer(stored.wholes, np.int64),
        np.frombuffer(stored.fractions, np.int64),
        np.frombuffer(stored.positions, np.int16),
        pieces,
    )


def _check(columns: Columns) -> None:
    events = len(columns.texts.sizes)
    numbers = (columns.organizations, columns.events, columns.timestamps, columns.defaulted, columns.wholes, columns.fractions)
    texts = (columns.positions, columns.texts.key_places, columns.texts.key_sizes)
    if any(len(column) != events for column in (*numbers, *texts)):
        raise Corrupt(f"columns of other lengths than {events}")
    if int(columns.texts.sizes.sum()) != len(columns.texts.data):
        raise Corrupt("texts of another length than was written")


FORM, FORM_WIDE = b"\x04", b"\x02"
"""First byte of a payload, and of those written before; that of a Lone is LONE_FORM, the first had zstd's magic number there."""
SHAPE: tuple[type[np.generic], ...] = (
    *(np.int32, np.int32, np.int64, np.bool_, np.int64, np.int64),
    *(np.int16, np.int32, np.int32, np.int32),
)
"""Types of the columns of a payload: NUMBERS in their order, then the sizes of the texts, and places and sizes of their keys."""
NUMBERS = ("organizations", "events", "timestamps", "defaulted", "wholes", "fractions", "positions")
_sizes = struct.Struct("<ii").unpack_from
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(_Stored).decode
_decode_wide = msgspec.msgpack.Decoder(_StoredWide).decode
_decode_lists = msgspec.msgpack.Decoder(_StoredLists).decode


def concatenate(parts: Sequence[Columns]) -> Columns:
    """All parts one after another."""
    if len(parts) == 1:
        return parts[0]
    numbers: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in NUMBERS}
    return Columns(**numbers, texts=joined([part.texts for part in parts]))


def moved(accepted: Columns | Lone, places: Sequence[int]) -> Columns | Lone:
    """The same events at other positions of the request: the n-th at `places[n]`."""
    if isinstance(accepted, Lone):
        return replace(accepted, position=places[accepted.position])
    return replace(accepted, positions=np.array(places, np.int16)[accepted.positions])


def take(columns: Columns, rows: Int64) -> Columns:
    """The columns of `rows`, in that order."""
    numbers: dict[str, Any] = {name: getattr(columns, name)[rows] for name in NUMBERS}
    return Columns(**numbers, texts=columns.texts.take(rows))


def only(columns: Columns, rows: Int64) -> Columns:
    """As `take`, for columns that will be packed: their texts are all there is."""
    taken = take(columns, rows)
    return replace(taken, texts=taken.texts.alone())


def quantity(whole: int, fraction: int) -> Decimal:
    """The exact number of two of its columns."""
    return Decimal(whole) if fraction == 0 else (Decimal(whole * SCALE + fraction)).scaleb(-PLACES, EXACT)


def split(value: Decimal) -> tuple[int, int]:
    """An accepted quantity (at most 14 digits before and 12 after the point) as whole units and 10^-12ths."""
    whole, fraction = divmod(int(value.scaleb(PLACES, EXACT)), SCALE)
    return whole, fraction


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_codecs, "compressor"):
        _codecs.compressor = zstandard.ZstdCompressor(level=1)
    compressor: zstandard.ZstdCompressor = _codecs.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_codecs, "decompressor"):
        _codecs.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _codecs.decompressor
    return decompressor
