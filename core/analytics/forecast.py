"""How much will have been used by the end of a period: what was used, then the same weekday's average. Pure.

The range is what this very method missed by in the closed periods, asked at the same distance from their end. With less than a week of
data the average of all days stands in: an early estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

WINDOW_DAYS = 28
EARLY_DAYS = 7
LOW, HIGH = Decimal("0.1"), Decimal("0.9")


@dataclass(frozen=True, slots=True)
class Estimate:
    """The quantity at the end of the period: expected, and the likely range. `early`: under a week of data."""

    expected: Decimal
    low: Decimal
    high: Decimal
    early: bool


def estimate(daily: Mapping[date, Decimal], *, first: date, last: date, today: date, closed: Sequence[tuple[date, date]] = ()) -> Estimate:
    """The usage of [first, last] (local days) as seen on `today`, whose own usage is not complete; `closed` are earlier periods."""
    daily = _since_first_use(daily)
    expected = _total(daily, first, last, today)
    early = _days_known(daily, today) < EARLY_DAYS
    done = (today - first).days
    misses = sorted(miss for begin, end in closed if (miss := _miss(daily, begin, end, done)) is not None)
    if not misses:
        return Estimate(expected, expected, expected, early)
    used = sum((daily.get(first + timedelta(days=offset), Decimal(0)) for offset in range((today - first).days + 1)), Decimal(0))
    ahead = max(Decimal(0), expected - used)
    low, high = (used + ahead * _percentile(misses, share) for share in (LOW, HIGH))
    return Estimate(expected, min(low, expected), max(high, expected), early)


def day_average(daily: Mapping[date, Decimal], day: date, *, before: date) -> Decimal:
    """A day's usage by the same weekday of the WINDOW_DAYS before `before`; of all days while there is less than a week of data."""
    known = [past for past in (before - timedelta(days=back) for back in range(1, WINDOW_DAYS + 1)) if past in daily]
    same = [past for past in known if past.weekday() == day.weekday()] if len(known) >= EARLY_DAYS else known
    return sum((daily[past] for past in same), Decimal(0)) / len(same) if same else Decimal(0)


def _since_first_use(daily: Mapping[date, Decimal]) -> dict[date, Decimal]:
    """Without the empty days before the first use: they say nothing about the days to come."""
    began = min((day for day, quantity in daily.items() if quantity), default=date.max)
    return {day: quantity for day, quantity in daily.items() if day >= began}


def _total(daily: Mapping[date, Decimal], first: date, last: date, today: date) -> Decimal:
    total = Decimal(0)
    for offset in range((last - first).days + 1):
        day = first + timedelta(days=offset)
        used = daily.get(day, Decimal(0))
        total += used if day < today else max(used, day_average(daily, day, before=today))
    return total


def _miss(daily: Mapping[date, Decimal], first: date, last: date, done: int) -> Decimal | None:
    """Actual over expected for the rest of a closed period, asked after `done` of its days; None where nothing was known or expected."""
    today = min(first + timedelta(days=done), last)
    rest = [today + timedelta(days=offset) for offset in range((last - today).days + 1)]
    if _days_known(daily, today) < EARLY_DAYS:
        return None
    expected = sum((day_average(daily, day, before=today) for day in rest), Decimal(0))
    return sum((daily.get(day, Decimal(0)) for day in rest), Decimal(0)) / expected if expected > 0 else None


def _days_known(daily: Mapping[date, Decimal], today: date) -> int:
    return sum(1 for day in daily if today - timedelta(days=WINDOW_DAYS) <= day < today)


def _percentile(ordered: Sequence[Decimal], share: Decimal) -> Decimal:
    """By linear interpolation between the neighbours."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
