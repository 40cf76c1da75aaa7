"""What is done to a quantity before it is priced, and to an amount after. Pure, and independent of the model."""

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import ceil, floor

from core.money import round_ratio
from core.pricing.compound import Compound
from core.pricing.price import Step, explain, price
from core.pricing.rules import PriceModel

_ZERO = Decimal(0)


class Rounding(StrEnum):
    """Direction of rounding a quantity."""

    UP = "up"
    DOWN = "down"
    HALF_UP = "half_up"


@dataclass(frozen=True, slots=True)
class UnitConversion:
    """Metered units times or divided by `factor` give billed units; rounded to `precision` places (negative: tens), if at all."""

    multiply: bool
    factor: Decimal
    rounding: Rounding | None = None
    precision: int = 0

    def apply(self, quantity: Decimal) -> Decimal:
        """The billed quantity; without rounding it keeps 12 places."""
        factor = Fraction(self.factor)
        exact = Fraction(quantity) * (factor if self.multiply else 1 / factor)
        if self.rounding is None:
            return round_quantity(exact, Rounding.HALF_UP, 12)
        return round_quantity(exact, self.rounding, self.precision)


class Bucket(StrEnum):
    """A stretch of local time that is priced alone."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Modified:
    """A price and what is done around it, in this order: units are converted, included units taken off, the rest is priced (by `bucket`:
    each alone, then added up), a percentage is taken off, and the amount is held between minimum and maximum.

    In a part of a cycle, minimum, maximum and included units count in that part, unless `prorate` is false.
    """

    model: PriceModel | Compound
    conversion: UnitConversion | None = None
    usage_discount: Decimal = _ZERO
    discount_percent: Decimal = _ZERO
    minimum_amount: Decimal | None = None
    maximum_amount: Decimal | None = None
    bucket: Bucket | None = None
    prorate: bool = True

    def part(self, share: Fraction) -> "Modified":
        """The same price for `share` of a cycle; amounts keep 12 places."""
        if not self.prorate or share == 1:
            return self
        return replace(
            self,
            usage_discount=_shared(self.usage_discount, share),
            minimum_amount=None if self.minimum_amount is None else _shared(self.minimum_amount, share),
            maximum_amount=None if self.maximum_amount is None else _shared(self.maximum_amount, share),
        )


def _shared(amount: Decimal, share: Fraction) -> Decimal:
    return round_quantity(Fraction(amount) * share, Rounding.HALF_UP, 12)


def round_quantity(quantity: Decimal | Fraction, rounding: Rounding, precision: int = 0) -> Decimal:
    """A quantity to `precision` places after the point, before it when negative: 123.456 is 100 floored to -2."""
    shifted = Fraction(quantity) * Fraction(10) ** precision
    match rounding:
        case Rounding.UP:
            whole = ceil(shifted)
        case Rounding.DOWN:
            whole = floor(shifted)
        case Rounding.HALF_UP:
            whole = round_ratio(shifted.numerator, shifted.denominator)
    return Decimal(whole).scaleb(-precision)


def after_free_units(quantity: Decimal, prior: Decimal, free: Decimal) -> tuple[Decimal, Decimal]:
    """(billed, billed before) when the first `free` units of a period cost nothing and `prior` units were metered before."""
    billed_before = max(prior - free, _ZERO)
    return max(prior + quantity - free, _ZERO) - billed_before, billed_before


def added_steps(model: PriceModel, prior: Decimal, quantity: Decimal) -> tuple[Step, ...]:
    """The steps that `quantity` more units cost after `prior` units of the same period were billed: the difference, tier by tier.

    Their amounts sum to price(prior + quantity) - price(prior); steps that do not change are left out.
    """
    before = explain(model, prior).steps
    after = explain(model, prior + quantity).steps
    if len(after) >= len(before) and all((old.label, old.from_) == (new.label, new.from_) for old, new in zip(before, after, strict=False)):
        changed = [_difference(old, new) for old, new in zip(before, after, strict=False) if old != new]
        return (*changed, *after[len(before) :])
    total = price(model, prior + quantity) - price(model, prior)
    return (Step("difference", prior, prior + quantity, quantity, _ZERO, _ZERO, total),)


def _difference(old: Step, new: Step) -> Step:
    fee = new.flat_fee - old.flat_fee
    return Step(new.label, new.from_, new.up_to, new.quantity - old.quantity, new.unit_price, fee, new.amount - old.amount)


@dataclass(frozen=True, slots=True)
class Bounded:
    """An amount held between a minimum and a maximum: `amount` is `base + top_up - discount`."""

    base: Decimal
    top_up: Decimal
    discount: Decimal

    @property
    def amount(self) -> Decimal:
        """What is billed."""
        return self.base + self.top_up - self.discount


def bounded(base: Decimal, billed_before: Decimal = _ZERO, minimum: Decimal | None = None, maximum: Decimal | None = None) -> Bounded:
    """Hold what a period bills, `base` and what was billed before it, between `minimum` and `maximum`: money, already rounded."""
    total = billed_before + base
    over = max(total - maximum, _ZERO) if maximum is not None else _ZERO
    short = max(minimum - total, _ZERO) if minimum is not None else _ZERO
    return Bounded(base, short, min(over, max(base, _ZERO)))


@dataclass(frozen=True, slots=True)
class Commitment:
    """An amount the customer undertakes to spend in a period: usage above it costs `overage_factor` times as much.

    With `true_up`, what falls short of the commitment is billed too.
    """

    amount: Decimal
    overage_factor: Decimal = Decimal(1)
    true_up: bool = False

    def apply(self, cost: Decimal) -> Bounded:
        """What usage of this cost bills: the base with overage, and the true-up as its top-up."""
        overage = max(cost - self.amount, _ZERO)
        base = cost + overage * (self.overage_factor - 1)
        return bounded(base, minimum=self.amount if self.true_up else None)


def capped_credit(credit: Decimal, paid: Decimal, credited_before: Decimal) -> Decimal:
    """A credit held to what was paid and not yet given back; never negative."""
    return max(min(credit, paid - credited_before), _ZERO)
