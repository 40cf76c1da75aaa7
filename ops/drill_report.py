"""What a drill found, and the judgement all of them share: key by key, what was acknowledged against what is stored and summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg

from ops.drill_senders import Batch
from ops.drill_site import Site


@dataclass
class Report:
    """What a drill saw: `faults` are broken promises, `slow` are missed bounds on time."""

    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)

    def check(self, holds: bool, fault: str) -> None:
        """Note the fault unless it holds."""
        if not holds:
            self.faults.append(fault)


@dataclass(frozen=True)
class Size:
    """How much a drill does: 1 is the size its promise is stated for."""

    scale: float = 1.0

    def of(self, full: int, least: int) -> int:
        """That part of `full`, at least `least`."""
        return max(least, round(full * self.scale))

    @property
    def seconds_max(self) -> float:
        """How long anything a drill waits for may take: an hour, five minutes of the smallest."""
        return max(300.0, 3600 * self.scale)


def judge(where: Site, size: Size, name: str, work: Sequence[Batch], acknowledged: set[str]) -> Report:
    """Compare what is stored and what is summed with what was sent and acknowledged, key by key."""
    where.drain(size.seconds_max)
    with psycopg.connect(where.cluster.url()) as connection:
        found = connection.execute(
            "SELECT idempotency_key, quantity FROM usage_events WHERE idempotency_key LIKE %s", (f"{name}-%",)
        ).fetchall()
        events = connection.execute("SELECT count(*), coalesce(sum(quantity), 0) FROM usage_events").fetchone()
        sums = connection.execute("SELECT coalesce(sum(events), 0), coalesce(sum(quantity), 0) FROM usage_rollups").fetchone()
    keys = {key for key, _ in found}
    report = Report({"events": sum(len(batch.keys) for batch in work), "acknowledged": len(acknowledged)})
    report.figures |= {"lost": len(acknowledged - keys), "doubled": len(found) - len(keys)}
    report.check(acknowledged <= keys, "acknowledged events are missing")
    report.check(len(found) == len(keys), "events were counted twice")
    report.check(events == sums, f"events and hourly sums differ: {events}, {sums}")
    if len(acknowledged) == report.figures["events"]:
        total = sum((batch.total for batch in work), Decimal(0))
        report.check(sum((quantity for _, quantity in found), Decimal(0)) == total, f"the quantities do not add up to {total}")
    return report
