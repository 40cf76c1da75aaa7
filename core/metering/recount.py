"""The proof of the rollups: count stored events anew and compare. A difference is a fault of ours, never of the customer.

Compared are the events with the hourly sums and the values behind them, the hourly with the daily sums, and the log with the events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core.metering import columns
from core.metering.columns import Columns, quantity
from core.metering.corrections import proof
from core.metering.counting import Bucket, tally
from core.metering.instants import instant, micros
from core.metering.meters import HOUR_MICROS, Event, Meter, Usage, add, meter, properties
from core.metering.models import Aggregation, Metric, usage_event_names, usage_rollups
from core.metering.revisions.models import MetricRevision
from core.metering.tables import usage_daily, usage_state, usage_unique_values, usage_value_counts
from core.metering.windows import HOUR, hour_ceiling, hour_floor

EVENTS = """SELECT organization_number, event_number, "timestamp", batch_id, position, quantity, properties FROM usage_events
  WHERE "timestamp" >= :start AND "timestamp" < :end
    AND (CAST(:organizations AS int[]) IS NULL OR organization_number = ANY(CAST(:organizations AS int[])))"""
LOGGED = """SELECT b.id, b.payload, r.duplicates, r.conflicts FROM usage_batches b JOIN usage_batch_results r ON r.batch_id = b.id
  WHERE b.received_at >= :start AND b.received_at < :end"""
STORED = """SELECT asked.organization, asked.event, asked.at, asked.quantity, e.quantity AS stored
  FROM unnest(CAST(:organizations AS int[]), CAST(:events AS int[]), CAST(:instants AS timestamptz[]), CAST(:positions AS int[]),
    CAST(:quantities AS numeric[])) AS asked(organization, event, at, position, quantity)
  LEFT JOIN usage_events e ON e.organization_number = asked.organization AND e.event_number = asked.event AND e."timestamp" = asked.at
    AND e.batch_id = :batch AND e.position = asked.position
  WHERE e.quantity IS DISTINCT FROM asked.quantity"""
CHUNK_ROWS = 20_000
DAY = timedelta(days=1)


class Figures(NamedTuple):
    """What is compared of an hour: `values` are those of a unique count with whether each is there, or how often a percentile's occur."""

    events: int
    quantity: Decimal
    moment: Decimal | None = None
    values: frozenset[tuple[Any, Any]] = frozenset()


@dataclass(frozen=True, slots=True)
class Difference:
    """Sums that say something else than their events. `stored`: events and quantity, None where there is no row; `recounted` likewise.

    `hour` is the hour, or with `daily` the day, or with metric 0 the instant of an event that the log has and the events have not.
    """

    organization_number: int
    metric_number: int
    hour: datetime
    group_key: str
    stored: tuple[int, Decimal] | None
    recounted: tuple[int, Decimal] | None
    daily: bool = False


def differences(
    session: Session, *, start: datetime, end: datetime, organization_numbers: Collection[int] | None = None
) -> list[Difference]:
    """Compare every sum of the UTC hours in [start, end), widened to whole hours, with the events; empty when all is right.

    Metrics whose past is still being counted are left out. What is being counted meanwhile may show as a difference: look twice, or in a
    transaction that sees one state (`REPEATABLE READ`).
    """
    start, end = hour_floor(start), hour_ceiling(end)
    meters = _meters(session)
    revised = set(session.scalars(select(MetricRevision.number)))  # what is counted beside, or not swept yet
    found = []
    at = start
    while at < end:
        found += _of_hour(session, meters, revised, at, organization_numbers)
        at += HOUR
    return found + _of_days(session, meters, start, end, organization_numbers)


