"""Where the running period's spend will end. Pure.

Usage ahead is the average of the same weekday in the last four weeks, put through the line's own price, so that tiers already used up
count; recurring prices are exact. The range is what the same method missed by on past stretches of the same length (10th to 90th
percentile). With less than a week of usage the average of all days stands in and there is no range: an early estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, localcontext

from core.money import EXACT, round_half_up
from core.pricing.price import price
from core.pricing.rules import PriceModel

BACK_DAYS = 28
EARLY_DAYS = 7
STRETCHES_MIN = 5
ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class UsageLine:
    """A usage line of the running period: its price, what was used so far, and the days behind it (local days, complete ones).

    `adds_up` is false for maxima, latest values and unique counts: they are taken to stay as they are.
    """

    model: PriceModel
    so_far: Decimal
    today: Decimal
    history: Mapping[date, Decimal]
    adds_up: bool = True


@dataclass(frozen=True, slots=True)
class Day:
    """What a day ahead is expected to add, minor units; today's is the whole day."""

    day: date
    minor: int
    low_minor: int
    high_minor: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """Spend at the period's end in minor units, before tax; `low_minor` and `high_minor` are None for an early estimate."""

    minor: int
    low_minor: int | None
    high_minor: int | None
    days: tuple[Day, ...]

    @property
    def early(self) -> bool:
        """Whether there is too little usage behind it for a range."""
        return self.low_minor is None


def forecast(lines: Sequence[UsageLine], *, fixed_minor: int, today: date, last: date, currency: str) -> Forecast:
    """Spend by the end of the local day `last`: `fixed_minor` of recurring prices and the usage lines with the days still to come."""
    ahead = [today + timedelta(days=n) for n in range((last - today).days + 1)]
    low, high = _range(lines, today, max(1, len(ahead)))
    known = low is not None and high is not None
    scales = (ONE, low if low is not None else ONE, high if high is not None else ONE)
    paths = [_path(lines, ahead, today, scale, currency) for scale in scales]
    ends = [
        fixed_minor + sum(path[-1] if path else start for path, start in zip(one, _starts(lines, currency), strict=True)) for one in paths
    ]
    days = tuple(_day(day, index, paths, lines, currency) for index, day in enumerate(ahead))
    return Forecast(ends[0], min(ends[1], ends[0]) if known else None, max(ends[2], ends[0]) if known else None, days)


def expected(history: Mapping[date, Decimal], day: date, *, before: date) -> Decimal:
    """A day's usage by the same weekday of the four weeks before `before`; the average of all days where that weekday is missing."""
    recent = {past: value for past, value in history.items() if before - timedelta(days=BACK_DAYS) <= past < before}
    if not recent:
        return Decimal(0)
    same = [value for past, value in recent.items() if past.weekday() == day.weekday()] if len(recent) >= EARLY_DAYS else []
    values = same or list(recent.values())
    return sum(values, Decimal(0)) / len(values)


def _range(lines: Sequence[UsageLine], today: date, length: int) -> tuple[Decimal | None, Decimal | None]:
    """The 10th and 90th percentile of actual to expected over past stretches as long as the one ahead, all lines together."""
    ratios = []
    for back in range(1, 64):
        start = today - timedelta(days=back + length - 1)
        stretch = [start + timedelta(days=n) for n in range(length)]
        wanted = actual = Decimal(0)
        for line in (found for found in lines if found.adds_up and found.history):
            if min(line.history) > start - timedelta(days=2 * EARLY_DAYS):
                continue
            guess = sum((expected(line.history, day, before=start) for day in stretch), Decimal(0))
            used = sum((line.history.get(day, Decimal(0)) for day in stretch), Decimal(0))
            with localcontext(EXACT):
                wanted += price(line.model, guess)
                actual += price(line.model, used)
        if wanted > 0:
            ratios.append(actual / wanted)
    if len(ratios) < STRETCHES_MIN:
        return None, None
    ratios.sort()
    return ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]


def _path(lines: Sequence[UsageLine], ahead: Sequence[date], today: date, scale: Decimal, currency: str) -> list[list[int]]:
    """For each line its amount at the end of each day ahead, minor units."""
    found = []
    for line in lines:
        total, path = line.so_far, []
        for day in ahead:
            usage = expected(line.history, day, before=today) * scale if line.adds_up else Decimal(0)
            total += max(Decimal(0), usage - line.today) if day == today else usage
            path.append(_rounded(line.model, total, currency))
        found.append(path)
    return found


def _starts(lines: Sequence[UsageLine], currency: str) -> list[int]:
    return [_rounded(line.model, line.so_far, currency) for line in lines]


def _day(day: date, index: int, paths: Sequence[Sequence[Sequence[int]]], lines: Sequence[UsageLine], currency: str) -> Day:
    """The rise of all lines on a day; today's counts from where the day began."""
    begins = [_rounded(line.model, max(Decimal(0), line.so_far - line.today), currency) for line in lines]
    rises = [sum(path[index] - (path[index - 1] if index else start) for path, start in zip(one, begins, strict=True)) for one in paths]
    return Day(day, rises[0], min(rises[1], rises[0]), max(rises[2], rises[0]))


def _rounded(model: PriceModel, quantity: Decimal, currency: str) -> int:
    with localcontext(EXACT):
        return round_half_up(price(model, quantity), currency)
