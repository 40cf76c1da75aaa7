"""One pass over the body of a request: the fields, numbers and texts of all its events, by machine code. Pure.

JSON as client libraries write it is simple enough to be read where it lies: no escapes, flat, a dozen known names. `scan` takes that
and stops at the first byte that is anything else; then other roads look, which know all of JSON and say what is wrong. It must never
accept what the careful road would not, nor differently (tests/metering/test_roads.py compares them).
"""

from __future__ import annotations

import numpy as np

from core.metering import known, machine, pieces, shapes, tokens, wire
from core.metering.machine import EIGHT, STOP, Bytes, Int32, Int64, Words, entered, lent, machine_code
from core.metering.pieces import (
    CLOSE,
    COLON,
    COLUMNS,
    COMMA,
    DEFAULTED,
    FRACTION,
    KEY,
    MOMENT,
    NAME,
    NAMED,
    OPEN,
    ORGANIZATION,
    OWNED,
    PROPERTIES,
    QUANTITY,
    SLOTS,
    SUBSCRIPTION,
    TIMESTAMP,
    UNIT,
    WHOLE,
)
from core.metering.tokens import NEVER, PROBES_MAX, QUOTE, blank, home, is_printable, is_same, is_visible, part, text_end

MEANINGS = {
    **dict.fromkeys(wire.NAME_FIELDS, NAME),
    **dict.fromkeys(wire.ORGANIZATION_FIELDS, ORGANIZATION),
    "quantity": QUANTITY,
    "timestamp": TIMESTAMP,
    "idempotency_key": KEY,
    "properties": PROPERTIES,
    "subscription_id": SUBSCRIPTION,
    "unit": UNIT,
}
FIELDS = len(MEANINGS)
FIELD_SIZES = np.array([len(name) for name in MEANINGS])
FIELD_WORDS = np.frombuffer(b"".join(name.encode().ljust(16, b"\0") for name in MEANINGS), "<u8").reshape(FIELDS, 2)
FIELD_SLOTS = np.array(list(MEANINGS.values()))

BEGIN, END = b"[]"
DONE = -2
UNKNOWN = -2
EVENT_BYTES_MAX, PROPERTIES_MAX = wire.EVENT_BYTES_MAX, wire.PROPERTIES_MAX
NAME_MAX, TEXT_MAX, KEY_MAX = wire.PROPERTY_NAME_LENGTH_MAX, wire.PROPERTY_TEXT_LENGTH_MAX, 255


Body = tuple[Bytes, Words, Words]
"""What was sent with eight zeros behind it, its words, and the words of where the texts of its events are written to."""
Found = tuple[Int64, Int64, Int64]
"""A row of COLUMNS for each event; from where to where the different names stand, and the organizations that are not known."""
Room = tuple[Int32, Int32, Int64, Int64, Int64, Int64, Int64]


NOBODY = known.Known({})


def room(most: int) -> tuple[Found, Room]:
    """Where a scan of at most so many events works and writes."""
    slots = 16
    while slots < 2 * most:
        slots *= 2
    found = np.empty((most, COLUMNS), np.int64), np.full((most + 1, 2), STOP), np.full((most + 1, 2), STOP)
    tables = np.full(slots, STOP, np.int32), np.full(slots, STOP, np.int32)
    fields, members, guesses = np.empty((SLOTS, 2), np.int64), np.empty((PROPERTIES_MAX, 4), np.int64), np.zeros(FIELDS, np.int64)
    return found, (*tables, fields, members, guesses, shapes.unknown(PROPERTIES_MAX), np.full(2, STOP))


@entered(tokens, pieces, shapes, known, machine)
def scan(by_line: bool, body: Body, found: Found, room: Room, accounts: known.Table) -> tuple[int, int]:
    """The events of a body, as many as there is room for: how many (STOP: not for this road), and the length of their texts.

    In the rows NAMED and OWNED say which of the different names and organizations an event has; organizations that are known have
    their number there, the others come behind UNKNOWN, downwards. The last rows of `found`'s names and organizations say the place of
    the last.
    """
    return _scan(by_line, lent(body), lent(found), lent(room), lent(accounts))


