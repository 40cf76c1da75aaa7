"""The log of usage in Kafka: a request is answered once all in-sync replicas have it (`acks=all`, idempotent producer).

Requests of one organization go to one partition, in their order. Batch ids are taken from the database's own sequence, in blocks ahead, so
that they are the ids of the log in the database and a short absence of the database refuses nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from typing import Any

import structlog
from psycopg import Error

from core.errors import Unavailable
from core.metering.accept import Verdict
from core.metering.columns import pack
from core.metering.kafka.message import BYTES_MAX, address, client, encode
from core.metering.lines import connect
from core.metering.log import Pending

BLOCK = 2_000
DELIVERY_SECONDS = 10
POLL_SECONDS = 0.1
QUEUE_BYTES_KIB = 256 * 1024
CONNECT_SECONDS, PAUSE_SECONDS = 2.0, 1.0
IDS = "SELECT nextval(pg_get_serial_sequence('usage_batches', 'id')) FROM generate_series(1, %s)"
KNOWN = """INSERT INTO usage_log_offsets (topic, partition, caught_up_at) SELECT %s, unnest(%s::int[]), clock_timestamp()
  ON CONFLICT (topic, partition) DO UPDATE SET retired_at = NULL,
    caught_up_at = CASE WHEN usage_log_offsets.retired_at IS NULL THEN usage_log_offsets.caught_up_at ELSE excluded.caught_up_at END"""


class KafkaLog:
    """Appends the accepted events of judged requests, for the threads of one process; started by the first."""

    def __init__(self, database_url: str, url: str, *, now: Callable[[], datetime], settings: dict[str, Any] | None = None) -> None:
        self._database_url, self._url, self._settings, self._now = database_url, url, settings or {}, now
        self._topic = address(url)[1]
        self._ids: list[int] = []
        self._down_until = 0.0
        self._lock = threading.Lock()
        self._producer: Any = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def append(self, verdict: Verdict) -> int | None:
        """As log.Log.append: durable when it returns. Raises Unavailable; a message that was on its way may count all the same."""
        return self.begin(verdict).result()

    def begin(self, verdict: Verdict) -> Pending:
        """Hand the verdict to the producer. Raises Unavailable."""
        payload = pack(verdict.accepted) if verdict.accepted is not None else b""
        batch_id = self._next_id()
        raw = encode(verdict, payload, batch_id=batch_id, at=self._now())
        delivered: Future[None] = Future()
        self._send(raw, (verdict.organization_id or verdict.api_key_id).bytes, delivered)
        return _Delivery(batch_id if verdict.accepted is not None else None, delivered)

    def close(self) -> None:
        """Deliver what waits and stop."""
        if self._producer is not None:
            self._producer.flush(DELIVERY_SECONDS)
            self._stopped.set()
            if self._thread is not None:
                self._thread.join()
            self._producer = None

    def _send(self, raw: bytes, key: bytes, delivered: Future[None]) -> None:
        from confluent_kafka import KafkaException

        def done(error: Any, _message: Any) -> None:
            if error is None:
                delivered.set_result(None)
            else:
                delivered.set_exception(_refusal(str(error)))

        try:
            self._producer.produce(self._topic, value=raw, key=key, on_delivery=done)
        except (BufferError, KafkaException) as error:
            raise _refusal(str(error)) from error

    def _next_id(self) -> int:
        with self._lock:
            if self._producer is None:
                self._start()
            if len(self._ids) <= BLOCK // 2:
                self._reserve()
            return self._ids.pop()

    def _reserve(self) -> None:
        """Take ids ahead; without the database the ones left are used first."""
        try:
            with connect(self._database_url, name="usage log ids") as connection:
                self._ids = [row[0] for row in reversed(connection.execute(IDS, (BLOCK,)).fetchall())] + self._ids
        except Error as error:
            if not self._ids:
                raise _refusal(str(error).strip()) from error

    def _start(self) -> None:
        """Connect, and write down which partitions there are: from now on they must be taken. A failure is not repeated for a second."""
        from confluent_kafka import KafkaException, Producer

        if time.monotonic() < self._down_until:
            raise _refusal("the brokers did not answer a moment ago")
        self._down_until = time.monotonic() + CONNECT_SECONDS + PAUSE_SECONDS
        given = {"acks": "all", "enable.idempotence": True, "linger.ms": 2, "delivery.timeout.ms": DELIVERY_SECONDS * 1000}
        given |= {"message.max.bytes": BYTES_MAX, "queue.buffering.max.kbytes": QUEUE_BYTES_KIB, **self._settings}
        producer = Producer(client(self._url, **given))
        try:
            partitions = sorted(producer.list_topics(self._topic, timeout=CONNECT_SECONDS).topics[self._topic].partitions)
            if not partitions:
                raise _refusal(f"there is no topic {self._topic}")
            with connect(self._database_url, name="usage log offsets") as connection:
                connection.execute(KNOWN, (self._topic, partitions))
        except (KafkaException, Error) as error:
            raise _refusal(str(error).strip()) from error
        self._producer = producer
        self._thread = threading.Thread(target=self._poll, name="usage-log-kafka", daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        while not self._stopped.is_set():
            self._producer.poll(POLL_SECONDS)


class _Delivery:
    """A message on its way to the brokers."""

    def __init__(self, batch_id: int | None, delivered: Future[None]) -> None:
        self._batch_id, self._delivered = batch_id, delivered

    def result(self) -> int | None:
        """The batch's id when all replicas have it. Raises Unavailable."""
        try:
            self._delivered.result(DELIVERY_SECONDS + 1)
        except TimeoutError as error:
            raise _refusal("the brokers did not answer") from error
        return self._batch_id


def _refusal(why: str) -> Unavailable:
    structlog.get_logger("valueverse.usage").warning("usage cannot be stored", error=why)
    return Unavailable("Usage cannot be stored right now; send it again.", retry_after_seconds=1)
