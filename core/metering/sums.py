"""Usage of many windows at once: whole hours from the rollups, ragged edges from the events, in a handful of statements.

An edge hour is read from its rollup too when all its events lie inside the window (the rollup knows its first and last instant);
only an hour that the window really cuts is read from `usage_events`.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Row, column, select, table, text
from sqlalchemy.orm import Session

from core.metering.meters import NO_GROUP, Event, Meter, Usage, add, group_of, meter, properties, read
from core.metering.models import Aggregation, Metric, usage_event_names

HOUR = timedelta(hours=1)
organizations = table("organizations", column("id"), column("number"))

# The windows of a question as a table; `subject` is a metric number for rollups, an event number for events.
ASKED = """unnest(CAST(:i AS int[]), CAST(:organization AS int[]), CAST(:subject AS int[]),
  CAST(:since AS timestamptz[]), CAST(:until AS timestamptz[])) AS asked(i, organization, subject, since, until)"""
HOURS = """CROSS JOIN LATERAL (SELECT * FROM usage_rollups AS h WHERE h.organization_number = organization
  AND h.metric_number = subject AND h.hour >= since AND h.hour < until OFFSET 0) AS r"""
"""One index range a window: OFFSET 0 keeps the planner from joining every window with every hour of its metric (quadratic)."""
IN_EVENTS = 'e.organization_number = organization AND e.event_number = subject AND e."timestamp" >= since AND e."timestamp" < until'

ADDED_HOURS = f"""SELECT i, {{group}} AS group_key, sum(r.events) AS events, {{function}}(r.quantity) AS quantity,
  min(r.first_at) AS first_at, max(r.last_at) AS last_at
  FROM {ASKED} {HOURS} GROUP BY 1, 2"""  # noqa: S608 - constants only
LATEST_HOURS = f"""SELECT DISTINCT ON (i, {{group}}) i, {{group}} AS group_key, sum(r.events) OVER same AS events, r.quantity,
  min(r.first_at) OVER same AS first_at, r.last_at, r.last_batch, r.last_position
  FROM {ASKED} {HOURS} WINDOW same AS (PARTITION BY i, {{group}})
  ORDER BY i, {{group}}, r.last_at DESC, r.last_batch DESC, r.last_position DESC"""  # noqa: S608
EDGE_HOURS = f"""SELECT i, r.group_key, r.events, r.quantity, r.first_at, r.last_at, r.last_batch, r.last_position
  FROM {ASKED} {HOURS}"""  # noqa: S608
UNIQUE = f"""SELECT i, {{columns}}, min(v.first_at) AS first_at, max(v.last_at) AS last_at
  FROM {ASKED} JOIN usage_unique_values v ON v.organization_number = organization AND v.metric_number = subject
    AND v.hour >= date_trunc('hour', since, 'UTC') AND v.hour < until AND v.last_at >= since AND v.first_at < until
  GROUP BY {{by}}"""  # noqa: S608
ADDED_EVENTS = f"""SELECT i, count(*) AS events, sum(e.quantity) AS quantity, min(e."timestamp") AS first_at, max(e."timestamp") AS last_at
  FROM {ASKED} JOIN usage_events e ON {IN_EVENTS} GROUP BY 1"""  # noqa: S608
EVENTS = f"""SELECT i, e."timestamp", e.batch_id, e.position, e.quantity, e.properties
  FROM {ASKED} JOIN usage_events e ON {IN_EVENTS}"""  # noqa: S608


class Window(NamedTuple):
    """One metric's usage by one organization from `start` up to, not including, `end`; `by_group`: a sum for each group key."""

    organization_id: uuid.UUID
    metric_id: uuid.UUID
    start: datetime
    end: datetime
    by_group: bool = False


class _Span(NamedTuple):
    """A resolved window, or a part of one: `i` is the window's place in the question."""

    i: int
    organization: int
    meter: Meter
    event: int
    start: datetime
    end: datetime
    by_group: bool


