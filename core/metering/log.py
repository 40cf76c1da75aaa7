"""The log: a request's events are on disk before it is answered. One thread commits for all requests of the process.

Whatever queued up while the last commit ran is written by the next one, so the cost of a durable commit is shared without waiting
for company. Nothing is kept that was not acknowledged: when the database is away or counting has fallen too far behind, requests
are refused at once and the sender repeats them; the idempotency keys make that safe at any point.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import structlog
from psycopg import Connection, Error, InterfaceError, OperationalError

from core.errors import Unavailable
from core.metering.accept import Verdict
from core.metering.columns import pack
from core.metering.lines import STATEMENT_SECONDS_MAX, Prompt, connect
from core.metering.rejections import sent

COMMIT_BYTES_MAX = 16 * 1024 * 1024
WAITING_MAX = 1_000
APPEND_SECONDS_MAX = 15.0
PACED_BYTES, BYTES_PACE_SECONDS = 8_192, 0.02
PACED_REQUESTS, REQUESTS_PACE_SECONDS = 4, 0.008
"""When a commit stores so many bytes, or so many requests, the next begins no sooner than so many seconds later, so that more share it.
A lone sender of single events never waits."""
CHECK_SECONDS = 1.0
SESSION = f"SET synchronous_commit = on; SET statement_timeout = '{STATEMENT_SECONDS_MAX}s'; SET lock_timeout = '{STATEMENT_SECONDS_MAX}s'"
APPEND = """WITH given AS MATERIALIZED (
    SELECT nextval(pg_get_serial_sequence('usage_batches', 'id')) AS id, clock_timestamp() AS received_at, g.*
    FROM unnest(%s::int[], %s::uuid[], %s::uuid[], %s::int[], %s::int[], %b::bytea[])
      AS g(i, organization_id, api_key_id, accepted, rejected, payload)),
  logged AS (INSERT INTO usage_batches (id, received_at, organization_id, api_key_id, accepted, rejected, payload) OVERRIDING SYSTEM VALUE
    SELECT id, received_at, organization_id, api_key_id, accepted, rejected, payload FROM given),
  pending AS (INSERT INTO usage_pending (batch_id, received_at, events, organization_id)
    SELECT id, received_at, accepted, organization_id FROM given)
  SELECT i, id FROM given"""
REJECT = """INSERT INTO usage_rejections (received_at, organization_id, api_key_id, batch_id, position, code, pointer, detail, event,
    event_name, idempotency_key)
  SELECT clock_timestamp(), * FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::smallint[],
    %s::text[], %s::text[], %s::text[], %b::bytea[], %s::text[], %s::text[])"""
BACKLOG = "SELECT coalesce(sum(events), 0) FROM usage_pending"


class Pending(Protocol):
    """A verdict on its way to the disk."""

    def result(self) -> int | None:
        """The batch's id when it is durable (None when no event was accepted). Raises Unavailable."""
        ...


class UsageLog(Protocol):
    """Where accepted usage is durable before its request is answered: in this database (`Log`), or in Kafka (core.metering.kafka)."""

    def begin(self, verdict: Verdict) -> Pending:
        """Send the verdict on its way to the disk. Raises Unavailable; then nothing counts."""
        ...

    def append(self, verdict: Verdict) -> int | None:
        """Make the verdict durable and return the batch's id (None when no event was accepted). Raises Unavailable; then nothing counts."""
        ...

    def close(self) -> None:
        """Store what waits and stop."""
        ...


def open_log(database_url: str, *, backlog_max: int, now: Callable[[], datetime], url: str = "") -> UsageLog:
    """The log at `url` (kafka://…); in the database when it is empty. `now` is real time."""
    if url:
        from core.metering.kafka.log import KafkaLog

        return KafkaLog(database_url, url, now=now)
    return Log(database_url, backlog_max=backlog_max)


def overrun() -> Unavailable:
    """The refusal of a request that would wait too long."""
    return Unavailable("Too many requests are waiting to be stored; send it again.", retry_after_seconds=1)


class _Waiting:
    """A request that waits for its commit; a bare lock wakes it, which costs a tenth of a Future."""

    __slots__ = ("_error", "_id", "_open", "payload", "verdict")

    def __init__(self, verdict: Verdict, payload: bytes) -> None:
        self.verdict, self.payload = verdict, payload
        self._id: int | None = None
        self._error: Exception | None = None
        self._open = threading.Lock()
        self._open.acquire()

    def stored(self, batch_id: int | None) -> None:
        """Wake the request with its batch's id."""
        self._id = batch_id
        self._open.release()

    def failed(self, error: Exception) -> None:
        """Wake the request with what went wrong; once it was told the outcome, nothing more."""
        if self._open.locked():
            self._error = error
            self._open.release()

    def result(self) -> int | None:
        """The batch's id when it is committed. Raises Unavailable or what went wrong."""
        if not self._open.acquire(timeout=APPEND_SECONDS_MAX):
            raise overrun()
        if self._error is not None:
            raise self._error
        return self._id


