"""Rows of a day, out of PostgreSQL and back, and the digest that says whether they are the same.

The digest is the sum of PostgreSQL's 64-bit hash of each whole row: it needs no order, adds up over parts, and a lost, changed or
doubled row alters it. It guards against faults; against forgery the file has its SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import Connection
from sqlalchemy.orm import Session

from core.metering.archive.parquet import COLUMNS, ROW_GROUP

LISTED = ", ".join(f'"{name}"' for name in COLUMNS)
DAY = '"timestamp" >= %(since)s AND "timestamp" < %(until)s'
EVENTS = f"""SELECT {LISTED} FROM usage_events WHERE {DAY}
  ORDER BY organization_number, event_number, "timestamp", batch_id, position"""  # noqa: S608 - constants
AS_STORED = LISTED.replace('"properties"', "convert_to(properties, 'UTF8')").replace('"quantity"', "trim_scale(quantity)")
HASH = "coalesce(sum(hash_record_extended(ROW({row}), 0)), 0)"
DIGEST = f"SELECT count(*), {HASH.format(row=LISTED)} FROM usage_events WHERE {DAY}"  # noqa: S608
PART_DIGEST = f"SELECT count(*), {HASH.format(row=AS_STORED)} FROM archived_part"  # noqa: S608
TEMPORARY = """CREATE TEMPORARY TABLE IF NOT EXISTS archived_part ("timestamp" timestamptz, received_at timestamptz, batch_id bigint,
    organization_number int, event_number int, position smallint, quantity numeric, idempotency_key text COLLATE "C", properties text,
    subscription_id uuid, unit text) ON COMMIT DELETE ROWS"""
COPY = f"COPY archived_part ({LISTED}) FROM STDIN (FORMAT csv)"
BACK = f"""INSERT INTO usage_events ({LISTED}) SELECT {AS_STORED} FROM archived_part a
  WHERE NOT EXISTS (SELECT FROM usage_events e WHERE e.organization_number = a.organization_number AND e.event_number = a.event_number
      AND e."timestamp" = a."timestamp" AND e.batch_id = a.batch_id AND e.position = a.position)
    AND NOT EXISTS (SELECT FROM usage_corrections c WHERE c.batch_id = a.batch_id AND c.position = a.position
      AND c.organization_number = a.organization_number AND c.at > %s)"""  # noqa: S608
CONTENTS = f"""SELECT n.name, count(*), sum(e.quantity), min(e."timestamp"), max(e."timestamp")
  FROM usage_events e JOIN usage_event_names n ON n.number = e.event_number WHERE {DAY} GROUP BY n.name ORDER BY n.name"""  # noqa: S608
SUMS = """SELECT m.code, sum(r.events)::bigint, sum(r.quantity) FROM usage_rollups r JOIN metrics m ON m.number = r.metric_number
  WHERE r.hour >= %(since)s AND r.hour < %(until)s AND m.aggregation IN ('sum', 'count') GROUP BY m.code ORDER BY m.code"""


@dataclass(frozen=True, slots=True)
class Digest:
    """How many rows, and the sum of their hashes."""

    rows: int
    digest: Decimal

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.rows + other.rows, self.digest + other.digest)


NONE = Digest(0, Decimal(0))


def driver(session: Session) -> Connection[Any]:
    """The session's own connection, in its transaction."""
    session.flush()
    found = session.connection().connection.driver_connection
    if not isinstance(found, Connection):
        raise TypeError("archives are read and written on psycopg connections")
    return found


def span(day: date) -> dict[str, datetime]:
    """The instants of a UTC day: since, and until where the next begins."""
    since = datetime.combine(day, datetime.min.time(), UTC)
    return {"since": since, "until": since + timedelta(days=1)}


def stored(connection: Connection[Any], day: date, *, organizations: Sequence[int] | None = None) -> Digest:
    """The digest of the day's rows in the table; of those organizations only, when given."""
    only = "" if organizations is None else " AND organization_number = ANY(%(organizations)s)"
    row = connection.execute(
        DIGEST + only, {**span(day), "organizations": None if organizations is None else list(organizations)}
    ).fetchone()
    return Digest(int(row[0]), Decimal(row[1])) if row else NONE


def events(connection: Connection[Any], day: date) -> Iterator[list[tuple[Any, ...]]]:
    """The day's rows, ROW_GROUP at a time, in the order of the file."""
    with connection.cursor(name="archived_day", binary=True) as cursor:
        cursor.itersize = ROW_GROUP
        cursor.execute(EVENTS, span(day))
        while found := cursor.fetchmany(ROW_GROUP):
            yield found


def contents(connection: Connection[Any], day: date) -> dict[str, Any]:
    """What the day holds, for the manifest: by event name, and the rollups of metrics that add up."""
    names = connection.execute(CONTENTS, span(day)).fetchall()
    sums = connection.execute(SUMS, span(day)).fetchall()
    return {
        "events": {
            name: {"rows": rows, "quantity": f"{quantity:f}", "first": first.isoformat(), "last": last.isoformat()}
            for name, rows, quantity, first, last in names
        },
        "metrics": {code: {"events": rows, "quantity": f"{quantity:f}"} for code, rows, quantity in sums},
    }


def load(connection: Connection[Any], part: bytes) -> Digest:
    """Put a part of an archive into the temporary table, in place of the one before; its digest."""
    connection.execute(TEMPORARY)
    connection.execute("TRUNCATE archived_part")
    with connection.cursor() as cursor, cursor.copy(COPY) as copy:
        copy.write(part)
    row = connection.execute(PART_DIGEST).fetchone()
    return Digest(int(row[0]), Decimal(row[1])) if row else NONE


def put_back(connection: Connection[Any], archived_at: datetime) -> int:
    """Store the loaded part's rows that are not there and were not corrected since; returns how many."""
    return connection.execute(BACK, (archived_at,)).rowcount
