"""Looking for keys in tables, one after another by machine code. Pure.

Open addressing with linear probing; a slot whose first word is 0 is free.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.metering import machine
from core.metering.machine import STOP, Int32, Int64, Words, entered, lent, machine_code

Prints = np.ndarray[Any, np.dtype[np.uint32]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Keys = tuple[Words, Words, Prints]
"""Both words of the hash of each key, and its fingerprint: of some entries, or of the slots of a table."""


@entered(machine)
def find(keys: Keys, table: Keys, found: Flags, fingerprints: Prints) -> None:
    """Which keys are in the table, and with what fingerprints."""
    _find(lent(keys), lent(table), lent((found, fingerprints)))


@machine_code
def _find(keys: Keys, table: Keys, answer: tuple[Flags, Prints]) -> None:
    (high, low, _), (highs, lows, prints), (found, fingerprints) = keys, table, answer
    last = np.uint64(len(highs) - 1)
    for i in range(len(high)):
        slot = np.int64(high[i] & last)
        while highs[slot] != 0:
            if highs[slot] == high[i] and lows[slot] == low[i]:
                found[i], fingerprints[i] = True, prints[slot]
                break
            slot = np.int64((np.uint64(slot) + np.uint64(1)) & last)


@entered(machine)
def insert(keys: Keys, table: Keys) -> None:
    """Put keys that are not in the table into it, each once; there is room."""
    _insert(lent(keys), lent(table))


@machine_code
def _insert(keys: Keys, table: Keys) -> None:
    (high, low, fingerprints), (highs, lows, prints) = keys, table
    last = np.uint64(len(highs) - 1)
    for i in range(len(high)):
        slot = np.int64(high[i] & last)
        while highs[slot] != 0:
            slot = np.int64((np.uint64(slot) + np.uint64(1)) & last)
        highs[slot], lows[slot], prints[slot] = high[i], low[i], fingerprints[i]


@entered(machine)
def distinct(keys: Keys, slots: Int32, first: Int64, which: Int64) -> int:
    """How many different keys there are; the place of the first entry of each, and for every entry which of those it belongs to.

    `slots` are free (STOP), a power of two of them, more than there are keys.
    """
    return _distinct(lent(keys), lent((slots, first, which)))


@machine_code
def _distinct(keys: Keys, room: tuple[Int32, Int64, Int64]) -> int:
    (high, low, _), (slots, first, which) = keys, room
    last, count = np.uint64(len(slots) - 1), 0
    for i in range(len(high)):
        slot = np.int64(high[i] & last)
        while slots[slot] != STOP and (high[first[slots[slot]]] != high[i] or low[first[slots[slot]]] != low[i]):
            slot = np.int64((np.uint64(slot) + np.uint64(1)) & last)
        if slots[slot] == STOP:
            slots[slot], first[count] = count, i
            count += 1
        which[i] = slots[slot]
    return count
