"""Daily partitions of the log and the events, made ahead of time; what can no longer be needed is deleted.

A day without a partition is no accident: its rows go to the default partition, and move when the day's own is made. Where the events are a
hypertable (core.metering.hypertable), its chunks are their partitions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import structlog
from psycopg import Connection, sql
from psycopg.errors import LockNotAvailable

from core.metering import hypertable

log = structlog.get_logger("valueverse.metering")

PARTITIONED = {"usage_events": "timestamp", "usage_batches": "received_at"}
DAYS_BEHIND, DAYS_AHEAD = 1, 3
RESULT_DAYS = 42
LOCK_TIMEOUT = "1s"
EXISTING = "SELECT relname FROM pg_class WHERE relname = ANY(%s)"
ATTACHED = "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = %s::regclass"
STRAY = "SELECT DISTINCT ({column} AT TIME ZONE 'UTC')::date FROM {default} WHERE {column} < {until} ORDER BY 1 LIMIT %s"
REPAIRED_MAX = 50
"""Days in one go."""


def keep_house(connection: Connection[Any], today: date, *, dedup_days: int) -> list[str]:
    """Make the partitions of the days around `today` and delete expired keys and results; the names of what was made.

    A table that is busy for longer than a second is left for the next time.
    """
    made = []
    for table, column in PARTITIONED.items():
        if _has_chunks(connection, table):
            continue
        for offset in range(-DAYS_BEHIND, DAYS_AHEAD + 1):
            day = today + timedelta(days=offset)
            if not _exists(connection, name := partition(table, day)) and _make(connection, table, column, name, day):
                made.append(name)
    connection.execute("DELETE FROM usage_dedup_segments WHERE received_on < %s", (today - timedelta(days=dedup_days),))
    with connection.transaction():
        expired = "SELECT id FROM usage_dedup_runs WHERE newest_on < %s"
        connection.execute(f"DELETE FROM usage_dedup_pages WHERE run_id IN ({expired})", (today - timedelta(days=dedup_days),))  # noqa: S608
        connection.execute(f"DELETE FROM usage_dedup_runs WHERE id IN ({expired})", (today - timedelta(days=dedup_days),))  # noqa: S608
    connection.execute("DELETE FROM usage_dedup_keys WHERE received_on < %s", (today - timedelta(days=dedup_days),))
    connection.execute("DELETE FROM usage_batch_results WHERE counted_at < %s", (today - timedelta(days=RESULT_DAYS),))
    return made


def partition(table: str, day: date) -> str:
    """The name of a day's partition."""
    return f"{table}_{day:%Y%m%d}"


def make_day(connection: Connection[Any], table: str, day: date) -> bool:
    """Make sure that the day has its partition; False when the table was too busy for it."""
    name = partition(table, day)
    if _has_chunks(connection, table):
        return True
    return _exists(connection, name) or _make(connection, table, PARTITIONED[table], name, day)


def lock_day(connection: Connection[Any], table: str, day: date) -> None:
    """Let nobody write to the day, which has its partition, until the transaction ends."""
    if _has_chunks(connection, table):
        hypertable.lock_day(connection, day)
        return
    name = sql.Identifier(partition(table, day))
    connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(name))


def drop_day(connection: Connection[Any], table: str, day: date, *, keep: Sequence[int] = ()) -> None:
    """Drop the day's partition; rows of the organizations of these numbers stay, in a new one."""
    if _has_chunks(connection, table):
        hypertable.drop_day(connection, day, keep=keep)
        return
    name = partition(table, day)
    parts: dict[str, sql.Composable] = {"table": sql.Identifier(table), "old": sql.Identifier(name), "new": sql.Identifier(f"{name}_held")}
    parts |= {"held": sql.Literal(list(keep)), **_bounds(day)}
    copied = (
        "CREATE TABLE {new} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)",
        "INSERT INTO {new} SELECT * FROM {old} WHERE organization_number = ANY({held})",
    )
    attached = (
        "ALTER TABLE {new} RENAME TO {old}",
        "ALTER TABLE {table} ATTACH PARTITION {old} FOR VALUES FROM ({since}) TO ({until})",
    )
    for step in (*(copied if keep else ()), "DROP TABLE {old}", *(attached if keep else ())):
        connection.execute(sql.SQL(step).format(**parts))


def days(connection: Connection[Any], table: str, *, before: date) -> list[date]:
    """The days before that one which have a partition, or rows in the default one; oldest first."""
    if _has_chunks(connection, table):
        return [day for day in hypertable.days(connection) if day < before]
    names = (row[0] for row in connection.execute(ATTACHED, (table,)).fetchall())
    dated = (re.fullmatch(rf"{table}_(\d{{8}})", name) for name in names)
    own = {datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC).date() for found in dated if found}
    return sorted(day for day in own.union(stray(connection, table, before=before)) if day < before)


def stray(connection: Connection[Any], table: str, *, before: date = date.max, limit: int = 10_000) -> list[date]:
    """Days whose rows are in the default partition, oldest first."""
    column, default = sql.Identifier(PARTITIONED[table]), sql.Identifier(f"{table}_default")
    until = sql.Literal(f"{before}T00:00:00Z" if before < date.max else "infinity")
    query = sql.SQL(STRAY).format(column=column, default=default, until=until)
    return [row[0] for row in connection.execute(query, (limit,)).fetchall()]


def repair(connection: Connection[Any], *, before: date) -> list[str]:
    """Move rows of days before that one out of the default partitions, each day into one of its own; the partitions made.

    Counting goes on meanwhile. A day whose table is busy, and what is over REPAIRED_MAX, is left for the next time.
    """
    found = [(table, day) for table in PARTITIONED for day in stray(connection, table, before=before, limit=REPAIRED_MAX)]
    return [partition(table, day) for table, day in found if make_day(connection, table, day)]


def _has_chunks(connection: Connection[Any], table: str) -> bool:
    return table == hypertable.TABLE and hypertable.is_used(connection)


def _bounds(day: date) -> dict[str, sql.Literal]:
    return {"since": sql.Literal(f"{day}T00:00:00Z"), "until": sql.Literal(f"{day + timedelta(days=1)}T00:00:00Z")}


def _exists(connection: Connection[Any], name: str) -> bool:
    return connection.execute(EXISTING, ([name],)).fetchone() is not None


def _make(connection: Connection[Any], table: str, column: str, name: str, day: date) -> bool:
    """Make one day's partition, with the rows that were waiting for it in the default one, and attach it without stopping writers."""
    parts = {
        "table": sql.Identifier(table),
        "name": sql.Identifier(name),
        "default": sql.Identifier(f"{table}_default"),
        "column": sql.Identifier(column),
        **_bounds(day),
    }
    steps = (
        "CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)",
        "LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE",
        (
            "WITH moved AS (DELETE FROM {default} WHERE {column} >= {since} AND {column} < {until} RETURNING *) "
            "INSERT INTO {name} SELECT * FROM moved"
        ),
        "ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({since}) TO ({until})",
    )
    try:
        with connection.transaction():
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
            for step in steps:
                connection.execute(sql.SQL(step).format(**parts))
    except LockNotAvailable:
        log.warning("a partition could not be made; its rows go to the default one", partition=name)
        return False
    return True
