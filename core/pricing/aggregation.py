"""Usage events to a quantity: what each aggregation of a metric means, in plain Python. Metering computes the same in SQL."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import groupby
from typing import TypeVar

from core.periods import Period, local_date

_MICROSECOND = timedelta(microseconds=1)
K = TypeVar("K")


class Aggregation(StrEnum):
    """How events become one quantity. Without events every one is 0."""

    COUNT = "count"
    SUM = "sum"
    MAX = "max"
    MIN = "min"
    AVG = "avg"
    LATEST = "latest"
    UNIQUE_COUNT = "unique_count"


@dataclass(frozen=True, slots=True)
class Reading:
    """One event as a metric reads it: its instant, the number it carries, and for unique counts the value and whether it goes away."""

    at: datetime
    quantity: Decimal = Decimal(1)
    value: str = ""
    removed: bool = False


def aggregate(aggregation: Aggregation, readings: Sequence[Reading]) -> Decimal | Fraction:
    """The quantity of these events, given in order of arrival; an average is an exact fraction."""
    if not readings:
        return Decimal(0)
    quantities = [reading.quantity for reading in readings]
    match aggregation:
        case Aggregation.COUNT:
            return Decimal(len(readings))
        case Aggregation.SUM:
            return sum(quantities, Decimal(0))
        case Aggregation.MAX:
            return max(quantities)
        case Aggregation.MIN:
            return min(quantities)
        case Aggregation.AVG:
            return sum(map(Fraction, quantities), Fraction(0)) / len(quantities)
        case Aggregation.LATEST:
            return _in_time(readings)[-1].quantity
        case Aggregation.UNIQUE_COUNT:
            present = {reading.value: not reading.removed for reading in _in_time(readings)}
            return Decimal(sum(present.values()))


def by_key(readings: Iterable[Reading], key: Callable[[Reading], K]) -> dict[K, list[Reading]]:
    """Readings by group or bucket, in order of first appearance."""
    groups: dict[K, list[Reading]] = {}
    for reading in readings:
        groups.setdefault(key(reading), []).append(reading)
    return groups


def max_of_daily_sums(readings: Sequence[Reading], timezone: str) -> Decimal:
    """The largest sum of one local day."""
    days = by_key(readings, lambda reading: local_date(reading.at, timezone))
    return max((sum((r.quantity for r in day), Decimal(0)) for day in days.values()), default=Decimal(0))


def weighted_sum(readings: Sequence[Reading], window: Period, initial: Decimal = Decimal(0)) -> tuple[Fraction, Decimal]:
    """(time-weighted mean of a running total over the window, its closing value): each reading changes the total by its quantity.

    2500 added on 5 March counts for 27 of March's 31 days.
    """
    weighted = Fraction(initial) * window.microseconds
    for reading in readings:
        weighted += Fraction(reading.quantity) * ((window.end - reading.at) // _MICROSECOND)
    closing = initial + sum((reading.quantity for reading in readings), Decimal(0))
    return weighted / window.microseconds, closing


def unique_days(readings: Sequence[Reading], window: Period, timezone: str) -> int:
    """Local days on which each value was present, added up over the values; the days of adding and of removing count."""
    last = local_date(window.end - _MICROSECOND, timezone)
    by_value = by_key(_in_time(readings), lambda reading: reading.value)
    return sum(len(_present_days(value, last, timezone)) for value in by_value.values())


def _present_days(readings: Sequence[Reading], last: date, timezone: str) -> set[date]:
    days: set[date] = set()
    since: date | None = None
    for removed, group in groupby(readings, lambda reading: reading.removed):
        first = local_date(next(iter(group)).at, timezone)
        if not removed:
            since = first if since is None else since
        elif since is not None:
            days |= _days(since, first)
            since = None
    return days if since is None else days | _days(since, last)


def _days(first: date, last: date) -> set[date]:
    return {first + timedelta(days=n) for n in range((last - first).days + 1)}


def _in_time(readings: Sequence[Reading]) -> list[Reading]:
    """By instant; of two at the same instant the one that arrived later comes later."""
    return sorted(readings, key=lambda reading: reading.at)
