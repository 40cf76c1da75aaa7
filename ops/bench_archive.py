"""`make bench-archive`: what a closed day costs as a file, and what archiving, restoring and purging do to freshness meanwhile.

Usage comes in at 20,000 events a second on this machine while yesterday's events are archived, proved, purged and restored.
Prints a JSON line per figure; exit 1 when a row is missing after the round trip.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psutil
import psycopg
from psycopg.errors import LockNotAvailable

from core import config
from core.audit import SYSTEM
from core.config import Settings
from core.errors import Conflict
from core.metering import retention, sampling
from core.metering.archive import days, rows
from core.metering.archive.place import Place
from core.metering.archive.rows import Digest
from ops import retention as retention_commands
from ops.bench_ingest import freshness, load, say, warmed
from ops.context import unit_of_work
from ops.ingest_stack import Stack, stack

TO_YESTERDAY = """UPDATE usage_events SET "timestamp" = "timestamp" - interval '1 day'"""


def main(argv: list[str] | None = None) -> int:
    """Run it; `--events` is the size of the day."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench_archive", description=__doc__)
    parser.add_argument("--events", type=int, default=500_000, help="events of the day (default %(default)s)")
    parser.add_argument("--rate", type=int, default=20_000, help="events offered a second meanwhile")
    given = parser.parse_args(argv)
    with stack(1_000) as running:
        warmed(running)
        load(running, seed=7, seconds=given.events / 50_000, rate=50_000, retries=0)
        running.one(f"WITH moved AS ({TO_YESTERDAY} RETURNING 1) SELECT count(*) FROM moved")
        config.use(Settings(environment="test", database_url=running.url))
        report, seconds = _meanwhile(running, given.rate, lambda: _round_trip(running))
    say("archive_visible_p99", report["p99"], "s", goal=2.0, at_most=True)
    say("archive_round_trip", seconds, "s")
    say("archive_memory_growth", report["memory"] / 2**20, "MiB", goal=512, at_most=True)
    return 0 if report["whole"] else 1


def _meanwhile(running: Stack, rate: int, work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """Do the work while usage comes in, until it is done; what it found, with the freshness of that time."""
    done, since = threading.Event(), datetime.now(UTC)
    sender = threading.Thread(target=lambda: _send(running, rate, done))
    sender.start()
    began = time.monotonic()
    try:
        found = work()
    finally:
        seconds = time.monotonic() - began
        done.set()
        sender.join()
    return {**found, "p99": freshness(running, since)[1]}, seconds


def _send(running: Stack, rate: int, done: threading.Event) -> None:
    seed = 100
    while not done.is_set():
        load(running, seed=seed, seconds=5, rate=rate, retries=0)
        seed += 1


def _round_trip(running: Stack) -> dict[str, Any]:
    """Archive, prove, purge and restore yesterday."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    os.nice(retention_commands.NICE)
    place, memory = Place((running.folder / "archive").as_uri()), psutil.Process(os.getpid()).memory_info().rss
    before = _digest(running, day)
    began = time.monotonic()
    with unit_of_work() as session:
        sampling.steady(session)
        made = days.archive(session, day, place, actor=SYSTEM, at=datetime.now(UTC))
        assert made is not None, "yesterday has events"
        archive_id, count, size = made.id, made.rows, made.size_bytes
    written = time.monotonic()
    with unit_of_work() as session:
        days.verify(session, archive_id, place, at=datetime.now(UTC))
    proved = time.monotonic()
    _retried(lambda session: retention.purge_events(session, day, place, actor=SYSTEM, at=datetime.now(UTC)))
    empty, purged = _digest(running, day) == rows.NONE, time.monotonic()
    _retried(lambda session: days.restore(session, day, place, actor=SYSTEM, at=datetime.now(UTC)))
    restored = time.monotonic()
    whole = empty and _digest(running, day) == before
    say("archive_size", size / count, "bytes/event", goal=100, at_most=True)
    say("archive_write", count / (written - began), "events/s")
    say("archive_prove", count / (proved - written), "events/s")
    say("archive_purge", purged - proved, "s")
    say("archive_restore", count / (restored - purged), "events/s")
    say("archive_round_trip_whole", float(whole), "1: every row came back", goal=1)
    return {"whole": whole, "memory": max(0, psutil.Process(os.getpid()).memory_info().rss - memory)}


def _digest(running: Stack, day: date) -> Digest:
    with psycopg.connect(running.url) as connection:
        return rows.stored(connection, day)


def _retried(work: Callable[[Any], Any], attempts: int = 20) -> None:
    """As a person would when the table was busy."""
    for attempt in range(attempts):
        try:
            with unit_of_work() as session:
                work(session)
        except (LockNotAvailable, Conflict):
            if attempt + 1 == attempts:
                raise
            time.sleep(0.2)
        else:
            return


if __name__ == "__main__":
    raise SystemExit(main())
