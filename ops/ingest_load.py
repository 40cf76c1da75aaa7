"""The load generator of `make bench-ingest`: `python -m ops.ingest_load PLAN.json`, a process of its own, one event loop.

Bodies are rendered once with marks for the batch's number and time, so that making an event costs next to nothing. Prints one JSON
object: what was acknowledged, and how long answers took.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

NUMBER, MOMENT = b"#number#", b"#moment##moment##m#"
MARKS = re.compile(b"(%s|%s)" % (NUMBER, MOMENT))
TEMPLATES = 32


@dataclass(frozen=True)
class Template:
    """A rendered batch, cut at its marks. `unique` events count, with `total` as the sum of their quantities; the others repeat one."""

    parts: list[bytes]
    events: int
    unique: int
    total: Decimal

    def body(self, number: bytes, moment: bytes) -> bytes:
        """The batch of that number and time; in each event the time comes first."""
        self.parts[1::4], self.parts[3::4] = [moment] * self.events, [number] * self.events
        return b"".join(self.parts)


@dataclass
class Outcome:
    """What happened so far; `latencies` in seconds."""

    sent_events: int = 0
    unique: int = 0
    total: Decimal = Decimal(0)
    requests: int = 0
    failures: int = 0
    latencies: list[float] = field(default_factory=list)


def template(rng: random.Random, organizations: list[str], metrics: list[str], size: int, duplicates: float) -> Template:
    """A batch of `size` events over random organizations and metrics, a share of them repeats within the batch."""
    rows: list[str] = []
    total, unique = Decimal(0), 0
    for i in range(size):
        if rows and rng.random() < duplicates:
            rows.append(rng.choice(rows))
            continue
        quantity = Decimal(rng.randrange(1, 100_000)).scaleb(-3)
        rows.append(
            f'{{"organization_id":"{rng.choice(organizations)}","metric_name":"{rng.choice(metrics)}","quantity":{quantity},'
            f'"timestamp":"{MOMENT.decode()}.{rng.randrange(1000):03}Z","idempotency_key":"evt-{NUMBER.decode()}-{i:05}-{rng.randrange(16**6):06x}",'
            f'"properties":{{"region":"eu-west-1","model":"m-{rng.randrange(20)}","status":"200"}}}}'
        )
        total, unique = total + quantity, unique + 1
    body = rows[0] if size == 1 else f"[{','.join(rows)}]"
    return Template(MARKS.split(body.encode()), size, unique, total)


class Sender(asyncio.Protocol):
    """One connection: sends a request, reads its answer, sends the next."""

    def __init__(
        self, requests: Iterator[tuple[float, bytes, Template | None]], outcome: Outcome, head: bytes, done: asyncio.Future[None]
    ) -> None:
        self._requests, self._outcome, self._head, self._done = requests, outcome, head, done
        self._buffer = b""
        self._expected = 0
        self._sent_at = 0.0
        self._current: Template | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        found = next(self._requests, None)
        if found is None:
            self._transport.close()
            return
        due, body, self._current = found
        delay = due - time.monotonic()
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, self._send, body)
        else:
            self._send(body)

    def _send(self, body: bytes) -> None:
        self._sent_at = time.monotonic()
        self._transport.writelines([self._head, b"%d\r\n\r\n" % len(body), body])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._expected:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            place = head.find(b"content-length:")
            length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            self._expected = end + 4 + length
        if len(self._buffer) >= self._expected:
            self._answered(self._buffer[9:12])
            self._buffer, self._expected = b"", 0
            self._next()

    def _answered(self, status: bytes) -> None:
        outcome, sent = self._outcome, self._current
        outcome.requests += 1
        outcome.latencies.append(time.monotonic() - self._sent_at)
        if status not in (b"202", b"204"):
            outcome.failures += 1
        elif sent is not None:
            outcome.sent_events += sent.events
            outcome.unique += sent.unique
            outcome.total += sent.total

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


def schedule(plan: dict[str, Any]) -> Iterator[tuple[float, bytes, Template | None]]:
    """When to send what, until the time is over. A repeated batch counts no events."""
    rng = random.Random(plan["seed"])
    made = [template(rng, plan["organizations"], plan["metrics"], plan["batch"], plan["duplicates"]) for _ in range(TEMPLATES)]
    print("ready", file=sys.stderr, flush=True)
    began, number, batches = time.monotonic(), 0, 0
    last: tuple[bytes, Template] | None = None
    while time.monotonic() - began < plan["seconds"]:
        due = began + batches * plan["batch"] / plan["rate"] if plan["rate"] else 0.0
        batches += 1
        if last is not None and rng.random() < plan["retries"]:
            yield due, last[0], Template([], last[1].events, 0, Decimal(0))
            continue
        chosen = made[number % TEMPLATES]
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        body = chosen.body(b"%d%07x" % (plan["seed"] % 10, number), moment)
        last = (body, chosen)
        number += 1
        yield due, body, chosen


async def run(plan: dict[str, Any]) -> Outcome:
    """Send by the plan over its connections."""
    outcome = Outcome()
    requests = schedule(plan)
    head = (
        f"POST {plan['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {plan['token']}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    loop = asyncio.get_running_loop()
    waiting = []
    for _ in range(plan["connections"]):
        done: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(lambda done=done: Sender(requests, outcome, head, done), "127.0.0.1", plan["port"])  # type: ignore[misc]
        waiting.append(done)
    await asyncio.gather(*waiting)
    return outcome


def main(argv: list[str]) -> int:
    """Carry out the plan and say what happened."""
    plan = json.loads(Path(argv[0]).read_text())
    began, cpu = time.monotonic(), time.process_time()
    outcome = asyncio.run(run(plan))
    latencies = sorted(outcome.latencies) or [0.0]
    print(
        json.dumps(
            {
                "events": outcome.sent_events,
                "unique": outcome.unique,
                "total": str(outcome.total),
                "requests": outcome.requests,
                "failures": outcome.failures,
                "seconds": time.monotonic() - began,
                "cpu": time.process_time() - cpu,
                "p50": latencies[len(latencies) // 2],
                "p99": latencies[len(latencies) * 99 // 100],
            }
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
