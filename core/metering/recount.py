"""The proof of the rollups: count stored events anew and compare. A difference is a fault of ours, never of the customer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core.metering.counting import HOUR_MICROS, Bucket, tally
from core.metering.instants import instant, micros
from core.metering.meters import Event, Meter, Usage, meter, properties
from core.metering.models import Aggregation, Metric, usage_event_names, usage_rollups
from core.metering.windows import hour_ceiling, hour_floor

EVENTS = """SELECT organization_number, event_number, "timestamp", batch_id, position, quantity, properties FROM usage_events
  WHERE "timestamp" >= :start AND "timestamp" < :end"""
CHUNK_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A rollup row that says something else than its events. None: there is no such row, or there are no such events."""

    organization_number: int
    metric_number: int
    hour: datetime
    group_key: str
    stored: tuple[int, Decimal] | None
    recounted: tuple[int, Decimal] | None


def differences(session: Session, *, start: datetime, end: datetime) -> list[Difference]:
    """Compare every rollup of the UTC hours in [start, end), widened to whole hours, with the events; empty when all is right.

    Metrics the aggregator has not taken up yet are left out. Run it when nothing of the span is being counted.
    """
    start, end = hour_floor(start), hour_ceiling(end)
    recounted = {bucket: (usage.events, usage.quantity) for bucket, usage in _recounted(session, start, end)}
    stored = dict(_stored(session, start, end))
    wrong = [bucket for bucket in stored.keys() | recounted.keys() if stored.get(bucket) != recounted.get(bucket)]
    wrong.sort(key=lambda bucket: (bucket.organization, bucket.metric, bucket.hour, bucket.group))
    return [
        Difference(bucket.organization, bucket.metric, instant(bucket.hour), bucket.group, stored.get(bucket), recounted.get(bucket))
        for bucket in wrong
    ]


def _recounted(session: Session, start: datetime, end: datetime) -> Iterable[tuple[Bucket, Usage]]:
    names = usage_event_names
    query = select(Metric, names.c.number).join(names, names.c.name == Metric.event_name).where(Metric.counted_at.is_not(None))
    meters: dict[int, list[Meter]] = {}
    for metric, number in session.execute(query):
        meters.setdefault(number, []).append(meter(metric))
    tallies: dict[Aggregation, dict[Bucket, Usage]] = {}
    rows = session.execute(text(EVENTS), {"start": start, "end": end}, execution_options={"yield_per": CHUNK_ROWS})
    for organization, event_number, timestamp, batch_id, position, quantity, raw in rows:
        event = Event(timestamp, (batch_id, position), quantity, properties(bytes(raw)))
        hour = micros(timestamp) // HOUR_MICROS * HOUR_MICROS
        for one in meters.get(event_number, ()):
            tally(tallies, one, organization, hour, event)
    return [item for buckets in tallies.values() for item in buckets.items()]


def _stored(session: Session, start: datetime, end: datetime) -> Iterable[tuple[Bucket, tuple[int, Decimal]]]:
    r = usage_rollups.c
    rows: Iterable[Any] = session.execute(
        select(r.organization_number, r.metric_number, r.hour, r.group_key, r.events, r.quantity).where(r.hour >= start, r.hour < end)
    )
    for organization, metric, hour, group, events, quantity in rows:
        yield Bucket(organization, metric, micros(hour), group), (events, quantity)
