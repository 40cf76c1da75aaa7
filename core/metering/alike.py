"""Judging a request whose events are all written alike, by whole columns of the body itself: the road of a client library's batches.

`judge` answers None at the first sign of anything else; `quick` and `careful` look then. Like `quick` it must never accept what the
careful road would not, nor differently (tests/metering/test_roads.py compares them).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.metering import decimals, quick, stencil, wire
from core.metering.bodies import Form
from core.metering.careful import Window
from core.metering.columns import Columns, Flags, Int64
from core.metering.directory import Account, Directory, EventType
from core.metering.instants import parse_rows
from core.metering.pieces import pieces
from core.metering.quick import Limits, Unusual, known
from core.metering.stencil import Alike, Values
from core.metering.texts import cut

ZERO, DOT = np.uint8(ord("0")), np.uint8(ord("."))
TIMESTAMP_LENGTH_MAX = 32
TIMESTAMP_FORMS_MAX = 12
_decode_lines = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode_lines


def judge(
    directory: Directory, own: Account | None, body: bytes, form: Form, *, window: Window, at: datetime
) -> tuple[Columns, Sequence[str]] | None:
    """The events of the body, all accepted, and the metrics each feeds; None when they are not alike or need a closer look."""
    read = stencil.read(body, form)
    if read is None or read.events > window.events_max or len(read.first) > wire.EVENT_BYTES_MAX // 2:
        return None
    try:
        wire.read(read.first)
        return _judged(directory, own, read, window, at)
    except (Unusual, wire.Fault, decimals.NoDecimals):
        return None


def _judged(directory: Directory, own: Account | None, read: Alike, window: Window, at: datetime) -> tuple[Columns, Sequence[str]]:
    outer = {value.name.decode(): value for value in read.values if not value.of_properties}
    if any(not value.quoted and name != "quantity" for name, value in outer.items()):
        raise Unusual  # a null of the first event may be anything in the others
    names, named = _named(read, outer, wire.NAME_FIELDS)
    types = directory.event_types(set(names))
    kinds = [known(types.get(name)) for name in names]
    called, owned = _named(read, outer, wire.ORGANIZATION_FIELDS)
    numbers, limits = quick.owners(directory, own, called, window, at)
    if len(limits[0]) > 1:
        limits = (limits[0][owned], limits[1][owned], limits[2][owned])
    timestamps, defaulted = _timestamps(read, outer.get("timestamp"), limits)
    wholes, fractions = _quantities(read, outer.get("quantity"))
    columns = Columns(
        numbers[owned],
        np.array([kind.number for kind in kinds], np.int32)[named],
        timestamps,
        defaulted,
        wholes,
        fractions,
        np.arange(read.events, dtype=np.int16),
        pieces(read, outer["idempotency_key"], outer.get("unit"), outer.get("subscription_id")),
    )
    return columns, _fed(kinds, named, columns)


def _fed(kinds: Sequence[EventType], named: NDArray[np.intp], columns: Columns) -> Sequence[str]:
    codes = [kind.codes for kind in kinds]
    if all(kind.plain for kind in kinds):
        return [codes[place] for place in named.tolist()]
    names = [kinds[place].name for place in named.tolist()]
    decoded = _decode_lines(b"\n".join(columns.texts.all_properties()))
    return quick.fed({kind.name: kind for kind in kinds}, names, columns, decoded)


def _named(read: Alike, outer: dict[str, Values], names: Sequence[str]) -> tuple[list[str], NDArray[np.intp]]:
    """The different values of whichever of these fields is there (the first event showed that it is one at most), and who has which."""
    value = next((outer[name] for name in names if name in outer), None)
    if value is None:
        return [], np.zeros(read.events, np.intp)
    if not value.quoted:
        raise Unusual
    texts, which = stencil.distinct(read, value)
    return [text.decode() for text in texts], which


def _timestamps(read: Alike, value: Values | None, limits: Limits) -> tuple[Int64, Flags]:
    if value is None:
        return quick.now_for_all(read.events, limits)
    if not value.quoted:
        raise Unusual
    sizes = value.ends - value.starts
    lengths = np.flatnonzero(np.bincount(sizes)).tolist()
    if lengths[-1] > TIMESTAMP_LENGTH_MAX or len(lengths) > TIMESTAMP_FORMS_MAX:
        raise Unusual
    moments = np.zeros(read.events, np.int64)
    for length in lengths:
        rows = slice(None) if len(lengths) == 1 else np.flatnonzero(sizes == length)
        parsed = parse_rows(stencil.left(read, value.starts[rows], length))
        if parsed is None:
            raise Unusual
        moments[rows] = parsed
    return quick.in_window(moments, limits), np.zeros(read.events, np.bool_)


def _quantities(read: Alike, value: Values | None) -> tuple[Int64, Int64]:
    if value is None:
        return np.ones(read.events, np.int64), np.zeros(read.events, np.int64)
    sizes = value.ends - value.starts
    longest = int(sizes.max())
    if longest > quick.TOKEN_LENGTH_MAX or sizes.min() < 1:
        raise Unusual
    if not value.quoted:
        head = stencil.left(read, value.starts, 2)
        if ((head[:, 0] == ZERO) & (sizes > 1) & (head[:, 1] != DOT)).any():
            raise Unusual
    if longest <= stencil.WORD:
        return decimals.short(stencil.right(read, value.ends, longest)[:, 0], sizes)
    return quick.numbers(cut(read.body, value.starts, value.ends))