def lost(session: Session, *, start: datetime, end: datetime) -> list[Difference]:
    """Events that the log of the requests received in [start, end) says were counted, and that are not stored so, corrections applied.

    And events that are stored as they were although a correction says otherwise.
    """
    corrected = proof.corrected(session, start=start, end=end)
    found = []
    for batch_id, payload, duplicates, conflicts in session.execute(text(LOGGED), {"start": start, "end": end}).all():
        asked = _expected(batch_id, columns.unpack(bytes(payload)), {*duplicates, *conflicts}, corrected)
        for row in session.execute(text(STORED), asked):
            stored = None if row.stored is None else (1, row.stored)
            found.append(Difference(row.organization, 0, row.at, "", stored, (1, row.quantity)))
    stale = proof.still_there(session, start=start, end=end)
    return found + [Difference(organization, 0, at, "", (1, amount), None) for organization, at, amount in stale]


def _expected(batch_id: int, batch: Columns, again: Collection[int], corrected: Mapping[proof.Place, Any]) -> dict[str, Any]:
    """The events of a batch that were counted and were not voided, as they are by now: the arguments of STORED."""
    rows = []
    for row in range(len(batch)):
        position = int(batch.positions[row])
        sent = instant(int(batch.timestamps[row])), quantity(int(batch.wholes[row]), int(batch.fractions[row]))
        says = corrected.get((batch_id, position), sent)
        if position not in again and says is not None:
            rows.append((int(batch.organizations[row]), int(batch.events[row]), *says, position))
    names = ("organizations", "events", "instants", "quantities", "positions")
    return {"batch": batch_id, **{name: [row[n] for row in rows] for n, name in enumerate(names)}}


def _meters(session: Session) -> dict[int, list[Meter]]:
    """The metrics that are counted, by event number."""
    names = usage_event_names
    query = select(Metric, names.c.number).join(names, names.c.name == Metric.event_name).where(Metric.counted_at.is_not(None))
    meters: dict[int, list[Meter]] = {}
    for metric, number in session.execute(query):
        meters.setdefault(number, []).append(meter(metric))
    return meters


def _of_hour(
    session: Session, meters: dict[int, list[Meter]], revised: Collection[int], hour: datetime, organizations: Collection[int] | None
) -> list[Difference]:
    recounted = {bucket: _figures(aggregation, usage) for aggregation, bucket, usage in _recounted(session, meters, hour, organizations)}
    stored = {bucket: figures for bucket, figures in _stored(session, hour, organizations) if bucket.metric not in revised}
    wrong = [bucket for bucket in stored.keys() | recounted.keys() if stored.get(bucket) != recounted.get(bucket)]
    wrong.sort(key=lambda bucket: (bucket.organization, bucket.metric, bucket.group))
    return [
        Difference(bucket.organization, bucket.metric, hour, bucket.group, _shown(stored.get(bucket)), _shown(recounted.get(bucket)))
        for bucket in wrong
    ]


