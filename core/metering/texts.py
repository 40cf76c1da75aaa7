"""The fields of events that differ in length (subscription, unit, key, properties), each event's in one piece of one buffer.

A piece has the form in which PostgreSQL's binary COPY takes these four fields, a length word before each, so that a row needs no more
than its numbers in front of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

NULL = b"\xff\xff\xff\xff"
NEITHER = NULL + NULL
WORD = 4
FEW = 8
"""Up to so many events plain Python is faster."""
Places = NDArray[np.int64]
Lengths = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """`starts` and `sizes` of the pieces in `data`; `key_places` (within the piece) and `key_sizes` of the keys. All in bytes."""

    data: bytes
    starts: Places
    sizes: Lengths
    key_places: Lengths
    key_sizes: Lengths

    def __len__(self) -> int:
        return len(self.sizes)

    def pieces(self) -> list[bytes]:
        """Each event's piece."""
        return cut(self.data, self.starts, self.starts + self.sizes)

    def all_keys(self) -> list[bytes]:
        """Each event's idempotency key."""
        return [self.data[start:end] for start, end in self.key_spans()]

    def all_properties(self) -> list[bytes]:
        """Each event's properties, as JSON."""
        return [self.data[start:end] for start, end in self.property_spans()]

    def key_spans(self) -> Iterator[tuple[int, int]]:
        """Where each event's idempotency key starts and ends."""
        return spans(*self.keys_at())

    def property_spans(self) -> Iterator[tuple[int, int]]:
        """Where each event's properties start and end."""
        return spans(*self.properties_at())

    def keys_at(self) -> tuple[Places, Places]:
        """Where the keys start, and where they end."""
        begin = self.starts + self.key_places
        return begin, begin + self.key_sizes

    def properties_at(self) -> tuple[Places, Places]:
        """Where the properties start, and where they end."""
        return self.keys_at()[1] + WORD, self.starts + self.sizes

    def take(self, rows: Places) -> Texts:
        """The pieces of `rows`, in that order; the buffer stays."""
        return Texts(self.data, self.starts[rows], self.sizes[rows], self.key_places[rows], self.key_sizes[rows])

    def alone(self) -> Texts:
        """The same pieces in a buffer that holds nothing else, one after another."""
        return laid_out(b"".join(self.pieces()), self.sizes, self.key_places, self.key_sizes)


def cut(data: bytes, starts: Places, ends: Places) -> list[bytes]:
    """The parts of `data` from each start to its end."""
    return [data[start:end] for start, end in spans(starts, ends)]


def spans(starts: Places, ends: Places) -> Iterator[tuple[int, int]]:
    """Each start with its end."""
    return zip(starts.tolist(), ends.tolist(), strict=True)


def words(values: NDArray[Any]) -> list[bytes]:
    """The memory of each element."""
    return values.view(f"V{values.dtype.itemsize}").tolist()  # type: ignore[no-any-return]


def length_words(sizes: NDArray[Any]) -> list[bytes]:
    """The word that goes before a field of each size."""
    return words(sizes.astype(">i4"))


def sizes_of(values: Sequence[bytes]) -> Lengths:
    """How long each is."""
    return np.fromiter(map(len, values), np.int32, len(values))


def texts(
    keys: Sequence[bytes],
    properties: Sequence[bytes],
    units: Mapping[int, str] | None = None,
    subscriptions: Mapping[int, bytes] | None = None,
) -> Texts:
    """The pieces of events; `units` and `subscriptions` by row, for those that have one."""
    if len(keys) <= FEW:
        return _few(keys, properties, units or {}, subscriptions or {})
    key_sizes, property_sizes = sizes_of(keys), sizes_of(properties)
    heads = [NEITHER] * len(keys)
    places = np.full(len(keys), len(NEITHER) + WORD, np.int32)
    units, subscriptions = units or {}, subscriptions or {}
    for row in units.keys() | subscriptions.keys():
        heads[row] = field(subscriptions.get(row)) + field(units[row].encode() if row in units else None)
        places[row] = len(heads[row]) + WORD
    parts = zip(heads, length_words(key_sizes), keys, length_words(property_sizes), properties, strict=True)
    return laid_out(b"".join(chain.from_iterable(parts)), places + key_sizes + WORD + property_sizes, places, key_sizes)


def _few(keys: Sequence[bytes], properties: Sequence[bytes], units: Mapping[int, str], subscriptions: Mapping[int, bytes]) -> Texts:
    """The same without a detour through arrays."""
    heads = [field(subscriptions.get(row)) + field(units[row].encode() if row in units else None) for row in range(len(keys))]
    pieces = [head + field(key) + field(line) for head, key, line in zip(heads, keys, properties, strict=True)]
    sizes = [len(piece) for piece in pieces]
    numbers = np.array([sizes, [len(head) + WORD for head in heads], [len(key) for key in keys]], np.int32)
    starts = np.array([0, *accumulate(sizes[:-1])], np.int64)
    return Texts(b"".join(pieces), starts, numbers[0], numbers[1], numbers[2])


def laid_out(data: bytes, sizes: Lengths, key_places: Lengths, key_sizes: Lengths) -> Texts:
    """Pieces that lie in `data` one after another."""
    return Texts(data, np.cumsum(sizes, dtype=np.int64) - sizes, sizes, key_places, key_sizes)


def joined(parts: Sequence[Texts]) -> Texts:
    """All parts one after another."""
    offsets = np.cumsum([0, *(len(part.data) for part in parts[:-1])])
    return Texts(
        b"".join([part.data for part in parts]),
        np.concatenate([part.starts + offset for part, offset in zip(parts, offsets.tolist(), strict=True)]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.key_places for part in parts]),
        np.concatenate([part.key_sizes for part in parts]),
    )


def field(value: bytes | None) -> bytes:
    """The value behind its length word."""
    return NULL if value is None else len(value).to_bytes(WORD, "big") + value
