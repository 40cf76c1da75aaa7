"""The shape of an event: what stands between its values. Events of one request mostly differ in their values only. Pure.

`learn` takes down the shape of an event that was read with care; `follow` reads the next one by it, comparing what stands between the
values eight bytes at once. The values themselves are looked at by whoever reads them, as after any other way of finding them.
"""

from __future__ import annotations

import numpy as np

from core.metering import tokens, wire
from core.metering.machine import STOP, Bytes, Int64, Words, machine_code
from core.metering.pieces import PROPERTIES, SLOTS

(START, END, KIND, TARGET, NAME, NAME_SIZE, PARTS) = range(7)
"""A row for each value, in their order: what stands before it (START, END: in the body), what it is, which field's value (from SLOTS on:
the value of that member of the properties), how far before it its name starts. The last row has what stands behind the last value in
START and END, and the number of values in KIND."""
TEXT, DECIMAL, SCALAR = range(3)
TEXT_MAX = wire.PROPERTY_TEXT_LENGTH_MAX


def unknown(properties: int) -> Int64:
    """The shape of no event, with room for so many properties."""
    return np.full((SLOTS + properties + 1, PARTS), STOP)


@machine_code
def follow(data: Bytes, words: Words, at: int, shape: Int64, fields: Int64, members: Int64) -> int:
    """Find where the values of the event at `at` lie if it has the shape, as `fields` and `members` had when it was learned; the place
    behind it. STOP when it has another."""
    behind = len(shape) - 1
    for i in range(shape[behind, KIND]):
        at = _passed(words, at, shape[i, START], shape[i, END])
        if at == STOP:
            return STOP
        kind, target, start = shape[i, KIND], shape[i, TARGET], at
        if kind == TEXT:
            at = tokens.text_end(words, start)
        else:
            at = tokens.decimal_end(data, start) if kind == DECIMAL else tokens.scalar_end(data, start)
        if at == STOP:
            return STOP
        if target < SLOTS:
            fields[target, 0], fields[target, 1] = start, at
        elif at - start > TEXT_MAX:
            return STOP
        else:
            member, name, quote = target - SLOTS, start - shape[i, NAME], kind == TEXT
            members[member, 0], members[member, 1] = name, name + shape[i, NAME_SIZE]
            members[member, 2], members[member, 3] = start - quote, at + quote
    return _passed(words, at, shape[behind, START], shape[behind, END]) if shape[behind, KIND] > 0 else STOP


@machine_code
def _passed(words: Words, at: int, start: int, end: int) -> int:
    """The place behind what stands at `at`, if the same stands from `start` to `end`; otherwise STOP."""
    size = end - start
    return at + size if at + size < len(words) and tokens.is_same(words, at, start, size) else STOP


@machine_code
def learn(data: Bytes, start: int, end: int, shape: Int64, fields: Int64, members: Int64) -> None:
    """Take down the shape of the event that stands from `start` to `end` (STOP: it could not be read)."""
    behind, count = len(shape) - 1, 0
    shape[behind, KIND] = 0
    if end == STOP:
        return
    for slot in range(SLOTS):
        if fields[slot, 0] != STOP and slot != PROPERTIES:
            kind = TEXT if data[fields[slot, 0] - 1] == tokens.QUOTE else DECIMAL
            count = _sort_in(shape, count, fields[slot, 0], fields[slot, 1], kind, slot)
    for member in range(fields[PROPERTIES, 1] if fields[PROPERTIES, 0] != STOP else 0):
        quote = data[members[member, 2]] == tokens.QUOTE
        value, value_end = members[member, 2] + quote, members[member, 3] - quote
        count = _sort_in(shape, count, value, value_end, TEXT if quote else SCALAR, SLOTS + member)
    at = start
    for i in range(count):
        value, value_end = shape[i, START], shape[i, END]
        if shape[i, TARGET] >= SLOTS:
            member = shape[i, TARGET] - SLOTS
            shape[i, NAME], shape[i, NAME_SIZE] = value - members[member, 0], members[member, 1] - members[member, 0]
        shape[i, START], shape[i, END], at = at, value, value_end
    shape[behind, START], shape[behind, END], shape[behind, KIND] = at, end, count


@machine_code
def _sort_in(shape: Int64, count: int, start: int, end: int, kind: int, target: int) -> int:
    """Put a value among the `count` before it, by its place; how many there are then."""
    place = count
    while place > 0 and shape[place - 1, START] > start:
        for part in range(PARTS):
            shape[place, part] = shape[place - 1, part]
        place -= 1
    shape[place, START], shape[place, END], shape[place, KIND], shape[place, TARGET] = start, end, kind, target
    return count + 1