@machine_code
def _scan(by_line: bool, body: Body, found: Found, room: Room, accounts: known.Table) -> tuple[int, int]:
    (data, words, out), (rows, names, owners) = body, found
    by_name, by_owner, fields, members, guesses, shape, minute = room
    events, used, at = 0, 0, _opening(data, by_line)
    while at >= 0:
        if events == len(rows) or data[at] != OPEN:
            return STOP, used
        end = shapes.follow(data, words, at, shape, fields, members)
        if end == STOP:
            end = _event(data, words, at, not by_line, fields, members, guesses)
            shapes.learn(data, at, end, shape, fields, members)
        if end == STOP or end - at > EVENT_BYTES_MAX or not _numbers(data, words, fields, rows, events, minute):
            return STOP, used
        rows[events, NAMED] = _which(words, fields[NAME, 0], fields[NAME, 1], by_name, names)
        rows[events, OWNED] = _owner(words, fields[ORGANIZATION, 0], fields[ORGANIZATION, 1], by_owner, owners, accounts)
        used = pieces.piece(data, words, fields, members, out, used, rows, events)
        if rows[events, NAMED] == STOP or used == STOP:
            return STOP, used
        events, at = events + 1, _next(data, end, by_line)
    return (events if at == DONE else STOP), used


@machine_code
def _owner(words: Words, start: int, end: int, table: Int32, seen: Int64, accounts: known.Table) -> int:
    """The number of the organization called so; its place below UNKNOWN when it is not known, STOP when there is none."""
    if start == STOP:
        return STOP
    names, spans, numbers, slots = accounts
    found = known.number(names, spans, numbers, slots, words, start, end - start)
    if found != STOP:
        return found
    place = _which(words, start, end, table, seen)
    return UNKNOWN - place if place != STOP else STOP


@machine_code
def _opening(data: Bytes, by_line: bool) -> int:
    """Where the first event starts."""
    at = blank(data, 0, True)
    if by_line:
        return at
    return blank(data, at + 1, True) if data[at] == BEGIN else STOP


@machine_code
def _next(data: Bytes, at: int, by_line: bool) -> int:
    """Where the event behind the one that ends at `at` starts; DONE when there is none."""
    last = len(data) - EIGHT
    at = blank(data, at, not by_line)
    if by_line:
        behind = blank(data, at, True)
        return DONE if behind == last else behind if behind > at else STOP
    if data[at] == COMMA:
        return blank(data, at + 1, True)
    return DONE if data[at] == END and blank(data, at + 1, True) == last else STOP


@machine_code
def _event(data: Bytes, words: Words, at: int, lines: bool, fields: Int64, members: Int64, guesses: Int64) -> int:
    """Find where the fields of the event at `at` lie (of the properties: their number); the place behind it."""
    for slot in range(SLOTS):
        fields[slot, 0] = STOP
    for count in range(FIELDS):
        name = blank(data, at + 1, lines)
        field, at = _name(data, words, name, lines, guesses[count])
        if field == STOP or fields[FIELD_SLOTS[field], 0] != STOP:
            return STOP
        guesses[count], slot = field, FIELD_SLOTS[field]
        fields[slot, 0] = at
        if slot == PROPERTIES:
            at, fields[slot, 1] = _members(data, words, at, lines, members)
        elif data[at] == QUOTE:
            fields[slot, 0] = at + 1
            fields[slot, 1] = text_end(words, at + 1)
            at = fields[slot, 1] + 1 if fields[slot, 1] != STOP else STOP
        elif slot == QUANTITY:
            at = fields[slot, 1] = tokens.decimal_end(data, at)
        else:
            return STOP
        if at == STOP:
            return STOP
        at = blank(data, at, lines)
        if data[at] != COMMA:
            return at + 1 if data[at] == CLOSE else STOP
    return STOP


@machine_code
def _name(data: Bytes, words: Words, at: int, lines: bool, guess: int) -> tuple[int, int]:
    """Which field's name stands at `at`, looking at the guess first, and where its value starts."""
    if data[at] != QUOTE:
        return STOP, STOP
    end = text_end(words, at + 1)
    if end == STOP:
        return STOP, STOP
    colon = blank(data, end + 1, lines)
    if data[colon] != COLON:
        return STOP, STOP
    size = end - at - 1
    first = part(words, at + 1, size)
    second = part(words, at + 9, size - 8) if size > 8 else np.uint64(0)
    for turn in range(FIELDS):
        field = (guess + turn) % FIELDS
        if FIELD_SIZES[field] == size and FIELD_WORDS[field, 0] == first and FIELD_WORDS[field, 1] == second:
            return field, blank(data, colon + 1, lines)
    return STOP, STOP


