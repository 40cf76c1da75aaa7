"""Windows of usage to be measured, how local time cuts them, and what is said about each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from core.metering.meters import Usage

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""Before every event: what recurring metrics carry is counted from here."""


class By(StrEnum):
    """What a window is broken down by, besides groups."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    BUCKET = "bucket"
    """The metric's own bucket size; a metric without buckets has one part, the window."""
    EVENT = "event"


class Window(NamedTuple):
    """One metric's usage by one organization from `start` up to, not including, `end`.

    `by_group`: an answer for each group key of the metric instead of one for all. `by`: the answer has a part for each local minute, hour,
    day, week or month of the organization's billing timezone that has usage, for each bucket of the metric, or for each event.
    `carrying` names a property whose number each part by event carries (the price of a dynamic model). A latest value, a mean over time or
    a count of what is present goes on from what stood since `standing_from` (None: it begins anew, unless the metric is recurring).
    With `fold` the events of a window by event are not parts of the answer: they are added to a fold of its own, whatever their number.
    """

    organization_id: uuid.UUID
    metric_id: uuid.UUID
    start: datetime
    end: datetime
    by_group: bool = False
    by: By | None = None
    carrying: str | None = None
    standing_from: datetime | None = None
    fold: Folds | None = None


class Part(NamedTuple):
    """A piece of a window: its usage from `start` to `end` (an event's instant twice), `carried` as the window asked."""

    start: datetime
    end: datetime
    quantity: Decimal
    carried: Decimal | None = None


class Fold(Protocol):
    """Takes events one by one, in order of time and arrival, and keeps what it needs of them."""

    def add(self, event: Part, /) -> None:
        """The next event."""


class Folds(Protocol):
    """Makes a `Fold`; compared by value."""

    def fold(self) -> Fold:
        """A new one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The usage of a window, or of one group of it: what is billed, from how many events, in which parts.

    `pieces` is what can be added up further: the state of each bucket (of the whole window where the metric has none) by its start.
    """

    quantity: Decimal
    events: int
    parts: tuple[Part, ...] = ()
    pieces: Mapping[datetime, Usage] | None = None
    folded: Fold | None = None


def hour_floor(at: datetime) -> datetime:
    """The UTC hour `at` lies in."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hour_ceiling(at: datetime) -> datetime:
    """The first UTC hour not before `at`."""
    return -((datetime.min.replace(tzinfo=UTC) - at) // HOUR) * HOUR + datetime.min.replace(tzinfo=UTC)


def cut(start: datetime, end: datetime, granularity: str, timezone: str) -> Iterator[tuple[datetime, datetime]]:
    """[start, end) in pieces that begin at local minutes, hours, midnights, Mondays or firsts of the month; the outer ones may be short."""
    zone = ZoneInfo(timezone)
    at = start
    while at < end:
        until = min(_next(at.astimezone(zone), granularity).astimezone(UTC), end)
        yield at, until
        at = until


def _next(local: datetime, granularity: str) -> datetime:
    if granularity == By.MINUTE:
        return local.astimezone(UTC) + MINUTE - timedelta(seconds=local.second, microseconds=local.microsecond)
    if granularity == By.HOUR:
        hour = local.astimezone(UTC) + HOUR
        return hour - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if granularity == By.DAY:
        return midnight + timedelta(days=1)
    if granularity == By.WEEK:
        return midnight + timedelta(days=7 - midnight.weekday())
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
