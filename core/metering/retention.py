"""Forgetting usage that was kept long enough: event days that are archived and proved, log days that are counted, refused events.

What an organization under a legal hold sent stays. Each purge is one transaction with its entry in the audit trail: what, how much, and
the digest and hash it can be checked against. Rollups, corrections and the audit trail are never purged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from psycopg import Connection, sql
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict
from core.metering import holds, partitions
from core.metering.archive import days, rows
from core.metering.archive.models import UsageArchive
from core.metering.archive.place import Place
from core.metering.archive.rows import Digest

RESTORED_KEPT = timedelta(days=14)
"""How long restored events stay."""
REJECTIONS_STEP = 20_000
LOCK_TIMEOUT = "1s"
LOG_DAY = """SELECT count(*), coalesce(sum(accepted), 0), coalesce(sum(hashint8extended(id, 0)), 0),
    count(*) FILTER (WHERE organization_id = ANY(%(held)s) OR (organization_id IS NULL AND cardinality(%(held)s::uuid[]) > 0))
  FROM usage_batches WHERE received_at >= %(since)s AND received_at < %(until)s"""
NEEDED = """SELECT EXISTS (SELECT FROM usage_pending WHERE received_at >= %(since)s AND received_at < %(until)s)
    OR EXISTS (SELECT FROM usage_quarantine WHERE received_at >= %(since)s AND received_at < %(until)s)"""
REJECTIONS = """DELETE FROM usage_rejections WHERE id = ANY(ARRAY(SELECT id FROM usage_rejections
    WHERE received_at < :before AND (organization_id <> ALL(:held) OR organization_id IS NULL AND cardinality(CAST(:held AS uuid[])) = 0)
    ORDER BY received_at LIMIT :step)) RETURNING 1"""


class NotArchived(Conflict):
    """The table has events of the day that no archive has."""

    code = "not_archived"


@dataclass(frozen=True, slots=True)
class Purged:
    """What went of one day or class; `kept` rows stayed for a legal hold. `id` names it in the audit trail."""

    id: str
    rows: int
    kept: int = 0


def event_days(session: Session, *, before: date, at: datetime) -> list[date]:
    """Days before that one whose events may go: not those restored lately."""
    found = partitions.days(rows.driver(session), "usage_events", before=before)
    lately = set(session.scalars(select(UsageArchive.day).where(UsageArchive.restored_at > at - RESTORED_KEPT)))
    return [day for day in found if day not in lately]


def purge_events(session: Session, day: date, place: Place, *, actor: Actor, at: datetime) -> Purged | None:
    """Drop the day's partition; held events stay in a new one. None when there is nothing to drop.

    Raises NotArchived when the newest archive does not have exactly these rows, Damaged when its file is not what was written, and
    psycopg's LockNotAvailable when the table is busy: then nothing happened.
    """
    archive = days.newest(session, day)
    if archive is not None and not archive.is_away:
        days.check_file(archive, place)
    held, connection = sorted(holds.held(session).values()), rows.driver(session)
    _set_lock_timeout(connection)
    if not partitions.make_day(connection, "usage_events", day):
        raise Conflict(f"The events of {day} are in use; try again later.")
    partitions.lock_day(connection, "usage_events", day)
    stored, kept = rows.stored(connection, day), rows.stored(connection, day, organizations=held)
    if stored.rows and (archive is None or archive.verified_at is None or not days.covers(archive, stored)):
        raise NotArchived(f"The table has events of {day} that no proved archive has: archive the day first.")
    if stored == kept and stored.rows:
        return None
    partitions.drop_day(connection, "usage_events", day, keep=held if kept.rows else ())
    return _note(session, day, archive, stored, kept, actor=actor, at=at) if archive is not None and stored.rows else None


def log_days(session: Session, *, before: date) -> list[date]:
    """Days of the log before that one."""
    return partitions.days(rows.driver(session), "usage_batches", before=before)


def purge_log(session: Session, day: date, *, actor: Actor, at: datetime) -> Purged | None:
    """Drop a day of the log, all of whose requests were counted; None when one was not, or may be a held organization's."""
    held, connection = list(holds.held(session)), rows.driver(session)
    _set_lock_timeout(connection)
    asked = {**rows.span(day), "held": held}
    needed = connection.execute(NEEDED, asked).fetchone()
    found = connection.execute(LOG_DAY, asked).fetchone()
    if found is None or needed is None or needed[0] or found[3] or not partitions.make_day(connection, "usage_batches", day):
        return None
    partitions.drop_day(connection, "usage_batches", day)
    purged = Purged(f"usage_batches {day.isoformat()}", int(found[0]))
    if purged.rows:
        audit.record(session, actor, "usage.log_purged", purged, at=at, requests=purged.rows, events=found[1], digest=found[2])
    return purged


def purge_rejections(session: Session, *, before: datetime, actor: Actor, at: datetime) -> Purged:
    """Delete a step of the refused events received before then; `rows` below REJECTIONS_STEP means that was all.

    While any organization is held, refused events that name none stay too.
    """
    asked = {"before": before, "held": list(holds.held(session)), "step": REJECTIONS_STEP}
    count = len(session.execute(text(REJECTIONS), asked).all())
    purged = Purged(f"usage_rejections before {before.isoformat()}", count)
    if count:
        audit.record(session, actor, "usage.rejections_purged", purged, at=at, events=count)
    return purged


def _set_lock_timeout(connection: Connection[Any]) -> None:
    connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))


def _note(session: Session, day: date, archive: UsageArchive, stored: Digest, kept: Digest, *, actor: Actor, at: datetime) -> Purged:
    """Write down what went."""
    archive.purged_at, archive.kept_rows, archive.kept_digest = at, kept.rows, kept.digest
    purged = Purged(f"usage_events {day.isoformat()}", stored.rows - kept.rows, kept.rows)
    facts: dict[str, Any] = {
        "rows": purged.rows,
        "kept": kept.rows,
        "digest": stored.digest,
        "path": archive.path,
        "sha256": archive.sha256.hex(),
    }
    audit.record(session, actor, "usage.day_purged", purged, at=at, **facts)
    return purged
