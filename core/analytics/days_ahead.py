"""What is still expected of a period, spread over its days: each by its weekday's weight, together exactly the rest. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from core.analytics.forecast import day_average
from core.money import allocate


@dataclass(frozen=True, slots=True)
class Day:
    """What a day still adds, minor units: expected and the likely range. Today's comes on top of what it has already."""

    day: date
    minor: int
    low_minor: int
    high_minor: int


def days_ahead(spent: Mapping[date, int], *, today: date, last: date, minor: int, low_minor: int, high_minor: int) -> tuple[Day, ...]:
    """The amounts still to come, spread over `today` to `last` by the days `spent` so far (minor units by local day, today's included)."""
    daily = {day: Decimal(amount) for day, amount in spent.items()}
    days = [today + timedelta(days=offset) for offset in range((last - today).days + 1)]
    weights = [day_average(daily, day, before=today) for day in days]
    weights[0] = max(Decimal(0), weights[0] - daily.get(today, Decimal(0)))
    if sum(weights) <= 0:
        weights = [Decimal(1)] * len(days)
    shares = [allocate(max(0, amount), weights) for amount in (minor, low_minor, high_minor)]
    return tuple(Day(day, *amounts) for day, *amounts in zip(days, *shares, strict=True))
