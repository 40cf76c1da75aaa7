"""What is sold, and what a customer holds from when to when, as plain values."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from core.pricing.rules import PriceModel
from tests.simulator.wall import Hang

DIGITS = {"EUR": 2, "USD": 2, "JPY": 0, "KWD": 3}


class Refused(Exception):
    """The act makes no sense now."""


@dataclass(frozen=True)
class Price:
    """One price: by the quantity held (`named`: that of this name), or by the usage of a metric, which is always in arrears.

    A `discount` takes from what the prices it `covers` (None: all) come to, a `commitment` adds what is missing to it, and multiplies
    what is above it. `included` units of usage cost nothing, with `named` as many for each held. `cycle` is its own interval and count.
    """

    name: str
    model: PriceModel
    in_advance: bool
    metric: str | None = None
    kind: str = "price"
    named: str | None = None
    cycle: tuple[str, int] | None = None
    included: Decimal = Decimal(0)
    covers: frozenset[str] | None = None
    factor: Decimal = Decimal(1)


@dataclass(frozen=True)
class Plan:
    """A price list; `days` names how a part of a cycle is measured, `credits` whether unused time is given back.

    `kind` is plan, add_on or coupon; a coupon holds for `duration` cycles (None: for good).
    """

    name: str
    interval: str
    count: int
    prices: tuple[Price, ...]
    days: str
    credits: bool
    kind: str = "plan"
    duration: int | None = None


@dataclass(frozen=True)
class Held:
    """Quantities: the subscription's own, and its seats."""

    units: Decimal
    seats: Decimal = Decimal(0)


@dataclass(frozen=True)
class Stretch:
    """From `start` up to `end` this plan and these quantities held."""

    start: datetime
    end: datetime | None
    plan: Plan
    held: Held
    hang: Hang
    is_trial: bool = False

    def holds(self, at: datetime) -> bool:
        return self.start <= at and (self.end is None or at < self.end)


@dataclass
class Beside:
    """An add-on or a coupon beside the plan."""

    plan: Plan
    units: Decimal
    start: datetime
    end: datetime | None

    def lasts(self, at: datetime) -> bool:
        """Whether it holds then, or will."""
        return self.end is None or self.end > at


@dataclass(frozen=True)
class Bond:
    """A contract for `count` intervals that goes on as long again, unless somebody leaves `notice_days` before."""

    interval: str
    count: int
    notice_days: int
