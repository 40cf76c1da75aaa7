"""What the events of a flush are written as: their rows, and what they add to the rollups of plain metrics. Pure.

Two roads lead to the same bytes and sums: machine code, where Numba is installed (`pgrows`), and whole columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.metering import columns as column_form
from core.metering import pgcopy
from core.metering.columns import Columns, Int32, Int64
from core.metering.loading import Lazy
from core.metering.meters import HOUR_MICROS, Meter
from core.metering.models import Aggregation
from core.metering.texts import texts

EVENT_FIELDS = 11
INT64_SAFE = 2**62
LOAD_AT_EVENTS = 1_000
"""A flush of so many events makes compiled code worth loading."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Additive changes of rollups as columns: usage of plain metrics."""

    organizations: NDArray[Any]
    metrics: NDArray[Any]
    hours: Int64
    events: Int64
    wholes: Int64
    fractions: Int64
    first: Int64
    last: Int64


class Groups(NamedTuple):
    """Events added up by organization, event number and hour: columns, ordered by these."""

    organizations: Int32
    kinds: Int32
    hours: Int64
    events: Int64
    wholes: Int64
    fractions: Int64
    first: Int64
    last: Int64


@dataclass(frozen=True, slots=True)
class Chosen:
    """Of the events in `columns` those in `order`, by organization, event number and timestamp. `owner` is the place of an event's batch
    among `numbers`, the batches' ids, and `received`, in microseconds."""

    columns: Columns
    order: Int64
    owner: Int64
    numbers: Int64
    received: Int64

    def __len__(self) -> int:
        return len(self.order)


def rows(chosen: Chosen) -> bytes | memoryview:
    """The COPY stream into usage_events, in the order of rollups.COPY_EVENTS."""
    if not len(chosen):
        return b""
    code = PGROWS.get(wanted=len(chosen) >= LOAD_AT_EVENTS)
    if code is not None:
        return _compiled_rows(code, chosen)
    mine, owner = column_form.take(chosen.columns, chosen.order), chosen.owner[chosen.order]
    records = pgcopy.records(
        EVENT_FIELDS,
        [
            ("ts", mine.timestamps),
            ("ts", chosen.received[owner]),
            ("i8", chosen.numbers[owner]),
            ("i4", mine.organizations),
            ("i4", mine.events),
            ("i2", mine.positions),
            ("numeric", pgcopy.numeric(mine.wholes, mine.fractions)),
        ],
    )
    return pgcopy.stream(records, mine.texts)


def _compiled_rows(code: ModuleType, chosen: Chosen) -> memoryview:
    machine, texts = code.machine, chosen.columns.texts
    head, tail = len(pgcopy.HEADER), len(pgcopy.TRAILER)
    most = len(chosen) * code.HEAD_MAX + int(texts.sizes[chosen.order].sum())
    out = np.empty(head + most + tail + machine.EIGHT, np.uint8)
    data = machine.words(machine.padded(texts.data))
    batches = chosen.owner, chosen.numbers, chosen.received
    used = code.rows(
        chosen.order,
        _numbers(chosen.columns),
        chosen.columns.positions,
        batches,
        (data, texts.starts, texts.sizes),
        machine.words(out[head:]),
    )
    out[:head] = np.frombuffer(pgcopy.HEADER, np.uint8)
    out[head + used : head + used + tail] = np.frombuffer(pgcopy.TRAILER, np.uint8)
    return out[: head + used + tail].data


def _numbers(columns: Columns) -> tuple[Int32, Int32, Int64, Int64, Int64]:
    return columns.organizations, columns.events, columns.timestamps, columns.wholes, columns.fractions


def _run(code: ModuleType) -> None:
    one, half = np.zeros(1, np.int64), np.zeros(1, np.int32)
    columns = Columns(half, half, one, one.astype(np.bool_), one, one, one.astype(np.int16), texts([b"a"], [b"{}"]))
    _compiled_rows(code, Chosen(columns, one, one, one, one))
    _compiled_groups(code, Chosen(columns, one, one, one, one))


PGROWS = Lazy("core.metering.pgrows", _run)


def groups(chosen: Chosen) -> Groups:
    """The events added up; at least one there is. Raises OverflowError rather than wrap around."""
    code = PGROWS.get(wanted=len(chosen) >= LOAD_AT_EVENTS)
    if code is not None and len(chosen) * float(chosen.columns.wholes.max()) < INT64_SAFE:
        return _compiled_groups(code, chosen)
    columns, order = chosen.columns, chosen.order
    organizations, kinds, moments = columns.organizations[order], columns.events[order], columns.timestamps[order]
    wholes, fractions = columns.wholes[order], columns.fractions[order]
    hours = moments // HOUR_MICROS
    new = (np.diff(organizations) != 0) | (np.diff(kinds) != 0) | (np.diff(hours) != 0)
    starts = np.concatenate(([0], np.flatnonzero(new) + 1))
    ends = np.concatenate((starts[1:], [len(order)]))
    added = pgcopy.carried(_added(wholes, starts), np.add.reduceat(fractions, starts))
    return Groups(
        organizations[starts], kinds[starts], hours[starts] * HOUR_MICROS, ends - starts, *added, moments[starts], moments[ends - 1]
    )


def _compiled_groups(code: ModuleType, chosen: Chosen) -> Groups:
    out = [np.empty(len(chosen), kind) for kind in (np.int32, np.int32, *[np.int64] * 6)]
    count = code.added(chosen.order, _numbers(chosen.columns), tuple(out))
    return Groups(*(column[:count] for column in out))


def _added(wholes: Int64, starts: NDArray[Any]) -> Int64:
    """Sums per group; OverflowError rather than wrap around (one batch alone cannot: 10,000 events below 10^14)."""
    if len(wholes) * float(wholes.max()) >= INT64_SAFE:
        exact = np.add.reduceat(wholes.astype(object), starts)
        if max(exact) >= INT64_SAFE:
            raise OverflowError("the quantities of one flush add up to more than fits")
        return exact.astype(np.int64)
    return np.add.reduceat(wholes, starts)


def sums(found: Groups, plain: Mapping[int, Sequence[Meter]]) -> Sums | None:
    """What the groups add to the rollups of plain metrics, which are given by event number."""
    places: list[NDArray[Any]] = []
    metrics: list[NDArray[Any]] = []
    counts: list[NDArray[Any]] = []
    for number in np.unique(found.kinds).tolist():
        mine = np.flatnonzero(found.kinds == number)
        for meter in plain.get(number, ()):
            places.append(mine)
            metrics.append(np.full(len(mine), meter.number))
            counts.append(np.full(len(mine), meter.aggregation == Aggregation.COUNT))
    if not places:
        return None
    place, is_count = np.concatenate(places), np.concatenate(counts)
    return Sums(
        organizations=found.organizations[place],
        metrics=np.concatenate(metrics),
        hours=found.hours[place],
        events=found.events[place],
        wholes=np.where(is_count, found.events[place], found.wholes[place]),
        fractions=np.where(is_count, 0, found.fractions[place]),
        first=found.first[place],
        last=found.last[place],
    )
