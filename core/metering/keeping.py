"""Keeping and forgetting usage once a day, by itself: closed days go to the archive, what was kept long enough goes from the tables.

What is to do is found by state and done in steps of a day, each in a transaction of its own which also writes down what went. A run that
was killed goes on where it stopped; a step that is refused is left for the next day, and said.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

import structlog
from psycopg.errors import LockNotAvailable
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.audit import Actor
from core.config import Settings
from core.db import transaction
from core.errors import BillingError
from core.metering import partitions, retention, sampling
from core.metering.archive import days, rows
from core.metering.archive.models import UsageArchive, UsageKeeping
from core.metering.archive.place import Place

log = structlog.get_logger("valueverse.metering")

LEFT_MAX = 50
KEEPER = Actor("system", "keeping", "the daily run")


class Step(NamedTuple):
    """Something to do for one day. `kind`: archive, prove, purge (of events), forget (of the log) or refused (events, all that are old)."""

    kind: str
    day: date
    archive_id: uuid.UUID | None = None

    def __str__(self) -> str:
        kinds = {"archive": "archive of", "prove": "proof of the archive of", "purge": "events of", "forget": "log of"}
        return f"{kinds.get(self.kind, 'refused events before')} {self.day}"


def is_due(session: Session, *, hour: int, at: datetime) -> bool:
    """Whether a run is open, or none began since today's (UTC) or, before that hour, yesterday's time for it."""
    newest = session.execute(select(UsageKeeping.started_at, UsageKeeping.finished_at).order_by(UsageKeeping.id.desc()).limit(1)).first()
    today = at.replace(hour=hour, minute=0, second=0, microsecond=0)
    return newest is None or newest.finished_at is None or newest.started_at < (today if at >= today else today - timedelta(days=1))


def runs(session: Session, *, limit: int = 10) -> Sequence[UsageKeeping]:
    """The last runs, newest first."""
    return session.scalars(select(UsageKeeping).order_by(UsageKeeping.id.desc()).limit(limit)).all()


def keep(settings: Settings, *, at: datetime, actor: Actor = KEEPER) -> int | None:
    """Do today's run, or what is left of the one that is open; its number, None when none is due. One at a time: use `only_one`.

    It begins at `at`; what it writes down later is later by as much.
    """
    began = time.monotonic()
    with transaction() as session:
        run = session.scalars(select(UsageKeeping).where(UsageKeeping.finished_at.is_(None))).first()
        if run is None:
            hour = settings.usage_keeping_hour
            if hour is None or not is_due(session, hour=hour, at=at):
                return None
            run = UsageKeeping(started_at=at)
            session.add(run)
            session.flush()
        run_id = run.id
    place = Place(settings.archive_url) if settings.archive_url else None
    waiting = _steps(settings, archives=place is not None, at=at)
    while waiting:
        step = waiting.pop(0)
        try:
            waiting[:0] = _do(run_id, step, place, actor=actor, at=_later(at, began))
        except (BillingError, LockNotAvailable) as error:
            _leave(run_id, step, str(error).splitlines()[0])
    with transaction() as session:
        _run(session, run_id).finished_at = _later(at, began)
    return run_id


def _later(at: datetime, began: float) -> datetime:
    return at + timedelta(seconds=time.monotonic() - began)


def _steps(settings: Settings, *, archives: bool, at: datetime) -> list[Step]:
    """What is due, archives first: only what they hold can go."""

    def before(count: int) -> date:
        return at.date() - timedelta(days=count)

    with transaction() as session:
        log_days = retention.log_days(session, before=before(settings.usage_log_days))
        steps = [Step("forget", day) for day in log_days] + [Step("refused", before(settings.usage_rejections_days))]
        if not archives:
            return steps
        unproved = session.execute(select(UsageArchive.day, UsageArchive.id).where(UsageArchive.verified_at.is_(None)))
        closed = partitions.days(rows.driver(session), "usage_events", before=before(settings.usage_archive_after_days))
        old = retention.event_days(session, before=before(settings.usage_events_days), at=at)
        return [
            *(Step("prove", day, archive_id) for day, archive_id in unproved),
            *(Step("archive", day) for day in days.without_archive(session, closed)),
            *(Step("purge", day) for day in old),
            *steps,
        ]


def _do(run_id: int, step: Step, place: Place | None, *, actor: Actor, at: datetime) -> list[Step]:
    """Do one step and write down what it did; the steps that must follow at once."""
    with transaction() as session:
        if step.kind == "archive" and place is not None:
            sampling.steady(session)
            made = days.archive(session, step.day, place, actor=actor, at=at)
            return [] if made is None else [Step("prove", step.day, made.id)]
        if step.kind == "prove" and place is not None and step.archive_id is not None:
            days.verify(session, step.archive_id, place, at=at)
            archive = session.get_one(UsageArchive, step.archive_id)
            _add(session, run_id, archived_days=1, archived_events=archive.rows, archived_bytes=archive.size_bytes)
        if step.kind == "purge" and place is not None:
            gone = retention.purge_events(session, step.day, place, actor=actor, at=at)
            if gone is not None:
                _add(session, run_id, purged_days=1, purged_events=gone.rows, kept_events=gone.kept)
        if step.kind == "forget":
            gone = retention.purge_log(session, step.day, actor=actor, at=at)
            if gone is not None:
                _add(session, run_id, purged_log_days=1, purged_requests=gone.rows)
        if step.kind == "refused":
            instant = datetime.combine(step.day, datetime.min.time(), at.tzinfo)
            count = retention.purge_rejections(session, before=instant, actor=actor, at=at).rows
            _add(session, run_id, purged_rejections=count)
            return [step] if count == retention.REJECTIONS_STEP else []
    return []


def _add(session: Session, run_id: int, **counts: int) -> None:
    run = _run(session, run_id)
    for name, count in counts.items():
        setattr(run, name, getattr(run, name) + count)


def _leave(run_id: int, step: Step, why: str) -> None:
    """Note what could not be done today."""
    log.warning("usage is kept longer than it should be", what=str(step), why=why)
    with transaction() as session:
        run = _run(session, run_id)
        run.left = [*run.left, {"what": str(step), "why": why}][:LEFT_MAX]


def _run(session: Session, run_id: int) -> UsageKeeping:
    return session.get_one(UsageKeeping, run_id, with_for_update=True)
