"""A day of usage events into a file, the file proved, and the file back into the table.

Nothing here deletes. A day may have several archives: the newest one holds every row that was in the table when it was written.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.db import new_id
from core.errors import Conflict, NotFound
from core.metering import partitions
from core.metering.archive import parquet, rows
from core.metering.archive.models import UsageArchive
from core.metering.archive.place import Place
from core.metering.archive.rows import Digest
from core.metering.models import usage_event_names
from core.metering.sums import organizations

FORM = "valueverse-usage-day/1"


class Damaged(Conflict):
    """An archive is not what was written."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back of a day: rows stored now, rows that were there already or were corrected since, archives read."""

    rows: int
    left_out: int
    archives: int


def newest(session: Session, day: date) -> UsageArchive | None:
    """The day's last archive."""
    query = select(UsageArchive).where(UsageArchive.day == day).order_by(UsageArchive.archived_at.desc(), UsageArchive.id.desc())
    return session.scalars(query.limit(1)).first()


def covers(archive: UsageArchive, stored: Digest) -> bool:
    """Whether these rows of the day are all in its archives."""
    expected = (archive.kept_rows, archive.kept_digest) if archive.is_away else (archive.rows, archive.digest)
    return (stored.rows, stored.digest) == expected


def archive(session: Session, day: date, place: Place, *, actor: Actor, at: datetime) -> UsageArchive | None:
    """Write every event of the day to a new file; None when its archives have them all, or there are none.

    Begin a transaction with it that sees one state (`sampling.steady`). `verify` comes next, in a transaction of its own.
    """
    connection = rows.driver(session)
    digest, last = rows.stored(connection, day), newest(session, day)
    if not digest.rows or (last is not None and covers(last, digest)):
        return None
    path = f"usage_events/{day.isoformat()}/{new_id()}"
    file = place.create(f"{path}.parquet")
    ids = {row.number: row.id for row in session.execute(select(organizations.c.number, organizations.c.id))}
    names = {row.number: row.name for row in session.execute(select(usage_event_names))}
    written = parquet.write(file, rows.events(connection, day), ids, names)
    file.close()
    if written != digest.rows:
        raise Damaged(f"{written} rows were written of the {digest.rows} of {day}.")
    made = UsageArchive(id=new_id(), day=day, path=f"{path}.parquet", size_bytes=file.size, sha256=file.sha256, archived_at=at)
    made.rows, made.digest, made.contents = digest.rows, digest.digest, rows.contents(connection, day)
    place.put(f"{path}.json", json.dumps(_manifest(made), indent=1).encode())
    session.add(made)
    audit.record(session, actor, "usage.day_archived", made, at=at, **_facts(made), path=made.path)
    return made


def verify(session: Session, archive_id: uuid.UUID, place: Place, *, at: datetime) -> None:
    """Read the file back and compare its hash and every row with what was archived. Raises Damaged, Unavailable or NotFound."""
    archive = session.get(UsageArchive, archive_id)
    if archive is None:
        raise NotFound("There is no such archive.")
    check_file(archive, place)
    connection, total = rows.driver(session), rows.NONE
    for part in parquet.read(place.open(archive.path)):
        total += rows.load(connection, part)
    _check_rows(archive, total)
    archive.verified_at = at


def restore(session: Session, day: date, place: Place, *, actor: Actor, at: datetime) -> Restored:
    """Put the purged events of a day back, each once, so that lines can be followed to their events again.

    Sums stay as they are: they were never purged. A second time it changes nothing. Raises NotFound when the day was not archived.
    """
    found = session.scalars(select(UsageArchive).where(UsageArchive.day == day).order_by(UsageArchive.archived_at).with_for_update()).all()
    if not found:
        raise NotFound(f"There is no archive of {day}.")
    away = [archive for archive in found if archive.is_away]
    connection, back, seen = rows.driver(session), 0, 0
    if away:
        partitions.make_day(connection, "usage_events", day)
    for archive in away:
        check_file(archive, place)
        total = rows.NONE
        for part in parquet.read(place.open(archive.path)):
            total += rows.load(connection, part)
            back += rows.put_back(connection, archive.archived_at)
        _check_rows(archive, total)
        seen += total.rows
        archive.restored_at = at
        audit.record(session, actor, "usage.day_restored", archive, at=at, **_facts(archive))
    return Restored(back, seen - back, len(away))


def without_archive(session: Session, days: Sequence[date]) -> list[date]:
    """Which of these days have none."""
    known = set(session.scalars(select(UsageArchive.day).where(UsageArchive.day.in_(days))))
    return [day for day in days if day not in known]


def check_file(archive: UsageArchive, place: Place) -> None:
    """Compare the file's hash, as it lies there now, with the one it was written with. Raises Damaged or Unavailable."""
    if place.sha256(archive.path) != archive.sha256:
        raise Damaged(f"The archive {archive.path} is not what was written: its SHA-256 differs.")


def _check_rows(archive: UsageArchive, found: Digest) -> None:
    if (found.rows, found.digest) != (archive.rows, archive.digest):
        raise Damaged(f"The archive {archive.path} reads as {found.rows} rows that are not the {archive.rows} archived.")


def _facts(archive: UsageArchive) -> dict[str, Any]:
    return {"day": archive.day.isoformat(), "rows": archive.rows, "sha256": archive.sha256.hex(), "digest": archive.digest}


def _manifest(archive: UsageArchive) -> dict[str, Any]:
    facts = audit.plain(_facts(archive))
    return {"form": FORM, **facts, "bytes": archive.size_bytes, "archived_at": archive.archived_at.isoformat(), **archive.contents}
