"""TimescaleDB in the place of daily partitions: `usage_events` as a hypertable, a chunk a day, closed days compressed by its policy.

The extension is optional, and `convert` is called once. Days go as ever, when a proved archive has them and nobody is held
(core.metering.retention), so the extension gets no retention policy of its own: it would ask neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from psycopg import Connection, sql

from core.errors import Conflict

TABLE = "usage_events"
AVAILABLE = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
PLAIN = "SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass(%s)"
CHUNKS = """SELECT format('%%I.%%I', chunk_schema, chunk_name), range_start FROM timescaledb_information.chunks
  WHERE hypertable_name = %s AND hypertable_schema = current_schema() ORDER BY range_start"""
CONVERT = (
    "CREATE EXTENSION IF NOT EXISTS timescaledb",
    "LOCK TABLE usage_events IN ACCESS EXCLUSIVE MODE",
    "ALTER TABLE usage_events RENAME TO usage_events_before",
    "CREATE TABLE usage_events (LIKE usage_events_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMMENTS)",
    "SELECT create_hypertable('usage_events', by_range('timestamp', INTERVAL '1 day'), create_default_indexes => false)",
    "INSERT INTO usage_events SELECT * FROM usage_events_before",
    "DROP TABLE usage_events_before",
    """CREATE INDEX ix_usage_events_organization_number_event_number_timestamp
      ON usage_events (organization_number, event_number, "timestamp")""",
    """ALTER TABLE usage_events SET (timescaledb.compress, timescaledb.compress_segmentby = 'organization_number',
      timescaledb.compress_orderby = 'event_number, "timestamp", batch_id, position')""",
    "CREATE TABLE usage_events_default (LIKE usage_events)",  # every day has its chunk: what looks for strays finds none
)


def is_available(connection: Connection[Any]) -> bool:
    """Whether the server has the extension's files."""
    return _is(connection, AVAILABLE)


def is_used(connection: Connection[Any]) -> bool:
    """Whether the events are in a hypertable; partitioned tables are of another kind."""
    return _is(connection, PLAIN, TABLE)


def convert(connection: Connection[Any], *, compress_after_days: int) -> None:
    """Move the events into a hypertable, in one transaction; counting waits meanwhile, taking usage goes on.

    Raises Conflict when there is no extension, or they are in one already.
    """
    if not is_available(connection):
        raise Conflict("This PostgreSQL has no TimescaleDB: install the extension's package and add it to shared_preload_libraries.")
    if is_used(connection):
        raise Conflict("usage_events is a hypertable already.")
    policy = sql.SQL("SELECT add_compression_policy('usage_events', make_interval(days => {}))").format(sql.Literal(compress_after_days))
    with connection.transaction():
        for step in CONVERT:
            connection.execute(step)
        connection.execute(policy)


def days(connection: Connection[Any]) -> list[date]:
    """The UTC days that have a chunk, oldest first."""
    return [row[1].astimezone(UTC).date() for row in connection.execute(CHUNKS, (TABLE,)).fetchall()]


def lock_day(connection: Connection[Any], day: date) -> None:
    """Let nobody write to the day until the transaction ends."""
    for name, since in connection.execute(CHUNKS, (TABLE,)).fetchall():
        if since.astimezone(UTC).date() == day:
            connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(sql.SQL(name)))


def drop_day(connection: Connection[Any], day: date, *, keep: Sequence[int] = ()) -> None:
    """Drop the day's chunk, but for the rows of the organizations of these numbers."""
    since = datetime.combine(day, datetime.min.time(), UTC)
    span = {"since": since, "until": since + timedelta(days=1), "keep": list(keep)}
    kept = 'SELECT * FROM usage_events WHERE "timestamp" >= %(since)s AND "timestamp" < %(until)s AND organization_number = ANY(%(keep)s)'
    if keep:
        connection.execute("CREATE TEMPORARY TABLE held_events ON COMMIT DROP AS SELECT * FROM usage_events WITH NO DATA")
        connection.execute(f"INSERT INTO held_events {kept}", span)
    connection.execute("SELECT drop_chunks('usage_events', older_than => %(until)s, newer_than => %(since)s)", span)
    if keep:
        connection.execute("INSERT INTO usage_events SELECT * FROM held_events")
        connection.execute("DROP TABLE held_events")


def _is(connection: Connection[Any], statement: str, *values: Any) -> bool:
    row = connection.execute(statement, values).fetchone()
    return row is not None and bool(row[0])
