"""States of many spans at once: whole days and hours from the rollups, ragged edges from the events, in a handful of statements.

An edge hour is read from its rollup too when all its events lie inside the span (the rollup knows its first and last instant);
only an hour that the span really cuts is read from `usage_events`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from core.metering.meters import NO_GROUP, Event, Meter, UnreadableProperty, Usage, add, group_of, properties, read
from core.metering.models import Aggregation
from core.metering.windows import HOUR, hour_ceiling, hour_floor

DAY = timedelta(days=1)
NOTHING = Decimal(0)
SETS = frozenset({Aggregation.UNIQUE_COUNT, Aggregation.PERCENTILE})
"""Aggregations whose hours do not add up without the values behind them."""

# The spans of a question as a table; `subject` is a metric number for rollups, an event number for events.
ASKED = """unnest(CAST(:i AS int[]), CAST(:organization AS int[]), CAST(:subject AS int[]), CAST(:since AS timestamptz[]),
  CAST(:until AS timestamptz[]), CAST(:grouped AS boolean[]), CAST(:daily AS boolean[]))
  AS asked(i, organization, subject, since, until, grouped, daily)"""
SUMS = "group_key, events, quantity, moment, first_at, last_at, last_batch, last_position"
SUBJECT = "organization_number = organization AND metric_number = subject"
HOURLY = f"SELECT {SUMS} FROM usage_rollups WHERE NOT daily AND {SUBJECT} AND hour >= since AND hour < until"  # noqa: S608 - constants only
DAILY = f"SELECT {SUMS} FROM usage_daily WHERE daily AND {SUBJECT} AND day >= since AND day < until"  # noqa: S608
HOURS = f"CROSS JOIN LATERAL ({HOURLY} OFFSET 0) AS r"
DAYS = f"CROSS JOIN LATERAL ({HOURLY} UNION ALL {DAILY} OFFSET 0) AS r"
"""One index range a span: OFFSET 0 keeps the planner from joining every span with every hour of its metric (quadratic)."""
IN_EVENTS = 'e.organization_number = organization AND e.event_number = subject AND e."timestamp" >= since AND e."timestamp" < until'
GROUP = "CASE WHEN grouped THEN r.group_key ELSE '' END"

FOLDED = f"""SELECT i, {GROUP} AS group_key, sum(r.events) AS events, {{function}}(r.quantity) AS quantity, sum(r.moment) AS moment,
  min(r.first_at) AS first_at, max(r.last_at) AS last_at, 0 AS last_batch, 0 AS last_position
  FROM {ASKED} {{rows}} GROUP BY 1, 2"""  # noqa: S608
LATEST = f"""SELECT DISTINCT ON (i, {GROUP}) i, {GROUP} AS group_key, sum(r.events) OVER same AS events, r.quantity, r.moment,
  min(r.first_at) OVER same AS first_at, r.last_at, r.last_batch, r.last_position
  FROM {ASKED} {{rows}} WINDOW same AS (PARTITION BY i, {GROUP})
  ORDER BY i, {GROUP}, r.last_at DESC, r.last_batch DESC, r.last_position DESC"""  # noqa: S608
EDGES = f"SELECT i, r.* FROM {ASKED} {HOURS}"  # noqa: S608
ADDED_EVENTS = f"""SELECT i, count(*) AS events, sum(e.quantity) AS quantity, min(e."timestamp") AS first_at, max(e."timestamp") AS last_at
  FROM {ASKED} JOIN usage_events e ON {IN_EVENTS} GROUP BY 1"""  # noqa: S608
EVENTS = f"""SELECT i, e."timestamp", e.batch_id, e.position, e.quantity, e.properties
  FROM {ASKED} JOIN usage_events e ON {IN_EVENTS} ORDER BY i, e."timestamp", e.batch_id, e.position"""  # noqa: S608
STREAMED = 2_000
"""Rows in memory at a time, of statements that stream."""
FUNCTIONS = {Aggregation.MAX: "max", Aggregation.MIN: "min", Aggregation.LATEST: ""}


class Span(NamedTuple):
    """A part of a question: `i` is its place in it."""

    i: int
    organization: int
    meter: Meter
    event: int
    start: datetime
    end: datetime
    by_group: bool
    daily: bool = False


class States(defaultdict[int, dict[str, Usage]]):
    """Usage by span and group key."""

    def __init__(self) -> None:
        super().__init__(dict)

    def add(self, span: Span, group: str, usage: Usage) -> None:
        """Add to what is known of the span."""
        before = self[span.i].get(group)
        self[span.i][group] = usage if before is None else add(span.meter.aggregation, before, usage)


def states(session: Session, spans: Sequence[Span], *, daily_through: datetime) -> tuple[States, list[Span], list[Span]]:
    """What was counted in each span; and of the spans whose values must be read yet, the hours they cover and those with cut edges.

    Days before `daily_through` are read from the daily sums.
    Of a span that is counted with SETS, `values` and `counts` hold only what cut edges have; `quantity` is no answer yet.
    """
    found = States()
    whole = [span._replace(start=hour_ceiling(span.start), end=hour_floor(span.end)) for span in spans]
    whole = [span for span in whole if span.start < span.end]
    _add_hours(session, found, _split_days(whole, daily_through))
    covered, ragged = _add_edges(session, found, list(_edges(spans)))
    by_place = {span.i: span for span in ragged}
    for row, usage, group in read_events(session, ragged):
        found.add(by_place[row], group, usage)
    covered += [span for span in whole if span.meter.aggregation in SETS]
    return found, covered, [span for span in ragged if span.meter.aggregation in SETS]


def rows(
    session: Session, statement: str, spans: Sequence[Span], *, events: bool = False, stream: bool = False, **more: Any
) -> Iterator[Row[Any]]:
    """Run a statement over ASKED; no spans, no statement. With `stream` the rows are fetched bit by bit, however many there are."""
    if not spans:
        return iter(())
    values = {
        "i": _array(span.i for span in spans),
        "organization": _array(span.organization for span in spans),
        "subject": _array(span.event if events else span.meter.number for span in spans),
        "since": _array(span.start.isoformat() for span in spans),
        "until": _array(span.end.isoformat() for span in spans),
        "grouped": _array(span.by_group for span in spans),
        "daily": _array(span.daily for span in spans),
    }
    return iter(session.execute(_clause(statement), values | more, execution_options={"yield_per": STREAMED} if stream else {}))


_clause = lru_cache(64)(text)
"""Looking for the names of values in a statement costs more than many an answer; there are a few dozen statements."""


def _array(values: Iterable[object]) -> str:
    """An array as PostgreSQL writes it, of values that need no quotes. The driver would look at every element for its type."""
    return f"{{{','.join(map(str, values))}}}"


def read_events(session: Session, spans: Sequence[Span]) -> Iterator[tuple[int, Usage, str]]:
    """(span, what its metric reads, group) of the events of spans: one entry a span where whole columns can be added, else one an event."""
    plain = [span for span in spans if span.meter.plain]
    meters, grouped = {span.i: span.meter for span in spans}, {span.i for span in spans if span.by_group}
    for row in rows(session, ADDED_EVENTS, plain, events=True):
        counts = meters[row.i].aggregation == Aggregation.COUNT
        yield row.i, Usage(row.events, Decimal(row.events) if counts else row.quantity, row.first_at, row.last_at, (0, 0)), NO_GROUP
    for row in rows(session, EVENTS, [span for span in spans if not span.meter.plain], events=True):
        event = Event(row.timestamp, (row.batch_id, row.position), row.quantity, properties(bytes(row.properties)))
        usage = readable(meters[row.i], event)
        if usage is not None:
            yield row.i, usage, group_of(meters[row.i], event.properties) if row.i in grouped else NO_GROUP


def readable(meter: Meter, event: Event) -> Usage | None:
    """What the metric reads from a stored event; one whose property it cannot read does not feed it, as when it was counted."""
    try:
        return read(meter, event)
    except UnreadableProperty:
        return None


def _split_days(spans: Sequence[Span], through: datetime) -> list[Span]:
    """Spans cut where whole days can be read from the daily sums."""
    parts = []
    for span in spans:
        first, last = _day_ceiling(span.start), min(span.end.replace(hour=0), through)
        if last <= first:
            parts.append(span)
            continue
        pieces = [(span.start, first, False), (first, last, True), (last, span.end, False)]
        parts += [span._replace(start=start, end=end, daily=daily) for start, end, daily in pieces if start < end]
    return parts


def _day_ceiling(hour: datetime) -> datetime:
    day = hour.astimezone(UTC).replace(hour=0)
    return day if day == hour else day + DAY


def _add_hours(session: Session, found: States, spans: Sequence[Span]) -> None:
    source = DAYS if any(span.daily for span in spans) else HOURS
    for function in ("sum", "max", "min", ""):
        some = [span for span in spans if FUNCTIONS.get(span.meter.aggregation, "sum") == function]
        by_place = {span.i: span for span in some}
        statement = FOLDED.format(function=function, rows=source) if function else LATEST.format(rows=source)
        split = _numbered(some)
        for row in rows(session, statement, split):
            found.add(by_place[some[row.i].i], row.group_key, _usage(row))


def _numbered(spans: Sequence[Span]) -> list[Span]:
    """The spans with places of their own: parts of one span are answered apart."""
    return [span._replace(i=n) for n, span in enumerate(spans)]


def _usage(row: Row[Any]) -> Usage:
    place = (row.last_batch, row.last_position)
    return Usage(int(row.events), row.quantity, row.first_at, row.last_at, place, moment=row.moment or NOTHING)


def _edges(spans: Iterable[Span]) -> Iterator[Span]:
    """The parts of each span that are less than a whole UTC hour."""
    for span in spans:
        first, last = hour_ceiling(span.start), hour_floor(span.end)
        parts = [(span.start, span.end)] if first > last else [(span.start, first), (last, span.end)]
        yield from (span._replace(start=start, end=end) for start, end in parts if start < end)


def _add_edges(session: Session, found: States, edges: Sequence[Span]) -> tuple[list[Span], list[Span]]:
    """Add the edge hours whose events all lie inside.

    Returns the hours whose values are wanted whole, and the edges that must be read from the events.
    """
    hours = [edge._replace(start=hour_floor(edge.start), end=hour_floor(edge.start) + HOUR) for edge in edges]
    known: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows(session, EDGES, _numbered(hours)):
        known[row.i].append(row)
    covered, ragged = [], []
    for n, edge in enumerate(edges):
        inside = [row for row in known[n] if row.first_at < edge.end and row.last_at >= edge.start]
        sets = edge.meter.aggregation in SETS
        cut = any(row.first_at < edge.start or row.last_at >= edge.end for row in inside)
        if cut or (sets and inside and len(inside) < len(known[n])):
            ragged.append(edge)
            continue
        for row in inside:
            found.add(edge, row.group_key if edge.by_group else NO_GROUP, _usage(row))
        if sets and inside:
            covered.append(hours[n])
    return covered, ragged
