"""Organizations by what they are called, in a form that machine code reads while it scans a body. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from core.metering import machine, tokens
from core.metering.machine import STOP, Int32, Int64, Words, entered, lent, machine_code
from core.metering.tokens import PROBES_MAX, are_same, home

Table = tuple[Words, Int64, Int32, Int32]
"""The names behind one another and where each starts and ends; the number of each, STOP when it is forgotten; by hash, which of them."""


class Known:
    """The numbers of organizations by reference. It grows by being made anew; one that changed is forgotten in place."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        names = [name.encode() for name in numbers]
        ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._names = list(numbers)
        spans = np.stack((np.append(np.int64(0), ends[:-1]), ends), axis=1) if names else np.zeros((0, 2), np.int64)
        slots = np.full(1 << max(4, (2 * len(names)).bit_length()), STOP, np.int32)
        self.table: Table = (
            machine.words(machine.padded(b"".join(names))),
            spans,
            np.fromiter(numbers.values(), np.int32, len(names)),
            slots,
        )
        fill(self.table)

    def __len__(self) -> int:
        return len(self._names)

    def forget(self, names: Collection[str]) -> None:
        """Whoever scans from now on does not find them."""
        numbers = self.table[2]
        for place, name in enumerate(self._names):
            if name in names:
                numbers[place] = STOP


@entered(machine, tokens)
def fill(table: Table) -> None:
    """Put the names of a table whose slots are free into them. One with too many others of its hash is left out."""
    _fill(*lent(table))


@machine_code
def _fill(names: Words, spans: Int64, numbers: Int32, slots: Int32) -> None:
    for place in range(len(numbers)):
        start, end = spans[place]
        first = home(names, start, end - start)
        for probe in range(PROBES_MAX):
            slot = np.int64((first + np.uint64(probe)) & np.uint64(len(slots) - 1))
            if slots[slot] == STOP:
                slots[slot] = place
                break


@machine_code
def number(names: Words, spans: Int64, numbers: Int32, slots: Int32, words: Words, start: int, size: int) -> int:
    """The number of the organization whose name stands at `start` in a body's words; STOP when it is not known here."""
    first = home(words, start, size)
    for probe in range(PROBES_MAX):
        place = slots[np.int64((first + np.uint64(probe)) & np.uint64(len(slots) - 1))]
        if place == STOP:
            return STOP
        if spans[place, 1] - spans[place, 0] == size and are_same(words, start, names, spans[place, 0], size):
            return int(numbers[place])
    return STOP
