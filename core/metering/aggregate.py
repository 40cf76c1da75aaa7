"""The aggregator: takes batches off the log and counts them, one transaction a flush, while the next flush is being prepared.

There is one at a time (advisory lock, and an epoch that fences off one who only believes to hold it). Whatever happens between two
commits, nothing is lost or counted twice: a batch leaves `usage_pending` in the same transaction that counts it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import structlog
from psycopg import Connection
from psycopg.rows import namedtuple_row

from core.metering import backfill, counting, daily, flushes, limits, partitions, rollups
from core.metering.corrections import gate
from core.metering.counted import METERS, TAKEN_UP
from core.metering.counting import Counted
from core.metering.dedup import DedupStore
from core.metering.directory import EventType, event_type
from core.metering.flushes import POISON, Flush, FlushFailed
from core.metering.halving import Halving
from core.metering.instants import instant, micros
from core.metering.lines import connect
from core.metering.meters import Meter, meter
from core.metering.revisions import sweeping
from core.metering.suspects import suspect

log = structlog.get_logger("valueverse.aggregator")

LOCK = 7_720_001
SESSION = "SET synchronous_commit = off; SET TIME ZONE 'UTC'; SET jit = off"
FLUSH_EVENTS = 100_000
BUSY_EVENTS = 5_000
"""In one flush."""
SPREAD_MIN = 0.4
"""Rollup rows changed for each event."""
BATCHES_MIN = 32
BATCHES_MAX = 20_000
DEDUP_MARGIN_DAYS = 7
UPKEEP_SECONDS = 600.0
DAYS_HOURLY = 2
DAYS_ADDED_UP_MAX = 100
FENCE = f"""WITH gate AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared({gate.LOCK}))
  SELECT s.dedup_seed FROM gate, usage_state s WHERE s.epoch = %s FOR SHARE OF s"""  # noqa: S608 - a constant


class Superseded(Exception):
    """Another aggregator has taken over."""


RECOVERABLE = (psycopg.OperationalError, psycopg.InterfaceError, Superseded)
"""What a new Aggregator gets over: the database was away, or another process had the lock."""


@dataclass(slots=True)
class Progress:
    """What the aggregator did since it started."""

    events: int = 0
    duplicates: int = 0
    conflicts: int = 0
    batches: int = 0
    flushes: int = 0
    poisoned: int = 0
    lag_seconds: float = 0.0
    """From the acceptance of the last flush's oldest batch to its commit."""


