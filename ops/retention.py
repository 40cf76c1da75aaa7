"""`valueverse usage archive`, `restore-archive`, `purge`, `repair-partitions`, `hold`, `release` and `holds`."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from psycopg.errors import LockNotAvailable
from sqlalchemy import select

from core import clock, config
from core.audit import Actor
from core.errors import BillingError
from core.metering import holds, hypertable, partitions, retention, sampling
from core.metering.archive import days, rows
from core.metering.archive.models import UsageArchive
from core.metering.archive.place import Place
from core.metering.lines import connect
from core.metering.sums import organizations
from ops.context import unit_of_work

Command = Callable[[argparse.Namespace], int]
NICE = 10
"""Archiving may take long; counting goes first."""


def add_commands(commands: Any) -> None:
    """Make the commands known to the parser of `valueverse usage`."""
    archiving = commands.add_parser("archive", help="write closed days to Parquet and prove each file by reading it back")
    archiving.add_argument("--day", type=date.fromisoformat, help="this UTC day; else all closed ones without an archive")
    restoring = commands.add_parser("restore-archive", help="put a purged day's events back")
    restoring.add_argument("--day", type=date.fromisoformat, required=True)
    purging = commands.add_parser("purge", help="drop what was kept long enough, archived days only")
    repairing = commands.add_parser("repair-partitions", help="move events out of the default partitions into days of their own")
    converting = commands.add_parser("hypertable", help="move the events into a TimescaleDB hypertable, where the extension is there")
    placing = commands.add_parser("hold", help="place a legal hold: nothing of this organization is purged")
    releasing = commands.add_parser("release", help="release a legal hold")
    for parser in (placing, releasing):
        parser.add_argument("organization", metavar="SLUG")
        parser.add_argument("--reason", required=True)
    listing = commands.add_parser("holds", help="list the legal holds that stand")
    chosen: Sequence[tuple[argparse.ArgumentParser, Command]] = (
        *((archiving, _archive), (restoring, _restore), (purging, _purge), (repairing, _repair), (converting, _convert)),
        *((placing, _hold), (releasing, _release), (listing, _holds)),
    )
    for parser, command in chosen:
        parser.set_defaults(run=_told(command))


def purged(session: Any, start: datetime, end: datetime) -> list[date]:
    """Days of [start, end) whose events are archived and not in the table."""
    found = session.scalars(
        select(UsageArchive).where(UsageArchive.day >= start.date(), UsageArchive.day <= (end - timedelta(microseconds=1)).date())
    )
    return sorted({archive.day for archive in found if archive.is_away})


def _told(command: Command) -> Command:
    """Say what is in the way, as a sentence."""

    def run(chosen: argparse.Namespace) -> int:
        try:
            return command(chosen)
        except BillingError as error:
            print(error)
            return 1

    return run


def _actor() -> Actor:
    return Actor("system", "command-line", f"{getpass.getuser()} on the command line")


def _place() -> Place:
    url = config.current().archive_url
    if not url:
        raise BillingError("USAGE_ARCHIVE_URL names no place for archives (file:///…, s3://bucket/…).")
    return Place(url)


def _archive(chosen: argparse.Namespace) -> int:
    place, settings = _place(), config.current()
    today = clock.now().date()
    os.nice(NICE)
    if chosen.day and chosen.day >= today:
        raise BillingError("Only a day that is over can be archived.")
    with unit_of_work() as session:
        before = today - timedelta(days=settings.usage_archive_after_days)
        closed = days.without_archive(session, partitions.days(rows.driver(session), "usage_events", before=before))
        unproved = session.execute(select(UsageArchive.id, UsageArchive.path).where(UsageArchive.verified_at.is_(None))).all()
    for archive_id, path in unproved:  # a run that was killed between writing and proving
        _prove(place, archive_id, path)
    for day in [chosen.day] if chosen.day else closed:
        if not _archive_day(place, day):
            print(f"{day}: nothing that is not archived")
    return 0


def _archive_day(place: Place, day: date) -> bool:
    """Archive and prove; False when there was nothing to write."""
    with unit_of_work() as session:
        sampling.steady(session)
        made = days.archive(session, day, place, actor=_actor(), at=clock.now())
        if made is None:
            return False
        archive_id, path, size, count = made.id, made.path, made.size_bytes, made.rows
    print(f"{day}: {count} events in {size} bytes, {size / count:.1f} bytes an event, {place.url.rstrip('/')}/{path}", flush=True)
    _prove(place, archive_id, path)
    return True


def _prove(place: Place, archive_id: Any, path: str) -> None:
    with unit_of_work() as session:
        days.verify(session, archive_id, place, at=clock.now())
    print(f"read back and found right: {path}", flush=True)


def _restore(chosen: argparse.Namespace) -> int:
    with unit_of_work() as session:
        done = days.restore(session, chosen.day, _place(), actor=_actor(), at=clock.now())
    if not done.archives:
        print(f"{chosen.day}: its events are in the table already")
        return 0
    print(
        f"{chosen.day}: {done.rows} events are back for {retention.RESTORED_KEPT.days} days; {done.left_out} were there or corrected since"
    )
    return 0


def _purge(chosen: argparse.Namespace) -> int:  # noqa: ARG001 - commands share one signature
    """Events, log, refused events; what is in use or not archived is left, and said."""
    settings, now, place = config.current(), clock.now(), _place()
    left = 0
    with unit_of_work() as session:
        event_days = retention.event_days(session, before=(now - timedelta(days=settings.usage_events_days)).date(), at=now)
        log_days = retention.log_days(session, before=(now - timedelta(days=settings.usage_log_days)).date())
    for day in event_days:
        left += not _one(f"events of {day}", lambda session, day=day: retention.purge_events(session, day, place, actor=_actor(), at=now))
    for day in log_days:
        left += not _one(f"log of {day}", lambda session, day=day: retention.purge_log(session, day, actor=_actor(), at=now))
    before, count = now - timedelta(days=settings.usage_rejections_days), retention.REJECTIONS_STEP
    while count == retention.REJECTIONS_STEP:
        with unit_of_work() as session:
            count = retention.purge_rejections(session, before=before, actor=_actor(), at=now).rows
        if count:
            print(f"refused events: {count} purged")
    return 1 if left else 0


def _one(what: str, purge: Callable[[Any], retention.Purged | None]) -> bool:
    try:
        with unit_of_work() as session:
            done = purge(session)
    except (BillingError, LockNotAvailable) as error:
        print(f"{what}: left alone. {str(error).splitlines()[0]}")
        return False
    if done is not None:
        held = f", {done.kept} kept for a legal hold" if done.kept else ""
        print(f"{what}: {done.rows} purged{held}", flush=True)
    return True


def _repair(chosen: argparse.Namespace) -> int:  # noqa: ARG001 - commands share one signature
    """One short transaction a day, so that counting goes on meanwhile."""
    with connect(config.current().database_url, name="repair partitions") as connection:
        made = partitions.repair(connection, before=clock.now().date() + timedelta(days=1))
        left = sum(len(partitions.stray(connection, table)) for table in partitions.PARTITIONED)
    print(f"{len(made)} days were moved out of the default partitions; {left} are left")
    return 0


def _convert(chosen: argparse.Namespace) -> int:  # noqa: ARG001 - commands share one signature
    """One transaction: counting waits for it, usage is taken meanwhile."""
    with connect(config.current().database_url, name="make a hypertable") as connection:
        hypertable.convert(connection, compress_after_days=config.current().usage_archive_after_days)
    print("usage_events is a hypertable: a chunk a day, compressed when it is closed")
    return 0


def _hold(chosen: argparse.Namespace) -> int:
    with unit_of_work() as session:
        organization_id = _organization(session, chosen.organization)
        holds.place(session, organization_id, reason=chosen.reason, actor=_actor(), at=clock.now())
    print(f"Nothing that {chosen.organization} sent is purged from now on.")
    return 0


def _release(chosen: argparse.Namespace) -> int:
    with unit_of_work() as session:
        organization_id = _organization(session, chosen.organization)
        holds.release(session, organization_id, reason=chosen.reason, actor=_actor(), at=clock.now())
    print(f"What {chosen.organization} sent is purged when it is old enough.")
    return 0


def _holds(chosen: argparse.Namespace) -> int:  # noqa: ARG001 - commands share one signature
    with unit_of_work() as session:
        found = [(slug, hold.placed_at, hold.reason) for hold, slug in holds.named(session)]
    for slug, placed_at, reason in found:
        print(f"{slug}, since {placed_at:%Y-%m-%d}: {reason}")
    print(f"{len(found)} legal holds stand")
    return 0


def _organization(session: Any, slug: str) -> Any:
    found = session.scalar(select(organizations.c.id).where(organizations.c.slug == slug))
    if found is None:
        raise BillingError(f"There is no organization {slug!r}.")
    return found
