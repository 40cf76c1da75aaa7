"""Billing periods: half-open spans of UTC instants that begin and end at midnights of the customer's time zone. Pure."""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

_MICROSECOND = timedelta(microseconds=1)
MIDNIGHT = time()
_LEAP_CYCLES = 97
"""Cycles of a month or more after which every length of month, leap days included, has come by (eight years, over a century's end)."""


class Interval(StrEnum):
    """Length of a billing cycle, before it is multiplied by a count."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    HALF_YEAR = "half_year"
    YEAR = "year"
    DAYS_30 = "30_days"


MONTHS_IN = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.HALF_YEAR: 6, Interval.YEAR: 12}
_DAYS = {Interval.DAY: 1, Interval.WEEK: 7, Interval.DAYS_30: 30}


@dataclass(frozen=True, slots=True)
class Period:
    """The instants from `start` up to, not including, `end`; both are aware and in UTC."""

    start: datetime
    end: datetime

    @property
    def microseconds(self) -> int:
        """Elapsed time, exact."""
        return (self.end - self.start) // _MICROSECOND

    @property
    def seconds(self) -> int:
        """Elapsed whole seconds."""
        return self.microseconds // 1_000_000

    def contains(self, at: datetime) -> bool:
        """Whether the instant lies in the period; the end does not."""
        return self.start <= at < self.end

    def overlap(self, other: "Period") -> "Period | None":
        """The part both periods share, or None if they share no instant."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Period(start, end) if start < end else None

    def days(self, timezone: str) -> int:
        """Local calendar days from the day of `start` up to, not including, the day of `end`."""
        return (local_date(self.end, timezone) - local_date(self.start, timezone)).days


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the cycles hang: cycle n begins at local midnight of `day` plus n times `count` intervals.

    Each boundary is worked out from `day`, never from the boundary before it, so a cycle anchored on the 31st falls on the
    last day of a short month and returns to the 31st in the next long one. `month_day` anchors on a day that the month of `day`
    does not have (the 31st, hung in February); `time` moves the boundaries off midnight.
    """

    interval: Interval
    count: int
    day: date
    timezone: str
    month_day: int | None = None
    time: time = MIDNIGHT

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("an interval count is at least 1")

    def boundary(self, n: int) -> datetime:
        """UTC instant at which cycle `n` begins; cycle 0 begins on the anchor day, earlier ones are negative."""
        return instant(add_interval(self.day, self.interval, n * self.count, self.month_day), self.timezone, self.time)

    def cycle(self, n: int) -> Period:
        """Cycle `n`."""
        return Period(self.boundary(n), self.boundary(n + 1))

    def index(self, at: datetime) -> int:
        """Number of the cycle that contains the instant."""
        day = local_date(at, self.timezone)
        if self.interval in MONTHS_IN:
            n = ((day.year - self.day.year) * 12 + day.month - self.day.month) // (MONTHS_IN[self.interval] * self.count)
        else:
            n = (day - self.day).days // (_DAYS[self.interval] * self.count)
        while self.boundary(n) > at:
            n -= 1
        while self.boundary(n + 1) <= at:
            n += 1
        return n


def calendar_anchor(interval: Interval, count: int, at: datetime, timezone: str) -> Anchor:
    """Cycles on calendar boundaries: the Monday, or first of month, quarter, half year or year, at or before the local day of `at`."""
    return Anchor(interval, count, calendar_floor(local_date(at, timezone), interval), timezone)


def anniversary_anchor(interval: Interval, count: int, at: datetime, timezone: str) -> Anchor:
    """Cycles on anniversaries of the local day of `at`."""
    return Anchor(interval, count, local_date(at, timezone), timezone)


def day_anchor(interval: Interval, count: int, at: datetime, timezone: str, month_day: int) -> Anchor:
    """Cycles of months that begin on day 1 to 31 of the month, the first of them on or after the local day of `at`.

    The anchor is hung on an earlier boundary of the same series where that is needed to name a day the first month does not have.
    """
    day, months = local_date(at, timezone), MONTHS_IN[interval] * count
    first = add_interval(calendar_floor(day, Interval.MONTH), Interval.MONTH, 0, month_day)
    if first < day:
        first = add_interval(first, Interval.MONTH, 1, month_day)
    best = first
    for n in range(1, _LEAP_CYCLES):
        if best.day == month_day or first.year * 12 - n * months < date.min.year * 12:
            break
        earlier = add_interval(first, Interval.MONTH, -n * months, month_day)
        best = earlier if earlier.day > best.day else best
    return Anchor(interval, count, best, timezone)


def aligned_anchor(interval: Interval, count: int, at: datetime, like: datetime, timezone: str) -> Anchor:
    """Cycles at the place that `like` has in its own week, month, quarter, half year or year, counted from the one that holds `at`.

    An anchor on the 14th and a start on 1 April give 14 April, then every `count` months.
    """
    local, model = at.astimezone(ZoneInfo(timezone)), like.astimezone(ZoneInfo(timezone))
    unit = calendar_floor(local.date(), interval)
    if interval in MONTHS_IN:
        months = (model.month - 1) % MONTHS_IN[interval]
        return Anchor(interval, count, add_interval(unit, Interval.MONTH, months), timezone, model.day, model.time())
    offset = model.date() - calendar_floor(model.date(), interval)
    return Anchor(interval, count, unit + offset, timezone, None, model.time())


def cycle_containing(anchor: Anchor, at: datetime) -> Period:
    """The cycle in which the instant lies."""
    return anchor.cycle(anchor.index(at))


def cycles(anchor: Anchor, start: datetime, until: datetime) -> Iterator[Period]:
    """The cycles that share an instant with [start, until), in order and without a gap."""
    n = anchor.index(start)
    begin = anchor.boundary(n)
    while begin < until:
        end = anchor.boundary(n + 1)
        if end > begin:  # a day that a zone skipped (Apia, 30 December 2011) has no instants, so no cycle
            yield Period(begin, end)
        begin, n = end, n + 1


def add_interval(day: date, interval: Interval, count: int, month_day: int | None = None) -> date:
    """`day` plus `count` intervals, in months on `month_day` (default: that of `day`); a day the month does not have becomes its last."""
    if interval in _DAYS:
        return day + timedelta(days=_DAYS[interval] * count)
    year, month = divmod(day.year * 12 + day.month - 1 + MONTHS_IN[interval] * count, 12)
    number = month_day or day.day
    return date(year, month + 1, number if number <= 28 else min(number, monthrange(year, month + 1)[1]))


def calendar_floor(day: date, interval: Interval) -> date:
    """First day of the calendar week, month, quarter, half year or year that holds `day`; for days, the day itself."""
    if interval in (Interval.DAY, Interval.DAYS_30):
        return day
    if interval is Interval.WEEK:
        return day - timedelta(days=day.weekday())
    months = MONTHS_IN[interval]
    return date(day.year, (day.month - 1) // months * months + 1, 1)


def local_date(at: datetime, timezone: str) -> date:
    """Calendar day of the instant in the time zone; `at` must be aware."""
    if at.tzinfo is None:
        raise ValueError("an instant needs its time zone")
    return at.astimezone(ZoneInfo(timezone)).date()


@lru_cache(maxsize=65536)
def instant(day: date, timezone: str, at: time = MIDNIGHT) -> datetime:
    """UTC instant of a local day and time: the first of two when clocks go back, the moment after the jump when they skip it."""
    return datetime.combine(day, at, ZoneInfo(timezone)).astimezone(UTC)


def midnight(day: date, timezone: str) -> datetime:
    """UTC instant at which the local day begins."""
    return instant(day, timezone)
