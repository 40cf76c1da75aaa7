"""Takes the log from Kafka into the database, from where it is counted: `usage_batches`, `usage_pending`, refused events and the offset
of the partition in one transaction. So a message is taken once, whatever is killed; Kafka's own offsets are not used.

A partition is taken by one relay at a time (advisory lock). The offset's row decides all the same: what another has taken is passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from threading import Event
from typing import Any

import msgspec
import structlog
from psycopg import Connection, InterfaceError, OperationalError

from core.metering.kafka.message import BYTES_MAX, Message, address, client, decode
from core.metering.lines import connect
from core.metering.rejections import sent

log = structlog.get_logger("valueverse.relay")

LOCK = 7_720_003
MESSAGES_MAX = 500
WAIT_SECONDS = 0.1
RETRY_SECONDS = 0.5
ASK_SECONDS, ASK_EVERY_SECONDS = 2.0, 1.0
SESSION = "SET TIME ZONE 'UTC'; SET synchronous_commit = on"
LATEST = """SELECT next_offset FROM usage_log_offsets WHERE topic = %s AND partition = %s FOR UPDATE"""
ROW = """INSERT INTO usage_log_offsets (topic, partition, caught_up_at) VALUES (%s, %s, '-infinity') ON CONFLICT DO NOTHING"""
TAKEN = "UPDATE usage_log_offsets SET next_offset = %s WHERE topic = %s AND partition = %s"
CAUGHT_UP = "UPDATE usage_log_offsets SET caught_up_at = greatest(caught_up_at, %s) WHERE topic = %s AND partition = ANY(%s)"
RETIRED = "UPDATE usage_log_offsets SET retired_at = clock_timestamp() WHERE topic = %s"
APPEND = """WITH given AS MATERIALIZED (SELECT * FROM unnest(%s::bigint[], %s::timestamptz[], %s::uuid[], %s::uuid[], %s::int[], %s::int[],
    %b::bytea[]) AS g(id, received_at, organization_id, api_key_id, accepted, rejected, payload)),
  logged AS (INSERT INTO usage_batches (id, received_at, organization_id, api_key_id, accepted, rejected, payload) OVERRIDING SYSTEM VALUE
    SELECT * FROM given)
  INSERT INTO usage_pending (batch_id, received_at, events, organization_id) SELECT id, received_at, accepted, organization_id FROM given"""
REJECT = """INSERT INTO usage_rejections (received_at, organization_id, api_key_id, batch_id, position, code, pointer, detail,
    event, event_name, idempotency_key)
  SELECT * FROM unnest(%s::timestamptz[], %s::uuid[], %s::uuid[], %s::bigint[], %s::smallint[], %s::text[], %s::text[], %s::text[],
    %b::bytea[], %s::text[], %s::text[])"""
UNREADABLE = """WITH kept AS (INSERT INTO usage_batches (received_at, accepted, rejected, payload) VALUES (%s, 0, 0, %s)
    RETURNING id, received_at)
  INSERT INTO usage_quarantine (batch_id, received_at, error) SELECT id, received_at, %s FROM kept"""


class Relay:
    """Takes the partitions given, or all, until stopped. Raises psycopg's OperationalError when the database goes away."""

    def __init__(self, database_url: str, url: str, *, now: Callable[[], datetime], partitions: Collection[int] = ()) -> None:
        self._database_url, self._url, self._now, self._wanted = database_url, url, now, frozenset(partitions)
        self._topic = address(url)[1]
        self._next: dict[int, int] = {}
        self._ask_at = 0.0
        self.taken = 0

    def run(self, stopped: Event) -> None:
        """Take messages until `stopped`."""
        from confluent_kafka import Consumer

        consumer = Consumer(self._client())
        try:
            with connect(self._database_url, name="usage relay") as connection:
                connection.execute(SESSION)
                while not stopped.is_set():
                    self._assign(connection, consumer)
                    if not self._next:
                        stopped.wait(RETRY_SECONDS)
                        continue
                    self.step(connection, consumer)
        finally:
            consumer.close()

    def step(self, connection: Connection[Any], consumer: Any) -> None:
        """Take what is there, and note how far everything is taken."""
        began = self._now()
        found: dict[int, list[Any]] = {}
        for one in consumer.consume(MESSAGES_MAX, timeout=WAIT_SECONDS):
            if one.error() is not None:
                log.warning("the log answered with an error", error=str(one.error()))
                continue
            found.setdefault(one.partition(), []).append(one)
        with connection.transaction():
            for partition, messages in sorted(found.items()):
                self._take(connection, partition, messages)
        if time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + ASK_EVERY_SECONDS
            connection.execute(CAUGHT_UP, (began, self._topic, self._through(consumer)))

    def retire(self) -> None:
        """Say that the log is in the database again; call it when nothing is written to Kafka any more and everything is taken."""
        with connect(self._database_url, name="usage relay") as connection:
            connection.execute(RETIRED, (self._topic,))

    def _client(self) -> dict[str, Any]:
        given = {"group.id": "valueverse-usage", "enable.auto.commit": False, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 50}
        return client(self._url, **given, **{"fetch.message.max.bytes": BYTES_MAX})

    def _assign(self, connection: Connection[Any], consumer: Any) -> None:
        """Take over every wanted partition that nobody takes, from where the database says."""
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition

        there = set(consumer.list_topics(self._topic, timeout=10).topics[self._topic].partitions) if not self._next else set(self._next)
        for partition in sorted(((there & self._wanted) if self._wanted else there) - self._next.keys()):
            if connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCK, partition)).fetchone() != (True,):
                continue
            connection.execute(ROW, (self._topic, partition))
            row = connection.execute(LATEST, (self._topic, partition)).fetchone()
            self._next[partition] = row[0] if row and row[0] is not None else OFFSET_BEGINNING
        if self._next and not consumer.assignment():
            consumer.assign([TopicPartition(self._topic, partition, offset) for partition, offset in self._next.items()])

    def _take(self, connection: Connection[Any], partition: int, messages: Sequence[Any]) -> None:
        row = connection.execute(LATEST, (self._topic, partition)).fetchone()
        following = row[0] if row and row[0] is not None else messages[0].offset()
        fresh = [one for one in messages if one.offset() >= following]
        if not fresh:
            return
        if fresh[0].offset() > following:
            log.error("the log has a hole: messages were deleted before they were taken", partition=partition, missing_from=following)
        good: list[Message] = []
        for one in fresh:
            try:
                good.append(decode(one.value()))
            except (ValueError, msgspec.DecodeError) as error:
                where = f"partition {partition}, offset {one.offset()}: {error}"
                log.error("a message cannot be read", where=where)
                connection.execute(UNREADABLE, (self._now(), one.value(), where))
        _write(connection, good)
        self._next[partition] = fresh[-1].offset() + 1
        connection.execute(TAKEN, (self._next[partition], self._topic, partition))
        self.taken += len(fresh)

    def _through(self, consumer: Any) -> list[int]:
        """Partitions that had nothing behind what is taken when their brokers were asked, just now."""
        from confluent_kafka import KafkaException, TopicPartition

        found = []
        for partition, following in self._next.items():
            try:
                ends = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=ASK_SECONDS, cached=False)
            except KafkaException as error:
                log.warning("the log does not say where it ends", error=str(error))
                continue
            if ends is not None and max(following, ends[0]) >= ends[1]:
                found.append(partition)
        return found


def _write(connection: Connection[Any], messages: Sequence[Message]) -> None:
    batches = [
        (one.id, one.received_at, one.organization_id, one.api_key_id, one.accepted, len(one.refused), one.payload)
        for one in messages
        if one.accepted
    ]
    if batches:
        connection.execute(APPEND, [list(column) for column in zip(*batches, strict=True)])
    refused = [
        (
            *(message.received_at, one.organization_id or message.organization_id, message.api_key_id),
            *(message.id if message.accepted else None, one.index, one.code, one.pointer, one.detail, one.event, *sent.names(one.event)),
        )
        for message in messages
        for one in message.refused
    ]
    if refused:
        connection.execute(REJECT, [list(column) for column in zip(*refused, strict=True)])


def keep_relaying(relay: Any, stopped: Event) -> None:
    """Run relays made by `relay()` one after the other until `stopped`: when the database goes away, wait for it and start over."""
    while not stopped.is_set():
        try:
            relay().run(stopped)
        except (OperationalError, InterfaceError) as error:
            log.warning("taking the log is interrupted", error=str(error).strip())
            time.sleep(RETRY_SECONDS)
