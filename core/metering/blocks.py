"""Who is stopped: usage that accepting refuses because a limit or spend cap is reached. Written by core.entitlements."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.metering.instants import instant, micros

BLOCKS = """SELECT b.organization_id, m.code, b.reason, b.window_start, b.window_end FROM usage_blocks b
  LEFT JOIN metrics m ON m.id = b.metric_id"""
SENTENCES = {
    "limit_reached": "The limit on {metric} is reached; nothing more is taken {until}.",
    "spend_cap_reached": "The spend cap is reached; nothing more is taken {until}.",
}


@dataclass(frozen=True, slots=True)
class Block:
    """Usage that is refused: events that feed `metric` (None: every one) whose time is from `start` up to `end` (None: for good).

    Both are microseconds since 1970.
    """

    metric: str | None
    reason: str
    start: int
    end: int | None

    def holds(self, now: int, timestamp: int) -> bool:
        """Whether it stops an event of that time when the organization's time is `now`: an event of an earlier window is still taken."""
        return timestamp >= self.start and (self.end is None or (now < self.end and timestamp < self.end))

    @property
    def sentence(self) -> str:
        """What the sender reads."""
        until = "until the limit is raised" if self.end is None else f"before {instant(self.end):%Y-%m-%dT%H:%M:%SZ}"
        return SENTENCES[self.reason].format(metric=self.metric, until=until)


Blocks = Mapping[uuid.UUID, Sequence[Block]]


def blocks(rows: Iterable[Any]) -> Blocks:
    """Blocks by organization, from rows of BLOCKS."""
    found: dict[uuid.UUID, list[Block]] = {}
    for row in rows:
        end = None if row.window_end is None else micros(row.window_end)
        found.setdefault(row.organization_id, []).append(Block(row.code, row.reason, micros(row.window_start), end))
    return found


def stopped(holding: Sequence[Block], *, now: int, timestamp: int, fed: str) -> Block | None:
    """The block that refuses an event which feeds the metrics `fed` (a JSON list of codes); None when it may be taken."""
    for block in holding:
        if block.holds(now, timestamp) and (block.metric is None or f'"{block.metric}"' in fed):
            return block
    return None
