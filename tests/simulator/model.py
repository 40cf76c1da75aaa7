"""What a customer's life owes, worked out a second time and as plainly as can be: local days found by search, exact fractions, plain lists.

It shares no calendar, proration or timeline code with the product, and prices by tests.pricing.oracle.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from zoneinfo import ZoneInfo

from core.pricing.rules import PriceModel
from tests.pricing import oracle

MONTHS = {"month": 1, "quarter": 3, "half_year": 6, "year": 12}
DAYS = {"day": 1, "week": 7, "30_days": 30}
DIGITS = {"EUR": 2, "USD": 2, "JPY": 0, "KWD": 3}
TICK = timedelta(microseconds=1)

Key = tuple[str, str, datetime]
"""Plan, price, beginning of the cycle."""


class Refused(Exception):
    """The act makes no sense now."""


@dataclass(frozen=True)
class Price:
    """One price of a plan: by the quantity held (`metric` None), or by the usage of a metric, which is always in arrears."""

    name: str
    model: PriceModel
    in_advance: bool
    metric: str | None = None


@dataclass(frozen=True)
class Plan:
    """A price list; `days` names how a part of a cycle is measured, `credits` whether unused time is given back."""

    name: str
    interval: str
    count: int
    prices: tuple[Price, ...]
    days: str
    credits: bool


@dataclass(frozen=True)
class Hang:
    """Cycles of `count` intervals, one of which begins on `day`."""

    interval: str
    count: int
    day: date


@dataclass(frozen=True)
class Stretch:
    """From `start` up to `end` this plan and quantity held."""

    start: datetime
    end: datetime | None
    plan: Plan
    quantity: Decimal
    hang: Hang
    is_trial: bool = False

    def holds(self, at: datetime) -> bool:
        return self.start <= at and (self.end is None or at < self.end)


@dataclass(frozen=True)
class Owes:
    """What is owed for one key: minor units, and whether less than was billed is given back."""

    minor: int
    credits: bool


@dataclass
class Life:
    """One subscription: `mode` calendar or anniversary says where cycles begin."""

    timezone: str
    currency: str
    mode: str
    stretches: list[Stretch] = field(default_factory=list)
    is_paused: bool = False
    ends: datetime | None = None

    def start(self, at: datetime, plan: Plan, quantity: Decimal, trial_days: int = 0, not_before: datetime | None = None) -> None:
        """The first local day counts whole, unless something of the customer's ended on it; a trial covers whole local days."""
        day = local_day(at, self.timezone)
        begin, paid = midnight(day, self.timezone), midnight(day + timedelta(days=trial_days), self.timezone)
        if not_before is not None:
            begin, paid = max(begin, not_before), max(paid, not_before)
        hang = self.hung(plan, paid)
        trial = [Stretch(begin, paid, plan, quantity, hang, is_trial=True)] if paid > begin else []
        self.stretches = [*trial, Stretch(paid, None, plan, quantity, hang)]

    def change(self, at: datetime, plan: Plan, quantity: Decimal) -> None:
        """From `at` on another plan or quantity; what was planned for later is forgotten, an end and a running trial stay."""
        running = self.at(at)
        if self.is_paused or running is None:
            raise Refused
        end = self.stretches[-1].end
        before = self.until(at)
        if running.is_trial:
            trial_end = max(s.end for s in self.stretches if s.is_trial and s.end)
            hang = self.hung(plan, trial_end)
            rest = [] if end is not None and end <= trial_end else [Stretch(trial_end, end, plan, quantity, hang)]
            self.stretches = [*before, Stretch(at, trial_end, plan, quantity, running.hang, is_trial=True), *rest]
            return
        goes_on = (running.hang.interval, running.hang.count) == (plan.interval, plan.count)
        self.stretches = [*before, Stretch(at, end, plan, quantity, running.hang if goes_on else self.hung(plan, at))]

    def pause(self, at: datetime) -> None:
        """Nothing is owed from now on; what began this very instant cannot pause."""
        running = self.at(at)
        if self.is_paused or running is None or running.is_trial or running.end is not None or running.start == at:
            raise Refused
        self.stretches, self.is_paused = self.until(at), True

    def resume(self, at: datetime) -> None:
        """As before the pause, from now on."""
        if not self.is_paused:
            raise Refused
        last = self.stretches[-1]
        self.stretches, self.is_paused = [*self.stretches, replace(last, start=at, end=None)], False

    def cancel(self, at: datetime, *, at_period_end: bool) -> None:
        """The end; of the running cycle, of the trial, or now."""
        if self.is_over(at):
            raise Refused
        if self.ends is not None:
            self.undo_cancel(at)
        running = self.at(at)
        ends = at
        if at_period_end and not self.is_paused and running is not None:
            ends = self.cycle_end(running, at)
        self.stretches, self.ends, self.is_paused = self.until(ends), ends, False

    def undo_cancel(self, at: datetime) -> None:
        """It goes on; what followed a trial follows again."""
        if self.ends is None or self.is_over(at):
            raise Refused
        last = self.stretches[-1]
        if last.is_trial:
            assert last.end is not None
            after = Stretch(last.end, None, last.plan, last.quantity, self.hung(last.plan, last.end))
            self.stretches = [*self.stretches, after]
        else:
            self.stretches = [*self.stretches[:-1], replace(last, end=None)]
        self.ends = None

    def is_over(self, at: datetime) -> bool:
        return self.ends is not None and self.ends <= at

    def at(self, at: datetime) -> Stretch | None:
        """What holds at an instant."""
        return next((stretch for stretch in self.stretches if stretch.holds(at)), None)

    def until(self, at: datetime) -> list[Stretch]:
        """The life up to an instant."""
        return [replace(s, end=at) if s.end is None or s.end > at else s for s in self.stretches if s.start < at]

    def cycle_end(self, stretch: Stretch, at: datetime) -> datetime:
        """End of the cycle, or of the trial, that runs at `at`."""
        if stretch.is_trial and stretch.end is not None:
            return stretch.end
        return next(cycles(stretch.hang, self.timezone, at, at))[1]

    def hung(self, plan: Plan, at: datetime) -> Hang:
        """Where the cycles of a plan hang that begins at `at`."""
        day = local_day(at, self.timezone)
        while self.mode == "calendar" and not begins_interval(day, plan.interval):
            day -= timedelta(days=1)
        return Hang(plan.interval, plan.count, day)

    def owed(self, as_of: datetime, usage: Mapping[str, list[tuple[datetime, Decimal]]]) -> dict[Key, Owes]:
        """Everything owed by `as_of`; `usage` lists (instant, quantity) by metric."""
        pieces: dict[Key, list[tuple[datetime, datetime, datetime, Stretch]]] = {}
        for stretch in self.stretches:
            if stretch.is_trial or stretch.start > as_of:
                continue
            end = stretch.end or datetime.max.replace(tzinfo=UTC)
            for begin, over in cycles(stretch.hang, self.timezone, stretch.start, min(as_of, end)):
                a, b = max(begin, stretch.start), min(over, end)
                for price in stretch.plan.prices if a < b else ():
                    pieces.setdefault((stretch.plan.name, price.name, begin), []).append((a, b, over, stretch))
        found = {}
        for key, parts in pieces.items():
            price = next(price for price in parts[0][3].plan.prices if price.name == key[1])
            owes = self._owes(key, price, parts, as_of, usage)
            if owes is not None:
                found[key] = owes
        return found

    def _owes(
        self,
        key: Key,
        price: Price,
        parts: list[tuple[datetime, datetime, datetime, Stretch]],
        as_of: datetime,
        usage: Mapping[str, list[tuple[datetime, Decimal]]],
    ) -> Owes | None:
        plan = parts[0][3].plan
        if price.metric is not None or plan.days == "none":
            parts = joined(parts)
        in_advance = price.metric is None and price.in_advance
        parts = [part for part in parts if (part[0] if in_advance else part[1]) <= as_of]
        if not parts:
            return None
        if price.metric is not None:
            events = usage.get(price.metric, [])
            total = sum((q for at, q in events if any(a <= at < b for a, b, _, _ in parts)), Decimal(0))
            amount = oracle.price(price.model, max(total, Decimal(0)))
        elif plan.days == "none":
            amount = oracle.price(price.model, parts[0][3].quantity)
        else:
            amount = sum(
                (oracle.price(price.model, s.quantity) * part_of(a, b, key[2], over, plan.days, self.timezone) for a, b, over, s in parts),
                Fraction(0),
            )
        return Owes(oracle.minor(amount, DIGITS[self.currency]), plan.credits)


