"""Requests whose events are all written alike, as one client library writes them, taken apart by whole columns.

JSON needs a parser because any text may look different from the one before it. When every event is the first one, byte for byte but for
its values, only the first has to be parsed: where the quotes are gives the places of all values, and comparing what stands between
them proves the rest. `read` proves every byte of the body or answers None; then other roads look. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.metering.bodies import Form
from core.metering.texts import cut
from core.metering.wire import EVENT_BYTES_MAX

QUOTE = ord('"')
TOKEN = re.compile(rb'"([^"]*)"|([{}])|([^\s"{}:,\[\]]+)')
SEPARATOR = {Form.JSON: re.compile(rb"\s*,\s*"), Form.NDJSON: re.compile(rb"[ \t\r]*\n\s*")}
AROUND = {
    Form.JSON: (re.compile(rb"\s*\[\s*"), re.compile(rb"\s*\]\s*\Z")),
    Form.NDJSON: (re.compile(rb"\s*"), re.compile(rb"\s*\Z")),
}
EVENTS_MIN = 2
WORD = 8
MARGIN = 64
"""Zeros before and behind the body, so that a row of bytes may reach out of it."""
Places = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
MIXERS = np.array([0x9E3779B97F4A7C15 * (2 * i + 1) % 2**64 | 1 for i in range(MARGIN // WORD)], np.uint64)
"""Odd multipliers that spread the words of a text over one integer; what they make equal is compared itself."""
_scan = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Values:
    """One value of every event: where it starts and ends in the body (without its quotes). `name` is None outside of properties."""

    name: bytes
    of_properties: bool
    quoted: bool
    starts: Places
    ends: Places


@dataclass(frozen=True, slots=True)
class Alike:
    """A body of `events` events. `first` is the text of the first of them."""

    body: bytes
    words: Words
    events: int
    first: bytes
    values: tuple[Values, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A value of the first event: its place in it, and how many quotes stand before."""

    name: bytes
    of_properties: bool
    quoted: bool
    start: int
    end: int
    quotes: int


class _Different(Exception):
    """The events are not written alike."""


def read(body: bytes, form: Form) -> Alike | None:
    """The values of all events, or None when the events differ in more than their values or the body is not plain."""
    if b"\\" in body:
        return None
    try:
        if not body.isascii():
            body.decode()
        start, end = _outside(body, form)
        first = _first(body, start)
        return _taken_apart(body, form, start, end, first)
    except (_Different, ValueError, RecursionError):
        return None


def _outside(body: bytes, form: Form) -> tuple[int, int]:
    """Where the first event starts and the last one ends."""
    head, tail = AROUND[form]
    before, behind = head.match(body), tail.search(body, max(0, len(body) - MARGIN))
    if before is None or behind is None:
        raise _Different
    return before.end(), behind.start()


def _first(body: bytes, start: int) -> bytes:
    _, length = _scan(body[start : start + EVENT_BYTES_MAX].decode("latin-1"))
    return body[start : start + length]


def _parts(first: bytes) -> list[_Part]:
    """The values of an event that is a JSON object with at most one object in it, `properties`."""
    parts: list[_Part] = []
    depth = quotes = 0
    name: bytes | None = None
    for token in TOKEN.finditer(first):
        text, brace, scalar = token.groups()
        if brace is not None:
            depth += 1 if brace == b"{" else -1
            if depth > 2 or (depth == 2 and name != b"properties"):
                raise _Different
            name = None
        elif name is None:
            if text is None:
                raise _Different
            name, quotes = text, quotes + 2
        else:
            quoted = scalar is None
            parts.append(_Part(name, depth > 1, quoted, token.start() + quoted, token.end() - quoted, quotes))
            name, quotes = None, quotes + 2 * quoted
    if not parts:
        raise _Different
    return parts


def _taken_apart(body: bytes, form: Form, start: int, end: int, first: bytes) -> Alike:
    parts = _parts(first)
    data = np.frombuffer(body, np.uint8)
    places = np.flatnonzero(data == QUOTE)
    each = first.count(b'"')
    events, over = divmod(len(places), each)
    if over or events < EVENTS_MIN:
        raise _Different
    quotes = places.reshape(events, each)
    starts = quotes[:, 0] - first.index(b'"')
    between = SEPARATOR[form].match(body, start + len(first))
    if int(starts[0]) != start or between is None:
        raise _Different
    gap = between.group()
    ends = np.append(starts[1:] - len(gap), end)
    values = tuple(_values(part, first, quotes, ends) for part in parts)
    words = _words(body)
    _compare(words, first, parts, values, starts, ends)
    if not _holds(words, ends[:-1], gap):
        raise _Different
    _no_control_inside(body, data, first, parts, events, gap, start, end)
    return Alike(body, words, events, first, values)