def _recounted(
    session: Session, meters: dict[int, list[Meter]], hour: datetime, organizations: Collection[int] | None
) -> Iterator[tuple[Aggregation, Bucket, Usage]]:
    tallies: dict[Aggregation, dict[Bucket, Usage]] = {}
    asked = {"start": hour, "end": hour + HOUR, "organizations": None if organizations is None else list(organizations)}
    rows = session.execute(text(EVENTS), asked, execution_options={"yield_per": CHUNK_ROWS})
    for organization, event_number, timestamp, batch_id, position, amount, raw in rows:
        read = meters.get(event_number)
        if read:
            event = Event(timestamp, (batch_id, position), amount, properties(bytes(raw)))
            for one in read:
                tally(tallies, one, organization, micros(timestamp) // HOUR_MICROS * HOUR_MICROS, event)
    for aggregation, buckets in tallies.items():
        for bucket, usage in buckets.items():
            yield aggregation, bucket, usage


def _figures(aggregation: Aggregation, usage: Usage) -> Figures:
    moment = usage.moment if aggregation == Aggregation.WEIGHTED_SUM else None
    values = {(value, seen.removed) for value, seen in usage.values.items()} | set(usage.counts.items())
    return Figures(usage.events, usage.quantity, moment, frozenset(values))


def _stored(session: Session, hour: datetime, organizations: Collection[int] | None) -> Iterable[tuple[Bucket, Figures]]:
    r, v, c = usage_rollups.c, usage_unique_values.c, usage_value_counts.c
    sets: dict[tuple[int, int, str], set[tuple[Any, Any]]] = {}
    for columns_, what in ((v, (v.value_hash, v.removed)), (c, (c.value, c.events))):
        query = select(columns_.organization_number, columns_.metric_number, columns_.group_key, *what).where(columns_.hour == hour)
        if organizations is not None:
            query = query.where(columns_.organization_number.in_(organizations))
        for organization, metric, group, value, about in session.execute(query):
            sets.setdefault((organization, metric, group), set()).add((value, about))
    sums = select(usage_rollups).where(r.hour == hour)
    if organizations is not None:
        sums = sums.where(r.organization_number.in_(organizations))
    for row in session.execute(sums):
        values = frozenset(sets.get((row.organization_number, row.metric_number, row.group_key), ()))
        bucket = Bucket(row.organization_number, row.metric_number, micros(hour), row.group_key)
        yield bucket, Figures(row.events, row.quantity, row.moment, values)


def _of_days(
    session: Session, meters: dict[int, list[Meter]], start: datetime, end: datetime, organizations: Collection[int] | None
) -> list[Difference]:
    """Complete days that lie in [start, end) and are not the sums of their hours."""
    aggregations = {one.number: one.aggregation for group in meters.values() for one in group}
    through = session.execute(select(usage_state.c.daily_through)).scalar_one()
    found = []
    day = start if start == start.replace(hour=0) else start.replace(hour=0) + DAY
    while day + DAY <= min(end, through):
        added = _added(session, aggregations, day, organizations)
        stored = _daily(session, aggregations, day, organizations)
        wrong = sorted(key for key in added.keys() | stored.keys() if added.get(key) != stored.get(key))
        found += [Difference(*key[:2], day, key[2], _shown(stored.get(key)), _shown(added.get(key)), daily=True) for key in wrong]
        day += DAY
    return found


def _added(
    session: Session, aggregations: dict[int, Aggregation], day: datetime, organizations: Collection[int] | None
) -> dict[tuple[int, int, str], Figures]:
    """The hours of a day added up."""
    r = usage_rollups.c
    query = select(usage_rollups).where(r.hour >= day, r.hour < day + DAY, r.metric_number.in_(aggregations))
    if organizations is not None:
        query = query.where(r.organization_number.in_(organizations))
    days: dict[tuple[int, int, str], Usage] = {}
    for row in session.execute(query):
        key = (row.organization_number, row.metric_number, row.group_key)
        place = (row.last_batch, row.last_position)
        usage = Usage(row.events, row.quantity, row.first_at, row.last_at, place, moment=row.moment or Decimal(0))
        # The numbers of values of hours are only added up: the sets are not kept by the day.
        how = aggregations[row.metric_number]
        how = Aggregation.SUM if how == Aggregation.UNIQUE_COUNT else how
        days[key] = add(how, days[key], usage) if key in days else usage
    return {key: Figures(usage.events, usage.quantity) for key, usage in days.items()}


def _daily(
    session: Session, aggregations: dict[int, Aggregation], day: datetime, organizations: Collection[int] | None
) -> dict[tuple[int, int, str], Figures]:
    d = usage_daily.c
    query = select(d.organization_number, d.metric_number, d.group_key, d.events, d.quantity)
    query = query.where(d.day == day, d.metric_number.in_(aggregations))
    if organizations is not None:
        query = query.where(d.organization_number.in_(organizations))
    return {(row[0], row[1], row[2]): Figures(row[3], row[4]) for row in session.execute(query)}


def _shown(figures: Figures | None) -> tuple[int, Decimal] | None:
    return None if figures is None else (figures.events, figures.quantity)
