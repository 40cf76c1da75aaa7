"""Counting events that are already stored: the past of a new metric, and a recount of any span to compare with the rollups."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from psycopg import Connection

from core.metering.counting import HOUR_MICROS, Bucket, tally
from core.metering.instants import micros
from core.metering.meters import Event, Meter, Usage, properties
from core.metering.models import Aggregation
from core.metering.rollups import write_changes

CHUNK_EVENTS = 200_000
EVENTS = """SELECT organization_number, "timestamp", batch_id, position, quantity, properties FROM usage_events WHERE event_number = %s"""
Tallies = dict[Aggregation, dict[Bucket, Usage]]


def count_past(connection: Connection[Any], meter: Meter, event_number: int) -> int:
    """Add everything stored under the event number to the metric's rollups, in the open transaction; how many events."""
    total = 0
    for tallies, events in _tallied(connection, meter, event_number):
        write_changes(connection, None, tallies)
        connection.execute("TRUNCATE flush_tallies, flush_values, flush_counts")
        total += events
    return total


def _tallied(connection: Connection[Any], meter: Meter, event_number: int) -> Iterator[tuple[Tallies, int]]:
    """What the stored events add to the metric, in chunks."""
    with connection.cursor(name="past_events") as cursor:
        cursor.itersize = CHUNK_EVENTS
        cursor.execute(EVENTS, (event_number,))
        while rows := cursor.fetchmany(CHUNK_EVENTS):
            tallies: Tallies = {}
            for organization, timestamp, batch_id, position, quantity, raw in rows:
                event = Event(timestamp, (batch_id, position), quantity, properties(bytes(raw)))
                tally(tallies, meter, organization, _hour(timestamp), event)
            yield tallies, len(rows)


def _hour(at: datetime) -> int:
    return micros(at) // HOUR_MICROS * HOUR_MICROS
