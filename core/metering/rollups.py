"""Writing one flush: event rows, hourly rollups, sets of unique values and the fate of each batch, in the counting transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg import Connection

from core.metering import daily, pgcopy
from core.metering.additions import Sums
from core.metering.counting import Bucket, Counted, Fate
from core.metering.instants import instant, micros
from core.metering.merging import LATER, NEWER, QUANTITY, WIDER
from core.metering.meters import Usage
from core.metering.models import Aggregation

COPY_EVENTS = """COPY usage_events ("timestamp", received_at, batch_id, organization_number, event_number, position, quantity,
  subscription_id, unit, idempotency_key, properties) FROM STDIN (FORMAT binary)"""
BUCKET = "organization_number, metric_number, hour, group_key"
CHANGE_COLUMNS = f"{BUCKET}, events, quantity, first_at, last_at, last_batch, last_position"
TALLY_COLUMNS = f"{CHANGE_COLUMNS}, moment"
TEMPORARY = """CREATE TEMPORARY TABLE IF NOT EXISTS flush_sums (organization_number int, metric_number int, hour timestamptz, events bigint,
    quantity numeric, first_at timestamptz, last_at timestamptz) ON COMMIT DELETE ROWS;
  CREATE TEMPORARY TABLE IF NOT EXISTS flush_tallies (LIKE usage_rollups, aggregation text) ON COMMIT DELETE ROWS;
  CREATE TEMPORARY TABLE IF NOT EXISTS flush_values (LIKE usage_unique_values) ON COMMIT DELETE ROWS;
  CREATE TEMPORARY TABLE IF NOT EXISTS flush_counts (LIKE usage_value_counts) ON COMMIT DELETE ROWS"""
ADD = f"""INSERT INTO usage_rollups AS r ({CHANGE_COLUMNS})
  SELECT organization_number, metric_number, hour, '', events, quantity, first_at, last_at, 0, 0 FROM flush_sums
  ON CONFLICT ({BUCKET}) DO UPDATE SET events = r.events + excluded.events, quantity = r.quantity + excluded.quantity, {WIDER}"""  # noqa: S608
MERGE = f"""INSERT INTO usage_rollups AS r ({TALLY_COLUMNS}) SELECT {TALLY_COLUMNS} FROM flush_tallies WHERE aggregation = %s
  ON CONFLICT ({BUCKET}) DO UPDATE SET events = r.events + excluded.events, quantity = {{quantity}}, moment = r.moment + excluded.moment,
    {LATER}, {WIDER}"""  # noqa: S608
COUNTS = f"""INSERT INTO usage_value_counts AS r ({BUCKET}, value, events) SELECT {BUCKET}, value, events FROM flush_counts
  ON CONFLICT ({BUCKET}, value) DO UPDATE SET events = r.events + excluded.events"""  # noqa: S608
VALUE_COLUMNS = f"{BUCKET}, value_hash, first_at, last_at, last_batch, last_position, removed"
REMOVED = f"removed = CASE WHEN {NEWER} THEN excluded.removed ELSE r.removed END"
VALUES = f"""INSERT INTO usage_unique_values AS r ({VALUE_COLUMNS}) SELECT {VALUE_COLUMNS} FROM flush_values
  ON CONFLICT ({BUCKET}, value_hash) DO UPDATE SET {LATER}, {REMOVED}, {WIDER} RETURNING {BUCKET}, (xmax = 0) AS fresh"""  # noqa: S608
FRESH_VALUES = f"""WITH written AS ({VALUES}),
  fresh AS (SELECT {BUCKET}, count(*) FILTER (WHERE fresh) AS amount FROM written GROUP BY {BUCKET})
  UPDATE flush_tallies t SET quantity = fresh.amount FROM fresh
  WHERE t.aggregation = 'unique_count' AND (t.organization_number, t.metric_number, t.hour, t.group_key)
    = (fresh.organization_number, fresh.metric_number, fresh.hour, fresh.group_key)"""  # noqa: S608
RESULTS = "COPY usage_batch_results (batch_id, counted_at, counted, duplicates, conflicts) FROM STDIN"
QUARANTINE = "INSERT INTO usage_quarantine (batch_id, received_at, error) VALUES (%s, %s, %s)"


def prepare(connection: Connection[Any]) -> None:
    """Make the connection's temporary tables."""
    connection.execute(TEMPORARY)


