"""Rows of events in the form of PostgreSQL's binary COPY, and what they add to the rollups, by machine code. Pure.

Both walk the events in a given order and read their columns where they lie, so that no column needs to be put in order first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.metering import machine
from core.metering.machine import Int32, Int64, Words, copied, entered, lent, machine_code, swapped
from core.metering.meters import HOUR_MICROS
from core.metering.pgcopy import DIGIT, POSTGRES_EPOCH_MICROS

FIELDS = 11
HEAD_MAX = 96
"""Bytes of a row before its texts, at most."""
CARRY = 10**12
Events = tuple[Int32, Int32, Int64, Int64, Int64]
"""Organizations, event numbers, timestamps, wholes and fractions."""
Batches = tuple[Int64, Int64, Int64]
"""To which batch each event belongs; the number of each batch, and when it was received."""


@entered(machine)
def rows(order: Int64, events: Events, positions: Any, batches: Batches, texts: tuple[Words, Int64, Int32], out: Words) -> int:
    """Write the rows; how many bytes they are. `texts` are the words of the pieces, their starts and sizes."""
    return _rows(lent((order, positions)), lent(events), lent(batches), lent(texts), lent((out,)))


@machine_code
def _rows(chosen: Any, events: Events, batches: Batches, texts: tuple[Words, Int64, Int32], output: tuple[Words]) -> int:
    (order, positions), (out,) = chosen, output
    organizations, kinds, moments, wholes, fractions = events
    (owner, numbers, received), (data, starts, sizes) = batches, texts
    at = 0
    for i in range(len(order)):
        row = order[i]
        batch = owner[row]
        at = _short(out, at, FIELDS)
        at = _long(out, at, moments[row] - POSTGRES_EPOCH_MICROS)
        at = _long(out, at, received[batch] - POSTGRES_EPOCH_MICROS)
        at = _long(out, at, numbers[batch])
        at = _word(out, _word(out, at, 4), organizations[row])
        at = _word(out, _word(out, at, 4), kinds[row])
        at = _short(out, _word(out, at, 2), positions[row])
        at = _numeric(out, at, wholes[row], fractions[row])
        at = copied(data, starts[row], sizes[row], out, at)
    return at


@machine_code
def _long(out: Words, at: int, value: int) -> int:
    """Write a field of eight bytes behind its length; the place behind."""
    at = _word(out, at, 8)
    out[at] = swapped(np.uint64(value))
    return at + 8


@machine_code
def _word(out: Words, at: int, value: int) -> int:
    """Write four bytes (the four behind them are for what comes next); the place behind."""
    out[at] = swapped(np.uint64(value) << np.uint64(32))
    return at + 4


@machine_code
def _short(out: Words, at: int, value: int) -> int:
    """Write two bytes (the six behind them are for what comes next); the place behind."""
    out[at] = swapped(np.uint64(value) << np.uint64(48))
    return at + 2


@machine_code
def _numeric(out: Words, at: int, whole: int, fraction: int) -> int:
    """Write a numeric behind its length: base-10000 digits without zeros at either end, and decimals in steps of four."""
    a, b, c, d = whole // DIGIT**3, whole // DIGIT**2 % DIGIT, whole // DIGIT % DIGIT, whole % DIGIT
    e, f, g = fraction // DIGIT**2, fraction // DIGIT % DIGIT, fraction % DIGIT
    high = 4 if a else 3 if b else 2 if c else 1 if d else 0
    scale = 3 if g else 2 if f else 1 if e else 0
    skipped = 0 if high or e or not scale else 1 if f else 2
    digits = high + scale - skipped
    at = _short(out, _word(out, at, 8 + 2 * digits), digits)
    at = _short(out, at, high - 1 - skipped if digits else 0)
    at = _short(out, _short(out, at, 0), 4 * scale)
    for place, digit in ((4, a), (3, b), (2, c), (1, d)):
        if place <= high:
            at = _short(out, at, digit)
    for place, digit in ((0, e), (1, f), (2, g)):
        if skipped <= place < scale:
            at = _short(out, at, digit)
    return at


Sums = tuple[Int32, Int32, Int64, Int64, Int64, Int64, Int64, Int64]
"""Organization, event number, hour, events, wholes, fractions, first and last timestamp of each group."""


@entered(machine)
def added(order: Int64, events: Events, sums: Sums) -> int:
    """Add up the ordered events by organization, event number and hour; how many groups there are."""
    return _added(lent((order,)), lent(events), lent(sums))


@machine_code
def _added(chosen: tuple[Int64], events: Events, sums: Sums) -> int:
    (order,) = chosen
    organizations, kinds, moments, wholes, fractions = events
    owners, names, hours, amounts, whole_sums, fraction_sums, first, last = sums
    group, until = -1, 0
    for i in range(len(order)):
        row = order[i]
        moment = moments[row]
        if group < 0 or organizations[row] != owners[group] or kinds[row] != names[group] or moment >= until:
            group += 1
            hour = moment // HOUR_MICROS * HOUR_MICROS
            until = hour + HOUR_MICROS
            owners[group], names[group], hours[group], first[group] = organizations[row], kinds[row], hour, moment
            amounts[group], whole_sums[group], fraction_sums[group] = 0, 0, 0
        amounts[group] += 1
        whole_sums[group] += wholes[row]
        fraction_sums[group] += fractions[row]
        if fraction_sums[group] >= CARRY:
            fraction_sums[group] -= CARRY
            whole_sums[group] += 1
        last[group] = moment
    return group + 1