class Aggregator:
    """Counts until told to stop. Raises on anything it cannot recover from; its supervisor starts a new one."""

    def __init__(
        self, database_url: str, store: DedupStore, *, flush_seconds: float, window_days: int, now: Callable[[], datetime]
    ) -> None:
        self._url, self._store, self._flush_seconds, self._window_days, self._now = database_url, store, flush_seconds, window_days, now
        self._stop = threading.Event()
        self._epoch = 0
        self._batches = BATCHES_MIN
        self._halving = Halving()
        self._behind = False
        self._new: list[tuple[Meter, int]] = []
        self._step, self._upkeep_at = backfill.STEP_MAX, 0.0
        self._loaded = False
        self.progress = Progress()

    @property
    def is_counting(self) -> bool:
        """Whether it has the lock and has read the keys."""
        return self._loaded

    def stop(self) -> None:
        """Finish the running flush and return from run()."""
        self._stop.set()

    def run(self) -> None:
        """Take the lock, load the keys, count until stopped. Raises Superseded or a psycopg error."""
        with connect(self._url, name="usage aggregator lock") as lock, ExitStack() as stack:
            if not self._take_over(lock):
                return
            lines = [stack.enter_context(self._line(name)) for name in ("usage aggregator a", "usage aggregator b")]
            self._load(lines[0])
            writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="usage-writer"))
            while not self._stop.is_set():
                try:
                    self._count_on(lines, writer)
                except FlushFailed as failed:
                    self._set_aside(lines, failed)

    def _take_over(self, lock: Connection[Any]) -> bool:
        """Wait for the lock; after this no earlier aggregator commits any more. False when stopped meanwhile."""
        while lock.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone() != (True,):
            if self._stop.wait(0.2):
                return False
        row = lock.execute("UPDATE usage_state SET epoch = epoch + 1 RETURNING epoch").fetchone()
        self._epoch = row[0] if row else 0
        return True

    def _set_aside(self, lines: list[Connection[Any]], failed: FlushFailed) -> None:
        """Give back what failed and what was prepared on top of it. One batch is quarantined; several are counted in pieces."""
        log.warning("a flush failed", error=str(failed), batches=len(failed.batches))
        for line in lines:
            line.execute("ROLLBACK")
        self._store.undo(failed.claims)
        self._halving.failed(len(failed.batches), failed.suspect)
        if len(failed.batches) == 1:
            with lines[0].transaction():
                self._fence(lines[0])
                flushes.quarantine(lines[0], failed)
            self.progress.poisoned += 1

    def _count_on(self, lines: list[Connection[Any]], writer: ThreadPoolExecutor) -> None:
        """Count until stopped; one flush is prepared while the one before is written, unless a flush that failed is being halved."""
        writing: Future[None] | None = None
        try:
            while not self._stop.is_set():
                started = time.monotonic()
                if writing is not None and writing.done():
                    writing.result()  # nothing is prepared on top of a failure that is known
                flush = self._prepare(lines[0])
                if writing is not None:
                    writing.result()
                writing = writer.submit(self._write, lines[0], flush) if flush else None
                if self._halving or self._new or time.monotonic() >= self._upkeep_at:
                    if writing is not None:
                        writing.result()
                        writing = None
                    self._halving.counted()
                    self._take_up(lines[1])
                    self._keep_house(lines[1])
                lines.reverse()
                if not self._behind and not self._halving:
                    self._stop.wait(max(0.0, self._pause(flush) - (time.monotonic() - started)))
        finally:
            if writing is not None:
                writing.result()  # its failure goes before that of a flush that was prepared on top of it

    def _pause(self, flush: Flush | None) -> float:
        """Seconds between two flushes: more when much comes in, since bigger flushes change each row less often, most when it is spread."""
        if flush is None or flush.counted.size < BUSY_EVENTS:
            return self._flush_seconds
        return self._flush_seconds * (4 if flush.counted.changes > SPREAD_MIN * flush.counted.size else 2)

    def _line(self, name: str) -> Connection[Any]:
        line = connect(self._url, name=name)
        line.execute(SESSION)
        rollups.prepare(line)
        return line

    def _load(self, line: Connection[Any]) -> None:
        began = time.monotonic()
        loaded = self._store.load(line, (self._now() - timedelta(days=self._window_days + DEDUP_MARGIN_DAYS)).date())
        self._loaded = True
        log.info("aggregator is counting", keys=loaded, seconds=round(time.monotonic() - began, 2), epoch=self._epoch)

    def _prepare(self, line: Connection[Any]) -> Flush | None:
        """Take batches and count them in memory, in a transaction that stays open; None, and none open, when nothing waits."""
        line.execute("BEGIN")
        seed, claims = self._fence(line), self._store.claims
        limit = self._halving.next(self._batches)
        batches = flushes.take(line, limit)
        types = self._types(line)
        self._behind = len(batches) == limit
        if not batches:
            line.execute("ROLLBACK")
            return None
        received_on = instant(batches[-1].received_at).date()
        try:
            settle = limits.settling(line, seed, at=self._now())
            counted = counting.count(batches, types, seed, lambda keys: settle(keys) or self._store.claim(line, keys, received_on))
        except POISON as error:
            raise FlushFailed(batches, claims, error) from error
        self._adapt(len(batches), counted)
        return Flush(batches, counted, claims)

    def _fence(self, line: Connection[Any]) -> int:
        """Hold the epoch for this transaction, and the keys' seed; raises Superseded."""
        row = line.execute(FENCE, (self._epoch,)).fetchone()
        if row is None:
            raise Superseded(f"epoch {self._epoch} is over: another aggregator has taken over")
        return int(row[0])

    def _types(self, line: Connection[Any]) -> Mapping[int, EventType]:
        """What is counted now, by event number; metrics whose past is not counted yet are remembered for `_take_up`."""
        meters: dict[int, list[Meter]] = {}
        self._new = []
        rows: Iterable[Any] = line.cursor(row_factory=namedtuple_row).execute(METERS, prepare=True)
        for row in rows:
            if row.counted_at is None:
                self._new.append((meter(row), row.event_number))
            if row.counted_at is not None or row.counted_through is not None:
                meters.setdefault(row.event_number, []).append(meter(row))
        return {number: event_type(group[0].event_name, number, tuple(group)) for number, group in meters.items()}

    def _adapt(self, batches: int, counted: Counted) -> None:
        """Choose how many batches the next flush takes so that it has about FLUSH_EVENTS events."""
        events = sum(fate.counted + len(fate.duplicates) + len(fate.conflicts) for fate in counted.fates)
        if events:
            self._batches = min(BATCHES_MAX, max(BATCHES_MIN, FLUSH_EVENTS * batches // events))

    def _write(self, line: Connection[Any], flush: Flush) -> None:
        """Write and commit; runs in the writer's thread."""
        counted = flush.counted
        try:
            flushes.write(line, flush.batches, counted, at=self._now())
            line.execute("COMMIT")
        except POISON as error:
            line.execute("ROLLBACK")  # at once: the next flush may be waiting for a key of this one
            raise FlushFailed(flush.batches, flush.claims, error, suspect(flush, error)) from error
        done = self.progress
        done.events += counted.size
        done.duplicates += sum(len(fate.duplicates) for fate in counted.fates)
        done.conflicts += sum(len(fate.conflicts) for fate in counted.fates)
        done.batches += len(flush.batches)
        done.poisoned += len(counted.poisoned)
        done.flushes += 1
        done.lag_seconds = (micros(self._now()) - flush.batches[0].received_at) / 1e6

    def _take_up(self, line: Connection[Any]) -> None:
        """Count a step of the past of each new metric, while nothing else is being written."""
        for new, event_number in self._new:
            began = time.monotonic()
            with line.transaction():
                self._fence(line)
                done = backfill.step(line, new, event_number, self._step)
                counted_at = self._now() if done.through is None else None
                line.execute(TAKEN_UP, {"at": counted_at, "through": done.through, "id": new.id})
            self._step = backfill.next_length(self._step, time.monotonic() - began)
            if counted_at is not None:
                log.info("metric is counted from now on", metric=new.code)

    def _keep_house(self, line: Connection[Any]) -> None:
        """Make partitions ahead and forget expired keys, now and then, while nothing else is being written."""
        if time.monotonic() < self._upkeep_at:
            return
        self._upkeep_at = time.monotonic() + UPKEEP_SECONDS
        today, dedup_days = self._now().date(), self._window_days + DEDUP_MARGIN_DAYS
        made = partitions.keep_house(line, today, dedup_days=dedup_days)
        self._add_up_days(line, today)
        sweeping.sweep(line)
        self._store.forget(today - timedelta(days=dedup_days))
        if made:
            log.info("partitions were made", names=made)

    def _add_up_days(self, line: Connection[Any], today: date) -> None:
        """Add up days that hardly anything comes late for, one a transaction."""
        until = datetime.combine(today - timedelta(days=DAYS_HOURLY), datetime.min.time(), UTC)
        for _ in range(DAYS_ADDED_UP_MAX):
            with line.transaction():
                self._fence(line)
                if not daily.add_up(line, until=until):
                    return


def keep_counting(make: Callable[[], Aggregator], stopped: threading.Event, *, retry_seconds: float = 0.5) -> None:
    """Run aggregators one after the other until `stopped`: when the database goes away, wait for it and start over."""
    while not stopped.is_set():
        aggregator = make()
        watcher = threading.Thread(target=lambda aggregator=aggregator: (stopped.wait(), aggregator.stop()), daemon=True)
        watcher.start()
        try:
            aggregator.run()
        except RECOVERABLE as error:
            log.warning("counting is interrupted", error=str(error).strip())
            stopped.wait(retry_seconds)