def write(connection: Connection[Any], counted: Counted) -> None:
    """Write the rows and the rollups in the connection's open transaction."""
    if counted.rows:
        with connection.cursor() as cursor, cursor.copy(COPY_EVENTS) as copy:
            copy.write(counted.rows)
    write_changes(connection, counted.sums, counted.tallies)


def settle(connection: Connection[Any], counted: Counted, *, at: datetime) -> None:
    """Write down the fate of each batch, last of all: `at` is when it became visible."""
    with connection.cursor() as cursor:
        with cursor.copy(RESULTS) as copy:
            copy.write("".join([_result(fate, at.isoformat()) for fate in counted.fates]))
        for batch, error in counted.poisoned:
            cursor.execute(QUARANTINE, (batch.id, instant(batch.received_at), error.replace("\0", "\ufffd")))


def write_changes(connection: Connection[Any], sums: Sums | None, tallies: Mapping[Aggregation, Mapping[Bucket, Usage]]) -> None:
    """Add changes to the rollups in the connection's open transaction."""
    if sums is not None:
        with connection.cursor() as cursor, cursor.copy("COPY flush_sums FROM STDIN (FORMAT binary)") as copy:
            copy.write(_sums_stream(sums))
        connection.execute(ADD)
    if tallies:
        _write_tallies(connection, tallies)
    since = daily.through(connection)
    late_sums = sums is not None and int(sums.hours.min()) < micros(since)
    late = [aggregation for aggregation, buckets in tallies.items() if any(bucket.hour < micros(since) for bucket in buckets)]
    if late_sums or late:
        daily.add_late(connection, late, since, sums=late_sums)


def _sums_stream(sums: Sums) -> bytes:
    rows = pgcopy.records(
        7,
        [
            ("i4", sums.organizations),
            ("i4", sums.metrics),
            ("ts", sums.hours),
            ("i8", sums.events),
            ("numeric", pgcopy.numeric(sums.wholes, sums.fractions)),
            ("ts", sums.first),
            ("ts", sums.last),
        ],
    )
    return pgcopy.stream(rows)


def _write_tallies(connection: Connection[Any], tallies: Mapping[Aggregation, Mapping[Bucket, Usage]]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY flush_tallies ({TALLY_COLUMNS}, aggregation) FROM STDIN") as copy:
        for aggregation, buckets in tallies.items():
            for bucket, usage in sorted(buckets.items(), key=_place):
                moment = usage.moment if aggregation == Aggregation.WEIGHTED_SUM else None
                state = (usage.events, usage.quantity, usage.first_at, usage.last_at, *usage.last_place, moment)
                copy.write_row((*_key(bucket), *state, aggregation.value))
    if Aggregation.UNIQUE_COUNT in tallies:
        _write_values(connection, tallies[Aggregation.UNIQUE_COUNT])
    if Aggregation.PERCENTILE in tallies:
        _write_counts(connection, tallies[Aggregation.PERCENTILE])
    for aggregation in tallies:
        connection.execute(MERGE.format(quantity=QUANTITY[aggregation]), (aggregation.value,))


def _write_values(connection: Connection[Any], buckets: Mapping[Bucket, Usage]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY flush_values ({VALUE_COLUMNS}) FROM STDIN") as copy:
        for bucket, usage in sorted(buckets.items(), key=_place):
            for value, seen in sorted(usage.values.items()):
                copy.write_row((*_key(bucket), value, seen.first_at, seen.last_at, *seen.last_place, seen.removed))
    connection.execute(FRESH_VALUES)


def _write_counts(connection: Connection[Any], buckets: Mapping[Bucket, Usage]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY flush_counts ({BUCKET}, value, events) FROM STDIN") as copy:
        for bucket, usage in sorted(buckets.items(), key=_place):
            for value, events in sorted(usage.counts.items()):
                copy.write_row((*_key(bucket), value, events))
    connection.execute(COUNTS)


def _key(bucket: Bucket) -> tuple[int, int, datetime, str]:
    return bucket.organization, bucket.metric, instant(bucket.hour), bucket.group


def _place(item: tuple[Bucket, Usage]) -> tuple[int, int, int, str]:
    bucket = item[0]
    return bucket.organization, bucket.metric, bucket.hour, bucket.group


def _result(fate: Fate, at: str) -> str:
    """A row of RESULTS as text; numbers need no quotes."""
    duplicates, conflicts = (f"{{{','.join(map(str, places))}}}" for places in (fate.duplicates, fate.conflicts))
    return f"{fate.batch_id}\t{at}\t{fate.counted}\t{duplicates}\t{conflicts}\n"