@machine_code
def _members(data: Bytes, words: Words, at: int, lines: bool, members: Int64) -> tuple[int, int]:
    """Find where the properties in the object at `at` lie, by name: the name, and the value with its quotes. The place behind; how many."""
    if data[at] != OPEN:
        return STOP, 0
    at = blank(data, at + 1, lines)
    if data[at] == CLOSE:
        return at + 1, 0
    for count in range(PROPERTIES_MAX):
        end = text_end(words, at + 1) if data[at] == QUOTE else STOP
        if end == STOP or not 1 <= end - at - 1 <= NAME_MAX or not is_printable(words, at + 1, end):
            return STOP, 0
        colon = blank(data, end + 1, lines)
        if data[colon] != COLON:
            return STOP, 0
        value = blank(data, colon + 1, lines)
        stop = _value_end(data, words, value)
        if stop == STOP or not _sort_in(data, members, count, at + 1, end, value, stop):
            return STOP, 0
        at = blank(data, stop, lines)
        if data[at] != COMMA:
            return (at + 1, count + 1) if data[at] == CLOSE else (STOP, 0)
        at = blank(data, at + 1, lines)
    return STOP, 0


@machine_code
def _value_end(data: Bytes, words: Words, at: int) -> int:
    """Where the value of a property ends, its quotes included."""
    if data[at] != QUOTE:
        return tokens.scalar_end(data, at)
    end = text_end(words, at + 1)
    return STOP if end == STOP or end - at - 1 > TEXT_MAX else end + 1


@machine_code
def _sort_in(data: Bytes, members: Int64, count: int, name: int, name_end: int, value: int, value_end: int) -> bool:
    """Put a property among the `count` before it; False when one of them is called the same."""
    place = count
    while place > 0:
        order = _order(data, members[place - 1, 0], members[place - 1, 1], name, name_end)
        if order == 0:
            return False
        if order < 0:
            break
        members[place] = members[place - 1]
        place -= 1
    members[place, 0], members[place, 1], members[place, 2], members[place, 3] = name, name_end, value, value_end
    return True


@machine_code
def _order(data: Bytes, start: int, end: int, other: int, other_end: int) -> int:
    """Below, equal to or above 0 as the text from `start` comes before, is or comes behind the other."""
    for i in range(min(end - start, other_end - other)):
        if data[start + i] != data[other + i]:
            return -1 if data[start + i] < data[other + i] else 1
    return (end - start) - (other_end - other)


@machine_code
def _numbers(data: Bytes, words: Words, fields: Int64, rows: Int64, event: int, minute: Int64) -> bool:
    """Read timestamp and quantity; whether these and the key are in order and nothing is missing."""
    key, end = fields[KEY, 0], fields[KEY, 1]
    if fields[NAME, 0] == STOP or key == STOP or not 1 <= end - key <= KEY_MAX or not is_visible(words, key, end):
        return False
    moment, whole, fraction = 0, 1, 0
    given = fields[TIMESTAMP, 0] != STOP
    if given:
        moment = tokens.timestamp(data, words, fields[TIMESTAMP, 0], fields[TIMESTAMP, 1], minute)
    if fields[QUANTITY, 0] != STOP:
        whole, fraction = tokens.quantity(data, fields[QUANTITY, 0], fields[QUANTITY, 1])
    rows[event, MOMENT], rows[event, DEFAULTED], rows[event, WHOLE], rows[event, FRACTION] = moment, not given, whole, fraction
    return moment != NEVER and whole != STOP


@machine_code
def _which(words: Words, start: int, end: int, table: Int32, seen: Int64) -> int:
    """The place of a text among those seen, where it is put if it is new; STOP when there is none or its hash is suspiciously common."""
    if start == STOP:
        return STOP
    first = home(words, start, end - start)
    for probe in range(PROBES_MAX):
        slot = np.int64((first + np.uint64(probe)) & np.uint64(len(table) - 1))
        place = int(table[slot])
        if place == STOP:
            place = int(seen[-1, 1]) + 1
            table[slot], seen[-1, 1] = place, place
            seen[place, 0], seen[place, 1] = start, end
            return place
        if seen[place, 1] - seen[place, 0] == end - start and is_same(words, start, seen[place, 0], end - start):
            return place
    return STOP
