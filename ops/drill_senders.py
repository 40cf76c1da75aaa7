"""Clients of the drills: they send batches of usage until each was acknowledged, and remember what was."""

from __future__ import annotations

import http.client
import json
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from ops.ingest_stack import METRICS

PATH = "/api/v1/billing/usage"
ANSWER_SECONDS_MAX = 60.0
PAUSE_SECONDS = 0.05
EXPECTED = {202, 429, 503}


@dataclass(frozen=True)
class Batch:
    """A request's body and the keys in it; `total` is the sum of the quantities."""

    keys: tuple[str, ...]
    body: bytes
    total: Decimal


def batches(name: str, events: int, size: int, organizations: int) -> list[Batch]:
    """So many events in batches of that size; every key begins with `name-`, every repetition of a batch is the same bytes.

    A batch of one is sent as the object itself, so that it is stored together with others that come at the same time.
    """
    moment = datetime.now(UTC).isoformat()
    made = []
    for start in range(0, events, size):
        numbers = range(start, min(start + size, events))
        keys = tuple(f"{name}-{i:07}" for i in numbers)
        rows = [
            {
                "organization_id": f"bench-{i % organizations + 1}", "metric_name": METRICS[i % len(METRICS)], "quantity": f"{i % 7}.25",
                "timestamp": moment, "idempotency_key": key, "properties": {"region": "eu-west-1", "shard": i % 20},
            }
            for i, key in zip(numbers, keys, strict=True)
        ]  # fmt: skip
        made.append(
            Batch(
                keys,
                json.dumps(rows if size > 1 else rows[0], separators=(",", ":")).encode(),
                sum((Decimal(i % 7) + Decimal("0.25") for i in numbers), Decimal(0)),
            )
        )
    return made


def post(port: int, token: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own. Raises OSError or HTTPException when no whole answer came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX)
    try:
        given = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Connection": "close"}
        connection.request("POST", PATH, body, {**given, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@dataclass
class Senders:
    """Threads that send each batch `1 to repeats` times, each time until it is acknowledged."""

    port: int
    token: str
    work: Sequence[Batch]
    clients: int = 16
    repeats: int = 1
    seed: int = 1
    answers: Counter[Any] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to send, in a random order."""
        rng = random.Random(self.seed)
        order = [batch for batch in self.work for _ in range(rng.randint(1, self.repeats))]
        rng.shuffle(order)
        self._queue: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        for batch in order:
            self._queue.put(batch)
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()

    def running(self) -> bool:
        """Whether something is still to be sent."""
        return any(thread.is_alive() for thread in self._threads)

    def finish(self, seconds: float) -> None:
        """Wait until everything is acknowledged. Raises TimeoutError, or RuntimeError at an answer that no sender deserves."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if self.running():
            self._stopped.set()
            raise TimeoutError(f"after {seconds} s there was still something to send; answers: {dict(self.answers)}")
        strange = {status for status in self.answers if isinstance(status, int)} - EXPECTED
        if strange:
            raise RuntimeError(f"answers nobody expects: {dict(self.answers)}")

    def _send(self) -> None:
        while not self._stopped.is_set():
            try:
                batch = self._queue.get_nowait()
            except queue.Empty:
                return
            while not self._stopped.is_set():
                status = self._once(batch)
                self.answers[status] += 1
                if status == 202:
                    self.acknowledged.update(batch.keys)
                if status == 202 or status not in {*EXPECTED, "none"}:
                    break
                time.sleep(PAUSE_SECONDS)

    def _once(self, batch: Batch) -> int | str:
        try:
            return post(self.port, self.token, batch.body)[0]
        except (OSError, http.client.HTTPException):
            return "none"