def billed_next(billed: dict[Key, int], owed: Mapping[Key, Owes]) -> dict[Key, int]:
    """What is billed in all after one more run."""
    after = dict(billed)
    for key, owes in owed.items():
        before = billed.get(key, 0)
        after[key] = owes.minor if owes.minor > before or owes.credits else before
    for key in billed.keys() - owed.keys():
        after[key] = 0
    return after


def joined(parts: list[tuple[datetime, datetime, datetime, Stretch]]) -> list[tuple[datetime, datetime, datetime, Stretch]]:
    """Parts that adjoin made one, with what held at its beginning."""
    out: list[tuple[datetime, datetime, datetime, Stretch]] = []
    for part in parts:
        if out and out[-1][1] == part[0]:
            out[-1] = (out[-1][0], part[1], part[2], out[-1][3])
        else:
            out.append(part)
    return out


def part_of(a: datetime, b: datetime, begin: datetime, over: datetime, days: str, timezone: str) -> Fraction:
    """The share of the cycle [begin, over) that [a, b) is."""
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


def cycles(hang: Hang, timezone: str, first: datetime, last: datetime) -> Iterator[tuple[datetime, datetime]]:
    """From the cycle that holds `first` to the one that holds `last`."""
    n = 0
    while boundary(hang, timezone, n) > first:
        n -= 1
    while boundary(hang, timezone, n + 1) <= first:
        n += 1
    while boundary(hang, timezone, n) <= last:
        yield boundary(hang, timezone, n), boundary(hang, timezone, n + 1)
        n += 1


@cache
def boundary(hang: Hang, timezone: str, n: int) -> datetime:
    """Where cycle `n` begins, counted from the one that begins on the day it hangs on."""
    if hang.interval in DAYS:
        return midnight(hang.day + timedelta(days=n * hang.count * DAYS[hang.interval]), timezone)
    year, month = divmod(hang.day.year * 12 + hang.day.month - 1 + n * hang.count * MONTHS[hang.interval], 12)
    for day in range(hang.day.day, 0, -1):
        try:
            return midnight(date(year, month + 1, day), timezone)
        except ValueError:
            continue  # the month is shorter
    raise AssertionError("every month has a first")


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
