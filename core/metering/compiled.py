"""Judging a request in one pass of machine code over its body: the road of every usual batch, where Numba is installed.

`judge` answers None at the first sign of anything unusual; `quick` and `careful` look then. It must never accept what the careful road
would not, nor differently (tests/metering/test_roads.py compares them). The code is loaded beside the first big requests, which take
the other roads meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from core.metering import quick
from core.metering.accounts import Account
from core.metering.bodies import Form
from core.metering.careful import Window, bounds_at
from core.metering.chosen import Chosen
from core.metering.columns import Columns, Int32, Int64
from core.metering.directory import Directory, EventType
from core.metering.loading import Lazy
from core.metering.quick import Limits, Unusual, known
from core.metering.texts import Texts, cut, laid_out

LOAD_AT_EVENTS = 100
"""A request of so many events makes the code worth loading."""
NOBODYS, UNKNOWN = -1, -2
"""Instead of an organization's number: the event names none, or one of those that the pass did not know (downwards from there)."""
_decode_lines = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode_lines


@dataclass(frozen=True, slots=True)
class _Read:
    """What the pass found: a row for each of pieces' columns, their texts, the different names and unknown organizations in their order."""

    rows: Int64
    texts: Texts
    names: list[str]
    called: list[str]


def judge(
    directory: Directory, own: Account | None, body: bytes, form: Form, *, window: Window, at: datetime, most: int | None = None
) -> tuple[Columns, Sequence[str]] | None:
    """The events of the body (at most `most`), all accepted, and the metrics each feeds; None when any of them needs a closer look."""
    most = body.count(b'"idempotency_key"') if most is None else most
    scan = SCAN.get(wanted=most >= LOAD_AT_EVENTS)
    if scan is None:
        return None
    try:
        if not body.isascii():
            body.decode()
        found = None
        if own is None:
            accounts = directory.usual_accounts(scan.known.Known)
            found = _of_known(directory, _read(scan, body, form, most, accounts), window, at)
        return found or _of_any(directory, own, _read(scan, body, form, most), window, at)
    except (Unusual, UnicodeDecodeError):
        return None


def _read(scan: ModuleType, body: bytes, form: Form, most: int, accounts: Any = None) -> _Read:
    """Raises Unusual."""
    data = scan.machine.padded(body)
    out = np.empty(len(data) + most * scan.pieces.PIECE_EXTRA, np.uint8)
    found, room = scan.room(most)
    bodies = data, scan.machine.words(data), scan.machine.words(out)
    events, used = scan.scan(form == Form.NDJSON, bodies, found, room, scan.NOBODY.table if accounts is None else accounts.table)
    if events < 1:
        raise Unusual
    rows = np.ascontiguousarray(found[0][:events].T)
    sizes, places, lengths = rows[scan.pieces.SIZE : scan.pieces.COLUMNS].astype(np.int32)
    different = [[text.decode() for text in cut(body, *spans[: spans[-1, 1] + 1].T)] for spans in found[1:]]
    return _Read(rows[: scan.pieces.SIZE], laid_out(out[:used].tobytes(), sizes, places, lengths), *different)


SCAN = Lazy("core.metering.scan", lambda scan: _read(scan, b'[{"metric_name":"a","idempotency_key":"b"}]', Form.JSON, 1))


def _of_known(directory: Directory, read: _Read, window: Window, at: datetime) -> tuple[Columns, Sequence[str]] | None:
    """Events of organizations that need no closer look, nearly all of which the pass itself knew; None when one of them needs it."""
    owned = read.rows[1]
    if int(owned.min()) == NOBODYS:
        raise Unusual
    if read.called:
        directory.accounts(read.called)
        numbers = directory.usual_numbers(read.called)
        if numbers is None:
            return None
        places = np.flatnonzero(owned < 0)
        owned[places] = np.array(numbers, np.int64)[UNKNOWN - owned[places]]
    return _judged(directory, read, owned.astype(np.int32), quick.columns_of([bounds_at(at, window)]))


def _of_any(directory: Directory, own: Account | None, read: _Read, window: Window, at: datetime) -> tuple[Columns, Sequence[str]]:
    """Events of organizations none of which the pass knew, each with a time of its own, perhaps."""
    owned = read.rows[1]
    if read.called and int(owned.max()) == NOBODYS:
        raise Unusual
    numbers, limits = quick.owners(directory, own, read.called, window, at)
    owned = np.maximum(UNKNOWN - owned, 0)
    now, first, last = (limit if len(limit) == 1 else limit[owned] for limit in limits)
    return _judged(directory, read, numbers[owned], (now, first, last))


def _judged(directory: Directory, read: _Read, organizations: Int32, limits: Limits) -> tuple[Columns, Sequence[str]]:
    named, _, moments, left_out, wholes, fractions = read.rows
    types = directory.event_types(set(read.names))
    kinds = [known(types.get(name)) for name in read.names]
    defaulted = left_out.astype(np.bool_)
    columns = Columns(
        organizations,
        np.array([kind.number for kind in kinds], np.int32)[named],
        quick.in_window(np.where(defaulted, limits[0], moments), limits),
        defaulted,
        wholes,
        fractions,
        np.arange(len(read.texts), dtype=np.int16),
        read.texts,
    )
    return columns, _fed(kinds, named, columns)


def _fed(kinds: Sequence[EventType], named: Int64, columns: Columns) -> Sequence[str]:
    if all(kind.plain for kind in kinds):
        return Chosen([kind.codes for kind in kinds], named)
    names = [kinds[place].name for place in named.tolist()]
    decoded = _decode_lines(b"\n".join(columns.texts.all_properties()))
    return quick.fed({kind.name: kind for kind in kinds}, names, columns, decoded)