def _values(part: _Part, first: bytes, quotes: Places, ends: Places) -> Values:
    """The places of one value in all events: between its quotes, or between the quotes around it less what stands there."""
    if part.quoted:
        return Values(part.name, part.of_properties, True, quotes[:, part.quotes] + 1, quotes[:, part.quotes + 1])
    before = first.rindex(b'"', 0, part.start)
    begin = quotes[:, part.quotes - 1] + (part.start - before)
    if part.quotes < quotes.shape[1]:
        stop = quotes[:, part.quotes] - (first.index(b'"', part.end) - part.end)
    else:
        stop = ends - (len(first) - part.end)
    return Values(part.name, part.of_properties, False, begin, stop)


def _compare(words: Words, first: bytes, parts: Sequence[_Part], values: Sequence[Values], starts: Places, ends: Places) -> None:
    """What stands before, between and behind the values is what it is in the first event."""
    done, at = 0, starts
    for part, value in zip(parts, values, strict=True):
        if (value.starts - at != part.start - done).any() or (value.ends < value.starts).any():
            raise _Different
        if not _holds(words, at, first[done : part.start]):
            raise _Different
        done, at = part.end, value.ends
    if (ends - at != len(first) - done).any() or not _holds(words, at, first[done:]):
        raise _Different


def _holds(words: Words, places: Places, text: bytes) -> bool:
    """Whether `text` stands at every place: compared eight bytes at a time, the last eight overlapping those before."""
    wanted = text.ljust(WORD, b"\0")
    mask = np.uint64(2 ** (8 * min(len(text), WORD)) - 1)
    for offset in {*range(0, len(text) - WORD + 1, WORD), max(0, len(text) - WORD)}:
        word = np.uint64(int.from_bytes(wanted[offset : offset + WORD], "little"))
        if ((words[places + (offset + MARGIN)] & mask) != word).any():
            return False
    return True


def _no_control_inside(
    body: bytes, data: Bytes, first: bytes, parts: Sequence[_Part], events: int, gap: bytes, start: int, end: int
) -> None:
    """No control character stands in a value: all there are were seen between the values."""
    if data.min() < ord(" "):
        found = int(np.count_nonzero(data < ord(" ")))
        fixed = _controls(first) - sum(_controls(first[part.start : part.end]) for part in parts)
        if found != fixed * events + _controls(gap) * (events - 1) + _controls(body[:start]) + _controls(body[end:]):
            raise _Different


def _controls(text: bytes) -> int:
    return sum(byte < ord(" ") for byte in text)


def left(body: Alike, starts: Places, width: int) -> Bytes:
    """The `width` bytes from each start, a row each."""
    return _rows(body.words, starts, width).view(np.uint8)[:, :width]


def right(body: Alike, ends: Places, width: int) -> Words:
    """The bytes up to each end, a row each: as many words of eight as hold `width`, which is at most MARGIN."""
    whole = -(-width // WORD) * WORD
    return _rows(body.words, ends - whole, whole)


def distinct(body: Alike, value: Values) -> tuple[list[bytes], NDArray[np.intp]]:
    """The different texts of a value, and which of them each event has. Values longer than MARGIN are not compared: all differ."""
    sizes = value.ends - value.starts
    longest = max(1, int(sizes.max()))
    if longest > MARGIN:
        return cut(body.body, value.starts, value.ends), np.arange(body.events)
    rows = right(body, value.ends, longest)
    width = rows.shape[1] * WORD
    rows = np.where(np.arange(width) >= width - sizes[:, None], rows.view(np.uint8), np.uint8(0)).view(np.uint64)
    mixed = rows @ MIXERS[: rows.shape[1]]
    _, first, which = np.unique(mixed, return_index=True, return_inverse=True)
    if (rows != rows[first[which]]).any():
        return cut(body.body, value.starts, value.ends), np.arange(body.events)
    return cut(body.body, value.starts[first], value.ends[first]), which


def gathered(source: bytes, starts: Places, sizes: Places) -> bytes:
    """The pieces of `source` from each start, as long as its size, one after another."""
    flat = sizes.ravel()
    offsets = starts.ravel() - (np.cumsum(flat) - flat)
    return np.frombuffer(source, np.uint8)[np.repeat(offsets, flat) + np.arange(int(flat.sum()))].tobytes()


def _rows(words: Words, places: Places, width: int) -> Words:
    offsets = np.arange(0, width, WORD) + MARGIN
    return np.ascontiguousarray(words[places[:, None] + offsets])


def _words(body: bytes) -> Words:
    """The eight bytes from each place of the body on, as little-endian integers that share one copy of it."""
    padded = bytes(MARGIN) + body + bytes(MARGIN)
    return np.ndarray((len(padded) - WORD,), "<u8", buffer=padded, strides=(1,))