class Log:
    """Appends the accepted events of judged requests, for the threads of one process."""

    def __init__(self, database_url: str, *, backlog_max: int) -> None:
        self._url, self._backlog_max = database_url, backlog_max
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._backlog = 0
        self._checked_at = 0.0
        self._down_until = 0.0
        self._paced_until = 0.0
        self._connection: Connection[Any] | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def append(self, verdict: Verdict) -> int | None:
        """Make the verdict durable and return the batch's id (None when no event was accepted). Raises Unavailable; then nothing counts."""
        return self.begin(verdict).result()

    def begin(self, verdict: Verdict) -> Pending:
        """Let the next commit store the verdict. Raises Unavailable; then nothing counts.

        A commit whose answer was lost may have happened all the same: repeating the request is right in either case.
        """
        if time.monotonic() < self._down_until:
            raise Unavailable("Usage cannot be stored right now; nothing was kept. Send it again.", retry_after_seconds=1)
        if self._backlog > self._backlog_max:
            self._start()
            raise Unavailable("Counting is behind; nothing was kept. Send it again a little later.", retry_after_seconds=5, code="backlog")
        if self._queue.qsize() >= WAITING_MAX:
            raise overrun()
        waiting = _Waiting(verdict, pack(verdict.accepted) if verdict.accepted is not None else b"")
        self._start()
        self._queue.put(waiting)
        return waiting

    def close(self) -> None:
        """Commit what waits and stop."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(APPEND_SECONDS_MAX)

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="usage-log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            group = self._next_group()
            if group is None:
                return
            self._paced_until = time.monotonic() + _pace(group)
            try:
                self._commit(group)
                self._watch_backlog()
            except (OperationalError, InterfaceError) as error:
                self._down(group, error)

    def _next_group(self) -> list[_Waiting] | None:
        """Everything that queued up, at least one request unless a second passes; None when the log is closed."""
        group: list[_Waiting] = []
        size = 0
        try:
            waiting = self._queue.get(timeout=CHECK_SECONDS)
            time.sleep(max(0.0, self._paced_until - time.monotonic()))
            while waiting is not None:
                group.append(waiting)
                size += len(waiting.payload)
                if size >= COMMIT_BYTES_MAX:
                    return group
                waiting = self._queue.get_nowait()
        except queue.Empty:
            return group
        if group:
            self._queue.put(None)
            return group
        return None

    def _commit(self, group: Sequence[_Waiting]) -> None:
        if not group:
            return
        connection = self._connect()
        try:
            ids = write(connection, [(waiting.verdict, waiting.payload) for waiting in group])
        except (OperationalError, InterfaceError):
            raise
        except Error as error:
            if len(group) > 1:
                for waiting in group:
                    self._commit([waiting])
                return
            structlog.get_logger("valueverse.usage").error("a request could not be stored", error=str(error))
            group[0].failed(error)
            return
        for waiting, batch_id in zip(group, ids, strict=True):
            waiting.stored(batch_id)

    def _connect(self) -> Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url, name="usage log", kind=Prompt)
            self._connection.execute(SESSION)
        return self._connection

    def _watch_backlog(self) -> None:
        if time.monotonic() - self._checked_at >= CHECK_SECONDS:
            row = self._connect().execute(BACKLOG).fetchone()
            self._backlog, self._checked_at = int(row[0]) if row else 0, time.monotonic()

    def _down(self, group: Sequence[_Waiting], error: Error) -> None:
        self._down_until = time.monotonic() + CHECK_SECONDS / 2
        structlog.get_logger("valueverse.usage").warning("usage cannot be stored", error=str(error).strip(), refused=len(group))
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for waiting in group:
            waiting.failed(Unavailable("Usage cannot be stored right now; send it again.", retry_after_seconds=1))


def _pace(group: Sequence[_Waiting]) -> float:
    """Seconds between the start of this commit and that of the next."""
    if sum(len(waiting.payload) for waiting in group) >= PACED_BYTES:
        return BYTES_PACE_SECONDS
    return REQUESTS_PACE_SECONDS if len(group) >= PACED_REQUESTS else 0.0


def write(connection: Connection[Any], group: Sequence[tuple[Verdict, bytes]]) -> list[int | None]:
    """Write requests and their refused events in one transaction; the batch id of each (None where nothing was accepted)."""
    if not any(verdict.refused for verdict, _ in group):
        ids = _append(connection, group)
    else:
        with connection.transaction():
            ids = _append(connection, group)
            _reject(connection, group, ids)
    return [ids.get(i) for i in range(len(group))]


def _append(connection: Connection[Any], group: Sequence[tuple[Verdict, bytes]]) -> dict[int, int]:
    rows = [
        (i, verdict.organization_id, verdict.api_key_id, len(verdict.accepted), len(verdict.refused), payload)
        for i, (verdict, payload) in enumerate(group)
        if verdict.accepted is not None
    ]
    if not rows:
        return {}
    columns = [list(column) for column in zip(*rows, strict=True)]
    return dict(connection.execute(APPEND, columns, prepare=True, binary=True).fetchall())


def _reject(connection: Connection[Any], group: Sequence[tuple[Verdict, bytes]], ids: dict[int, int]) -> None:
    rows = [
        (
            *(one.organization_id or v.organization_id, v.api_key_id, ids.get(i), one.index),
            *(one.code, one.pointer, one.detail, one.event, *sent.names(one.event)),
        )
        for i, (v, _) in enumerate(group)
        for one in v.refused
    ]
    connection.execute(REJECT, [list(column) for column in zip(*rows, strict=True)])
