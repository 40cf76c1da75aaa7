"""Counting events that are already stored: the past of a new metric, in steps short enough that nobody waits for them.

`metrics.counted_through` says how far it is: events before that instant are in the metric's rollups, stored ones and new ones alike;
later ones are counted when the steps come to them. A killed step has done nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from core.metering.counting import Bucket, tally
from core.metering.instants import micros
from core.metering.meters import HOUR_MICROS, Event, Meter, Usage, properties
from core.metering.models import Aggregation
from core.metering.rollups import write_changes
from core.metering.windows import BEGINNING

CHUNK_EVENTS = 50_000
STEP_MIN, STEP_MAX = timedelta(minutes=1), timedelta(days=1)
STEP_SECONDS = 0.5
"""A step that takes longer is followed by one half as long."""
EVENTS = """SELECT organization_number, "timestamp", batch_id, position, quantity, properties FROM usage_events
  WHERE event_number = %s AND "timestamp" >= %s AND "timestamp" < %s"""
HOURS = """SELECT organization_number, date_trunc('hour', "timestamp", 'UTC'), count(*), sum(quantity), min("timestamp"), max("timestamp")
  FROM usage_events WHERE event_number = %s AND "timestamp" >= %s AND "timestamp" < %s GROUP BY 1, 2"""
FIRST = """SELECT min(e.first) FROM organizations o CROSS JOIN LATERAL (SELECT "timestamp" AS first FROM usage_events
  WHERE organization_number = o.number AND event_number = %s AND "timestamp" >= %s ORDER BY "timestamp" LIMIT 1) AS e"""
"""By each organization's own index range: no index holds an event name's events in order of time."""
Tallies = dict[Aggregation, dict[Bucket, Usage]]


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did: `events` counted; `through` is where the next begins, None when there is nothing left."""

    events: int
    through: datetime | None


def step(connection: Connection[Any], meter: Meter, event_number: int, length: timedelta) -> Step:
    """Count the next `length` of the metric's past in the open transaction, or pass over a stretch without events.

    Nothing else may be counted meanwhile.
    """
    since = meter.counted_through
    until = since + length if since is not None else BEGINNING
    events = _count(connection, replace(meter, counted_through=None), event_number, since, until) if since is not None else 0
    if events:
        return Step(events, until)
    row = connection.execute(FIRST, (event_number, until)).fetchone()
    return Step(0, row[0] if row else None)


def next_length(length: timedelta, seconds: float) -> timedelta:
    """How long the step after one of `length` may be, that took `seconds`."""
    if seconds > STEP_SECONDS:
        return max(STEP_MIN, length / 2)
    return min(STEP_MAX, length * 2) if seconds < STEP_SECONDS / 4 else length


def _count(connection: Connection[Any], meter: Meter, event_number: int, since: datetime, until: datetime) -> int:
    total = 0
    span = (event_number, since, until)
    if meter.plain:
        tallies, total = _whole_hours(connection, meter, span)
        write_changes(connection, None, tallies)
        return total
    with connection.cursor(name="past_events") as cursor:
        cursor.itersize = CHUNK_EVENTS
        cursor.execute(EVENTS, span)
        while rows := cursor.fetchmany(CHUNK_EVENTS):
            tallies = {}
            for organization, timestamp, batch_id, position, quantity, raw in rows:
                event = Event(timestamp, (batch_id, position), quantity, properties(bytes(raw)))
                tally(tallies, meter, organization, _hour(timestamp), event)
            write_changes(connection, None, tallies)
            connection.execute("TRUNCATE flush_tallies, flush_values, flush_counts")
            total += len(rows)
    return total


def _whole_hours(connection: Connection[Any], meter: Meter, span: tuple[int, datetime, datetime]) -> tuple[Tallies, int]:
    """A metric that needs no look at properties: the database adds."""
    buckets, total = {}, 0
    for organization, hour, events, quantity, first_at, last_at in connection.execute(HOURS, span):
        amount = events if meter.aggregation == Aggregation.COUNT else quantity
        buckets[Bucket(organization, meter.number, micros(hour), "")] = Usage(events, amount, first_at, last_at, (0, 0))
        total += events
    return {meter.aggregation: buckets} if buckets else {}, total


def _hour(at: datetime) -> int:
    return micros(at) // HOUR_MICROS * HOUR_MICROS