Measured = dict[int, dict[str, Usage]]


def measure(session: Session, windows: Sequence[Window]) -> list[dict[str, Usage]]:
    """For each window its usage by group key (only "" unless `by_group`); a window without events has an empty dict."""
    spans = _resolve(session, windows)
    found: Measured = defaultdict(dict)
    whole = [span._replace(start=hour_ceiling(span.start), end=hour_floor(span.end)) for span in spans]
    _add(found, spans, _whole_hours(session, [span for span in whole if span.start < span.end]))
    cut = list(_edges(spans))
    ragged = _add_uncut_edges(session, found, cut) if cut else []
    _add(found, spans, _from_events(session, ragged))
    unique = [span for span in spans if span.meter.aggregation == Aggregation.UNIQUE_COUNT and not _is_within_hour(span)]
    _replace_unique(session, found, unique)
    return [found.get(i, {}) for i in range(len(windows))]


def hour_floor(at: datetime) -> datetime:
    """The UTC hour `at` lies in."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hour_ceiling(at: datetime) -> datetime:
    """The first UTC hour not before `at`."""
    return -((datetime.min.replace(tzinfo=UTC) - at) // HOUR) * HOUR + datetime.min.replace(tzinfo=UTC)


def _is_within_hour(span: _Span) -> bool:
    return hour_floor(span.start) + HOUR > span.end


def load_meters(session: Session, metric_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, tuple[Meter, int]]:
    """Meter and event number of each metric; number 0 when no event of its name was ever accepted."""
    names = usage_event_names
    rows = session.execute(
        select(Metric, names.c.number).outerjoin(names, names.c.name == Metric.event_name).where(Metric.id.in_(set(metric_ids)))
    )
    return {metric.id: (meter(metric), number or 0) for metric, number in rows}


def _resolve(session: Session, windows: Sequence[Window]) -> list[_Span]:
    ids = {window.organization_id for window in windows}
    rows = session.execute(select(organizations.c.id, organizations.c.number).where(organizations.c.id.in_(ids)))
    numbers: dict[uuid.UUID, int] = {row.id: row.number for row in rows}
    meters = load_meters(session, {window.metric_id for window in windows})
    return [
        _Span(i, numbers[window.organization_id], *meters[window.metric_id], window.start, window.end, window.by_group)
        for i, window in enumerate(windows)
        if window.start < window.end and window.organization_id in numbers and window.metric_id in meters
    ]


def _rows(session: Session, statement: str, spans: Sequence[_Span], *, events: bool = False) -> Iterator[Row[Any]]:
    if not spans:
        return iter(())
    values = {
        "i": [span.i for span in spans],
        "organization": [span.organization for span in spans],
        "subject": [span.event if events else span.meter.number for span in spans],
        "since": [span.start for span in spans],
        "until": [span.end for span in spans],
    }
    return iter(session.execute(text(statement), values))


def _add(found: Measured, spans: Iterable[_Span], usages: Iterable[tuple[int, str, Usage]]) -> None:
    aggregations = {span.i: span.meter.aggregation for span in spans}
    for i, group, usage in usages:
        before = found[i].get(group)
        found[i][group] = usage if before is None else add(aggregations[i], before, usage)


def _whole_hours(session: Session, spans: Sequence[_Span]) -> Iterator[tuple[int, str, Usage]]:
    kinds = {Aggregation.COUNT: "sum", Aggregation.SUM: "sum", Aggregation.MAX: "max", Aggregation.UNIQUE_COUNT: "sum"}
    for group, alike in (("CAST('' AS text)", _grouped(spans, False)), ("r.group_key", _grouped(spans, True))):
        for function in ("sum", "max"):
            some = [span for span in alike if kinds.get(span.meter.aggregation) == function]
            for row in _rows(session, ADDED_HOURS.format(group=group, function=function), some):
                yield row.i, row.group_key, Usage(int(row.events), row.quantity, row.first_at, row.last_at, (0, 0))
        latest = [span for span in alike if span.meter.aggregation == Aggregation.LATEST]
        for row in _rows(session, LATEST_HOURS.format(group=group), latest):
            place = (row.last_batch, row.last_position)
            yield row.i, row.group_key, Usage(int(row.events), row.quantity, row.first_at, row.last_at, place)


def _grouped(spans: Iterable[_Span], by_group: bool) -> list[_Span]:
    return [span for span in spans if span.by_group is by_group]


def _edges(spans: Iterable[_Span]) -> Iterator[_Span]:
    """The parts of each window that are less than a whole UTC hour."""
    for span in spans:
        first, last = hour_ceiling(span.start), hour_floor(span.end)
        parts = [(span.start, span.end)] if first > last else [(span.start, first), (last, span.end)]
        yield from (span._replace(start=start, end=end) for start, end in parts if start < end)


def _add_uncut_edges(session: Session, found: Measured, edges: Sequence[_Span]) -> list[_Span]:
    """Add the edge hours whose events all lie inside; return the edges that must be read from the events."""
    hours = [edge._replace(i=n, start=hour_floor(edge.start), end=hour_floor(edge.start) + HOUR) for n, edge in enumerate(edges)]
    rows: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in _rows(session, EDGE_HOURS, hours):
        rows[row.i].append(row)
    ragged = []
    for n, edge in enumerate(edges):
        inside = [row for row in rows[n] if row.first_at < edge.end and row.last_at >= edge.start]
        unique = edge.meter.aggregation == Aggregation.UNIQUE_COUNT and _is_within_hour(edge)
        if unique or any(row.first_at < edge.start or row.last_at >= edge.end for row in inside):
            ragged.append(edge)
            continue
        usages = ((row, Usage(row.events, row.quantity, row.first_at, row.last_at, (row.last_batch, row.last_position))) for row in inside)
        _add(found, [edge], ((edge.i, row.group_key if edge.by_group else NO_GROUP, usage) for row, usage in usages))
    return ragged


def _replace_unique(session: Session, found: Measured, spans: Sequence[_Span]) -> None:
    """Distinct values do not add up over hours: count them over each whole window.

    A value counts when it was seen in the window; with its first and last time in each hour the cut hours are exact too.
    """
    for i in {span.i for span in spans}:
        for usage in found[i].values():
            usage.quantity, usage.values = Decimal(0), {}
    counted = UNIQUE.format(columns="'' AS group_key, count(DISTINCT v.value_hash) AS quantity", by="1")
    for row in _rows(session, counted, _grouped(spans, False)):
        found[row.i][row.group_key].quantity = Decimal(row.quantity)
    for row in _rows(session, UNIQUE.format(columns="v.group_key, v.value_hash", by="1, 2, 3"), _grouped(spans, True)):
        usage = found[row.i][row.group_key]
        usage.values[bytes(row.value_hash)] = (row.first_at, row.last_at)
        usage.quantity = Decimal(len(usage.values))


def _from_events(session: Session, spans: Sequence[_Span]) -> Iterator[tuple[int, str, Usage]]:
    plain = [span for span in spans if span.meter.plain]
    meters, grouped = {span.i: span.meter for span in spans}, {span.i for span in spans if span.by_group}
    for row in _rows(session, ADDED_EVENTS, plain, events=True):
        counts = meters[row.i].aggregation == Aggregation.COUNT
        yield row.i, NO_GROUP, Usage(row.events, Decimal(row.events) if counts else row.quantity, row.first_at, row.last_at, (0, 0))
    for row in _rows(session, EVENTS, [span for span in spans if not span.meter.plain], events=True):
        event = Event(row.timestamp, (row.batch_id, row.position), row.quantity, properties(bytes(row.properties)))
        usage = read(meters[row.i], event)
        if usage is not None:
            yield row.i, group_of(meters[row.i], event.properties) if row.i in grouped else NO_GROUP, usage
