"""The customer's calendar, worked out as plainly as can be: local days are found by search, cycles counted from the day they hang on.

It shares nothing with the product's calendar.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cache, lru_cache
from zoneinfo import ZoneInfo

MONTHS = {"month": 1, "quarter": 3, "half_year": 6, "year": 12}
DAYS = {"day": 1, "week": 7}
TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Hang:
    """Cycles of `count` intervals, one of which begins on `day`."""

    interval: str
    count: int
    day: date


def part_of(a: datetime, b: datetime, begin: datetime, over: datetime, days: str, timezone: str) -> Fraction:
    """The share of the cycle [begin, over) that [a, b) is; any part is the whole where nothing is prorated."""
    if days == "none":
        return Fraction(1)
    if days == "seconds":
        return Fraction((b - a) // TICK, (over - begin) // TICK)
    first, last, zero, end = (local_day(instant, timezone).toordinal() for instant in (a, b, begin, over))
    return Fraction(last - first, end - zero)


def begins_interval(day: date, interval: str) -> bool:
    """Whether a calendar week, month, quarter … begins on the day."""
    if interval == "week":
        return day.isoweekday() == 1
    if interval in DAYS:
        return True
    return day.day == 1 and (day.month - 1) % MONTHS[interval] == 0


def fits(own: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether a whole number of one cycle makes the other."""
    for lengths in (MONTHS, DAYS):
        if own[0] in lengths and other[0] in lengths:
            a, b = lengths[own[0]] * own[1], lengths[other[0]] * other[1]
            return a % b == 0 or b % a == 0
    return False


def cycles(hang: Hang, timezone: str, first: datetime, last: datetime) -> Iterator[tuple[datetime, datetime]]:
    """From the cycle that holds `first` to the one that holds `last`."""
    n = number(hang, timezone, first)
    while boundary(hang, timezone, n) <= last:
        yield boundary(hang, timezone, n), boundary(hang, timezone, n + 1)
        n += 1


@lru_cache(maxsize=100_000)
def number(hang: Hang, timezone: str, at: datetime) -> int:
    """Which cycle holds the instant, counted from the one that begins on the day it hangs on."""
    n = 0
    while boundary(hang, timezone, n) > at:
        n -= 1
    while boundary(hang, timezone, n + 1) <= at:
        n += 1
    return n


@cache
def boundary(hang: Hang, timezone: str, n: int) -> datetime:
    """Where cycle `n` begins."""
    if hang.interval in DAYS:
        return midnight(hang.day + timedelta(days=n * hang.count * DAYS[hang.interval]), timezone)
    year, month = divmod(hang.day.year * 12 + hang.day.month - 1 + n * hang.count * MONTHS[hang.interval], 12)
    for day in range(hang.day.day, 0, -1):
        try:
            return midnight(date(year, month + 1, day), timezone)
        except ValueError:
            continue  # the month is shorter
    raise AssertionError("every month has a first")


@lru_cache(maxsize=100_000)
def local_day(at: datetime, timezone: str) -> date:
    """The day a calendar on the customer's wall shows."""
    return at.astimezone(ZoneInfo(timezone)).date()


@cache
def midnight(day: date, timezone: str) -> datetime:
    """The first instant at which the wall shows the day, found by halving."""
    low = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=30)
    high = low + timedelta(hours=60)
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if local_day(middle, timezone) >= day:
            high = middle
        else:
            low = middle
    return high
