"""The texts of one event, written behind those of the one before it in the form of Texts, by machine code. Pure."""

from __future__ import annotations

from core.metering import tokens, wire
from core.metering.machine import STOP, Bytes, Int64, Words, copied, machine_code
from core.metering.texts import NEITHER, WORD
from core.metering.tokens import is_printable

(NAME, ORGANIZATION, QUANTITY, TIMESTAMP, KEY, PROPERTIES, SUBSCRIPTION, UNIT, SLOTS) = range(9)
"""The fields of an event: from where to where each lies in the body, without its quotes; STOP when it was left out."""
(NAMED, OWNED, MOMENT, DEFAULTED, WHOLE, FRACTION, SIZE, KEY_PLACE, KEY_SIZE, COLUMNS) = range(10)
"""What is found out about each event. NAMED and OWNED count the different names and organizations (none: STOP)."""
OPEN, CLOSE, COMMA, COLON = b"{},:"
PIECE_EXTRA = len(NEITHER) + 2 * WORD + 32
"""A piece is longer than its event by less than that."""
UUID_BYTES, UNIT_MAX = 16, wire.UNIT_LENGTH_MAX


@machine_code
def piece(data: Bytes, words: Words, fields: Int64, members: Int64, out: Words, start: int, rows: Int64, event: int) -> int:
    """Write subscription, unit, key and properties as Texts holds them to `out` from `start` on; the place behind."""
    at = _subscription(data, fields[SUBSCRIPTION, 0], fields[SUBSCRIPTION, 1], out, start)
    at = _unit(words, fields[UNIT, 0], fields[UNIT, 1], out, at) if at != STOP else STOP
    if at == STOP:
        return STOP
    key, end = fields[KEY, 0], fields[KEY, 1]
    rows[event, KEY_PLACE], rows[event, KEY_SIZE] = at + WORD - start, end - key
    at = copied(words, key, end - key, out, _length(out, at, end - key))
    at = _properties(words, members, fields[PROPERTIES, 1] if fields[PROPERTIES, 0] != STOP else 0, out, at)
    rows[event, SIZE] = at - start
    return at


@machine_code
def _properties(words: Words, members: Int64, count: int, out: Words, at: int) -> int:
    """Write the first `count` members as canonical JSON behind its length."""
    size = max(2, 1 + 4 * count)  # braces or commas, colons, the names' quotes
    in_order = count > 0
    for i in range(count):
        size += members[i, 1] - members[i, 0] + members[i, 3] - members[i, 2]
        in_order = in_order and (i == 0 or members[i, 0] > members[i - 1, 0])
    at = _put(out, _length(out, at, size), OPEN)
    if in_order and members[count - 1, 3] - members[0, 0] == size - 3:  # canonical as it stands
        return _put(out, copied(words, members[0, 0] - 1, size - 2, out, at), CLOSE)
    for i in range(count):
        if i:
            at = _put(out, at, COMMA)
        name, value = members[i, 0], members[i, 2]
        at = copied(words, name - 1, members[i, 1] - name + 2, out, at)
        at = copied(words, value, members[i, 3] - value, out, _put(out, at, COLON))
    return _put(out, at, CLOSE)


@machine_code
def _subscription(data: Bytes, start: int, end: int, out: Words, at: int) -> int:
    """Write a subscription's bytes behind their length, or that there is none; STOP when it is no UUID."""
    if start == STOP:
        return _length(out, at, STOP)
    return tokens.uuid(data, start, end, out, _length(out, at, UUID_BYTES))


@machine_code
def _unit(words: Words, start: int, end: int, out: Words, at: int) -> int:
    """Write a unit behind its length, or that there is none; STOP when it is not in order."""
    if start == STOP:
        return _length(out, at, STOP)
    if not 1 <= end - start <= UNIT_MAX or not is_printable(words, start, end):
        return STOP
    return copied(words, start, end - start, out, _length(out, at, end - start))


@machine_code
def _put(out: Words, at: int, character: int) -> int:
    """Write one byte (the seven behind it are for what comes next); the place behind."""
    out[at] = character
    return at + 1


@machine_code
def _length(out: Words, at: int, size: int) -> int:
    """Write a length word (STOP: there is no such field); the place behind."""
    out[at] = (size >> 24 & 255) | (size >> 16 & 255) << 8 | (size >> 8 & 255) << 16 | (size & 255) << 24
    return at + WORD
