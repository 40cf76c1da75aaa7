"""Adding up hours anew from their events: the one way to take something out of a sum, whatever the aggregation.

A maximum or a set does not say what it would be without one event; the events do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import namedtuple_row

from core.errors import Conflict
from core.metering import daily, rollups
from core.metering.backfill import Tallies
from core.metering.corrections import gate
from core.metering.counted import COUNTED_METRICS, METER_COLUMNS
from core.metering.counting import tally
from core.metering.instants import micros
from core.metering.meters import HOUR_MICROS, Event, Meter, meter, properties

CHUNK_EVENTS = 50_000
METERS = f"""SELECT {METER_COLUMNS} FROM {COUNTED_METRICS} JOIN usage_event_names n ON n.name = m.event_name
  WHERE n.number = %s AND (m.counted_at IS NOT NULL OR m.counted_through IS NOT NULL)"""  # noqa: S608 - constants only
EVENTS = """SELECT e."timestamp", e.batch_id, e.position, e.quantity, e.properties
  FROM unnest(%s::timestamptz[]) AS h(hour) JOIN usage_events e ON e.organization_number = %s AND e.event_number = %s
    AND e."timestamp" >= h.hour AND e."timestamp" < h.hour + interval '1 hour'"""
COUNTED = """SELECT coalesce(sum(events), 0) FROM usage_rollups
  WHERE organization_number = %s AND metric_number = ANY(%s) AND hour = ANY(%s)"""
KEPT = ("usage_rollups", "usage_unique_values", "usage_value_counts")
FORGET = "DELETE FROM {} WHERE organization_number = %s AND metric_number = ANY(%s) AND hour = ANY(%s)"


def meters(connection: Connection[Any], event_number: int) -> list[Meter]:
    """The metrics that count events of this name, in whole or as far as their past has been counted."""
    rows: Iterable[Any] = connection.cursor(row_factory=namedtuple_row).execute(METERS, (event_number,))
    return [meter(row) for row in rows]


def check_whole(
    connection: Connection[Any], organization: int, event_number: int, hours: Collection[datetime], *, trial: bool = False
) -> None:
    """Raise Conflict unless every event behind the sums of these hours is stored: else what is added up anew would lack some.

    Days that were archived and deleted are such hours. Of a `trial` (see gate) events may come in between: more are no fault.
    """
    found = meters(connection, event_number)
    wanted = [one.number for one in found]
    row = connection.execute(COUNTED, (organization, wanted, sorted(hours))).fetchone()
    stored = sum(
        usage.events
        for tallies in _chunks(connection, found, organization, event_number, hours)
        for buckets in tallies.values()
        for usage in buckets.values()
    )
    counted = int(row[0]) if row else 0
    if stored < counted or (stored > counted and not trial):
        raise Conflict(
            "Not every event behind the sums of that hour is stored here: those of old days may have been archived. Restore them first.",
            code="events_archived",
        )


def add_up(connection: Connection[Any], organization: int, event_number: int, hours: Collection[datetime]) -> None:
    """Make the sums of these hours, and of their days, those of the events stored now. The gate must be held."""
    found = meters(connection, event_number)
    wanted = [one.number for one in found]
    if not wanted or not hours:
        return
    for table in KEPT:
        connection.execute(FORGET.format(table), (organization, wanted, sorted(hours)))
    for tallies in _chunks(connection, found, organization, event_number, hours):
        gate.emptied(connection)
        rollups.write_changes(connection, None, tallies)
    gate.emptied(connection)
    daily.rebuild(connection, organization, wanted, {hour.replace(hour=0) for hour in hours})


def _chunks(
    connection: Connection[Any], found: Sequence[Meter], organization: int, event_number: int, hours: Collection[datetime]
) -> Iterator[Tallies]:
    with connection.cursor() as cursor:
        cursor.execute(EVENTS, (sorted(hours), organization, event_number))
        while rows := cursor.fetchmany(CHUNK_EVENTS):
            tallies: Tallies = {}
            for timestamp, batch_id, position, quantity, raw in rows:
                event = Event(timestamp, (batch_id, position), quantity, properties(bytes(raw)))
                hour = micros(timestamp) // HOUR_MICROS * HOUR_MICROS
                for one in found:
                    tally(tallies, one, organization, hour, event)
            yield tallies
