"""Accepted events column by column: the form in which they are logged, deduplicated, grouped and written.

Quantities are two integers, whole units and 10^-12ths, so that a hundred thousand of them a second stay exact without Decimal objects.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate, chain

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

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
    """The msgpack form. Number columns are little-endian; `units` and `subscriptions` name the few rows that have one."""

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
    keys: list[bytes]
    properties: list[bytes]
    units: dict[int, str]
    subscriptions: dict[int, bytes]

    def __len__(self) -> int:
        return len(self.keys)


def pack(columns: Columns) -> bytes:
    """`columns` as a payload of the log."""
    stored = _Stored(
        columns.organizations.tobytes(),
        columns.events.tobytes(),
        columns.timestamps.tobytes(),
        columns.defaulted.tobytes(),
        columns.wholes.tobytes(),
        columns.fractions.tobytes(),
        columns.positions.tobytes(),
        columns.keys,
        columns.properties,
        columns.units,
        columns.subscriptions,
    )
    return _compressor().compress(msgspec.msgpack.encode(stored))


def unpack(payload: bytes) -> Columns:
    """The columns of a payload; raises Corrupt."""
    try:
        stored = _decoder(_decompressor().decompress(payload))
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise Corrupt(str(error)) from error
    columns = Columns(
        np.frombuffer(stored.organizations, np.int32),
        np.frombuffer(stored.events, np.int32),
        np.frombuffer(stored.timestamps, np.int64),
        np.frombuffer(stored.defaulted, np.bool_),
        np.frombuffer(stored.wholes, np.int64),
        np.frombuffer(stored.fractions, np.int64),
        np.frombuffer(stored.positions, np.int16),
        stored.keys,
        stored.properties,
        stored.units,
        stored.subscriptions,
    )
    lengths = {len(value) for value in (columns.organizations, columns.events, columns.timestamps, columns.wholes, columns.fractions)}
    if lengths != {len(columns)} or len(columns.properties) != len(columns) or len(columns.positions) != len(columns):
        raise Corrupt(f"columns of different lengths: {sorted(lengths)}")
    return columns


_decoder = msgspec.msgpack.Decoder(_Stored).decode


def concatenate(parts: Sequence[Columns]) -> Columns:
    """All parts one after another."""
    if len(parts) == 1:
        return parts[0]
    starts = [0, *accumulate(len(part) for part in parts)]
    return Columns(
        np.concatenate([part.organizations for part in parts]),
        np.concatenate([part.events for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        np.concatenate([part.defaulted for part in parts]),
        np.concatenate([part.wholes for part in parts]),
        np.concatenate([part.fractions for part in parts]),
        np.concatenate([part.positions for part in parts]),
        list(chain.from_iterable(part.keys for part in parts)),
        list(chain.from_iterable(part.properties for part in parts)),
        {start + row: unit for start, part in zip(starts, parts, strict=False) for row, unit in part.units.items()},
        {start + row: value for start, part in zip(starts, parts, strict=False) for row, value in part.subscriptions.items()},
    )


def take(columns: Columns, rows: Int64) -> Columns:
    """The columns of `rows`, in that order."""
    places = rows.tolist()
    kept = {row: i for i, row in enumerate(places)} if columns.units or columns.subscriptions else {}
    return Columns(
        columns.organizations[rows],
        columns.events[rows],
        columns.timestamps[rows],
        columns.defaulted[rows],
        columns.wholes[rows],
        columns.fractions[rows],
        columns.positions[rows],
        [columns.keys[i] for i in places],
        [columns.properties[i] for i in places],
        {kept[row]: unit for row, unit in columns.units.items() if row in kept},
        {kept[row]: value for row, value in columns.subscriptions.items() if row in kept},
    )


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
