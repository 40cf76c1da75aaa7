"""The demo's usage: events as a customer's program would have sent them, in the shape of working weeks, through the log."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from core import clock
from core.config import Settings
from core.db import transaction
from core.metering import accept, aggregate
from core.metering import queries as metering
from core.metering.bodies import Form
from core.metering.careful import Window
from core.metering.dedup import SegmentStore
from core.metering.directory import Directory, Principal
from core.metering.log import Log
from ops.demo_data import EVENT, PROJECTS, Customer

SEED = 20261122
HOURS = (7, 9, 11, 14, 16, 20)
COUNTED_SECONDS_MAX = 120


@dataclass(slots=True)
class Account:
    """A customer as it was created."""

    customer: Customer
    id: uuid.UUID
    began: datetime
    subscription_id: uuid.UUID | None = None
    key: Principal | None = None


class Meter:
    """Posts usage as a customer's program would have, on the days it happened, and waits until it is counted."""

    def __init__(self, settings: Settings) -> None:
        self._directory = Directory(settings.database_url)
        self._log = Log(settings.database_url, backlog_max=settings.usage_backlog_events_max)
        self._window = Window(timedelta(days=70), timedelta(minutes=5), 10_000)
        flush = float(settings.usage_flush_seconds)
        self._aggregator = aggregate.Aggregator(
            settings.database_url, SegmentStore(), flush_seconds=flush, window_days=settings.usage_window_past_days, now=clock.now
        )
        self._thread = threading.Thread(target=self._aggregator.run, name="demo-aggregator", daemon=True)
        self._thread.start()

    def post(self, key: Principal, events: Sequence[dict[str, Any]], *, at: datetime) -> None:
        """Accept the events as of `at`, in requests of at most 10,000."""
        for start in range(0, len(events), 10_000):
            body = json.dumps(events[start : start + 10_000]).encode()
            self._log.append(accept.judge(self._directory, key, body, Form.JSON, window=self._window, at=at))

    def settle(self) -> None:
        """Wait until everything accepted so far is in the sums."""
        accepted_before, end = datetime.now(UTC), time.monotonic() + COUNTED_SECONDS_MAX
        while time.monotonic() < end and self._thread.is_alive():
            with transaction() as session:
                if not metering.pending_before(session, accepted_before):
                    return
            time.sleep(0.05)
        raise RuntimeError("the demo's usage was not counted in time")

    def close(self) -> None:
        """Count what waits and stop."""
        self.settle()
        self._log.close()
        self._aggregator.stop()
        self._thread.join(COUNTED_SECONDS_MAX)


def use(meter: Meter, account: Account, begins: datetime, ends: datetime, now: datetime) -> None:
    """The month's usage: working weeks, slow growth, and whatever the customer's traits make of the last weeks."""
    events = [event for day in _days(begins, ends) for event in _day(account, day, begins, ends, now)]
    if "late" in account.customer.traits and ends < now:
        late = begins - timedelta(hours=6)
        events.append(_event(account, late, "assistant-prod", 1_800_000, f"late-{begins:%Y-%m}"))
    if events and account.key is not None:
        meter.post(account.key, events, at=ends)


def _day(account: Account, day: datetime, begins: datetime, ends: datetime, now: datetime) -> Iterator[dict[str, Any]]:
    chance = random.Random(f"{SEED}{account.customer.slug}{day:%Y-%m-%d}")
    size = account.customer.daily * (0.4 if day.weekday() >= 5 else 1.0) * (1 + (day - now).days / 900) * chance.uniform(0.82, 1.18)
    size *= _trait(account.customer, (now - day).days)
    for hour in HOURS:
        at = day + timedelta(hours=hour, minutes=chance.randrange(60), seconds=chance.randrange(60))
        if begins <= at < ends:
            for project, share in PROJECTS:
                yield _event(account, at, project, int(size * float(share) / len(HOURS)), f"{day:%Y%m%d}-{hour}-{project}")


def _trait(customer: Customer, days_ago: int) -> float:
    """What the last month of the customers under review does to a day's usage."""
    if days_ago > 31:
        return 1.0
    return {"spike": 3.1, "growth": 1.7, "silent": 0.0, "drop": 0.3}.get(next(iter(customer.traits), ""), 1.0)


def _event(account: Account, at: datetime, project: str, output: int, key: str) -> dict[str, Any]:
    return {
        "event_name": EVENT,
        "timestamp": at.isoformat(),
        "idempotency_key": f"{account.customer.slug}-{key}",
        "properties": {"output_tokens": output, "input_tokens": output * 3, "requests": max(output // 240, 0), "project": project},
    }


def misspell(meter: Meter, account: Account, now: datetime) -> None:
    """Events of a program that misspells the event's name: refused, kept, shown."""
    wrong = [
        {**_event(account, now - timedelta(minutes=7 * i), "doc-import", 900, f"wrong-{i}"), "event_name": "llm.usages"}
        for i in range(1, 121)
    ]
    if account.key is not None:
        meter.post(account.key, wrong, at=now)


def _days(begins: datetime, ends: datetime) -> Iterator[datetime]:
    day = begins.replace(hour=0, minute=0, second=0, microsecond=0)
    while day < ends:
        yield day
        day += timedelta(days=1)
