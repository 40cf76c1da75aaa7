"""A second, slow and independent way to compute what is owed, in exact fractions: only for comparison with the kernel."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from core.pricing.rules import (
    AnyTier,
    BlockTier,
    Flat,
    Graduated,
    GraduatedBlocks,
    GraduatedPercentage,
    Package,
    PerUnit,
    PriceModel,
    RateTier,
    Stairstep,
    Volume,
    VolumeBlocks,
)
from core.pricing.timeline import Kind, Measure, Proration, Rule, Term, Timing


def price(model: PriceModel, quantity: Decimal) -> Fraction:
    """The price by its definition: each unit interval is asked for its tier, packages are counted one by one on fractions."""
    q = Fraction(quantity)
    match model:
        case Flat(amount):
            return Fraction(amount)
        case PerUnit(unit):
            return q * Fraction(unit)
        case Package(size, amount, free, rounding):
            packages = max(q - Fraction(free), Fraction(0)) / Fraction(size)
            whole = packages.numerator // packages.denominator
            return Fraction(amount) * (whole + (1 if rounding == "up" and packages > whole else 0))
        case Graduated() | GraduatedPercentage() | GraduatedBlocks():
            bounds = [Fraction(0), *(Fraction(t.up_to) if t.up_to is not None else None for t in model.tiers)]
            total = Fraction(0)
            for lower, upper, tier in zip(bounds, bounds[1:], model.tiers, strict=False):
                assert lower is not None
                inside = (q if upper is None else min(q, upper)) - lower
                if inside > 0 or lower == 0:
                    total += _tier_price(tier, max(inside, Fraction(0)))
            return total
        case Volume() | VolumeBlocks():
            return _tier_price(_holding(model.tiers, q), q)
        case Stairstep():
            return Fraction(_holding(model.tiers, q).flat_fee)


def _holding(tiers: tuple, q: Fraction) -> Any:
    return next((t for t in tiers if t.up_to is None or q <= Fraction(t.up_to)), tiers[-1])


def _tier_price(tier: AnyTier, units: Fraction) -> Fraction:
    if isinstance(tier, BlockTier):
        return -(-units // Fraction(tier.block_size)) * Fraction(tier.block_price)
    unit = Fraction(tier.rate_percent) / 100 if isinstance(tier, RateTier) else Fraction(tier.unit_price)
    return units * unit + Fraction(tier.flat_fee)


def minor(amount: Fraction, digits: int) -> int:
    """Half away from zero."""
    scaled = amount * 10**digits
    rounded = int(abs(scaled) + Fraction(1, 2))
    return rounded if scaled >= 0 else -rounded


def month(year: int, number: int) -> datetime:
    """First instant of a UTC month; month numbers run on past 12."""
    return datetime(year + (number - 1) // 12, (number - 1) % 12 + 1, 1, tzinfo=UTC)


def owed_by_month(terms: list[Term], rule: Rule, start: datetime, end: datetime, usage: Decimal, as_of: datetime) -> Fraction | None:
    """What `rule` owes for the UTC month [start, end); None if nothing is due yet. `usage` is the month's quantity, or what stood in it."""
    windows = [(max(t.start, start), min(t.end or end, end), t) for t in terms if rule in t.rules]
    windows = [(a, b, t) for a, b, t in windows if a < b]
    if rule.kind is Kind.USAGE or rule.prorate is Proration.NONE:
        windows = _joined(windows)
    if rule.kind is Kind.USAGE or rule.timing is Timing.IN_ARREARS:
        windows = [(a, b, t) for a, b, t in windows if b <= as_of]
    else:
        windows = [(a, b, t) for a, b, t in windows if a <= as_of]
    if not windows:
        return None
    if rule.kind is Kind.USAGE:
        stands = rule.measure is Measure.LEVEL and rule.prorate is not Proration.NONE
        share = sum((_part(a, b, start, end, rule.prorate) for a, b, _ in windows), Fraction(0)) if stands else 1
        return price(rule.model, max(usage, Decimal(0))) * share
    if rule.prorate is Proration.NONE:
        return price(rule.model, windows[0][2].quantity)
    return sum((price(rule.model, t.quantity) * _part(a, b, start, end, rule.prorate) for a, b, t in windows), Fraction(0))


def _joined(windows: list[tuple[datetime, datetime, Term]]) -> list[tuple[datetime, datetime, Term]]:
    out: list[tuple[datetime, datetime, Term]] = []
    for a, b, term in windows:
        if out and out[-1][1] == a:
            out[-1] = (out[-1][0], b, out[-1][2])
        else:
            out.append((a, b, term))
    return out


def _part(a: datetime, b: datetime, start: datetime, end: datetime, policy: Proration) -> Fraction:
    """A window over its month; what the named day counts mean, in the plainest words."""
    match policy:
        case Proration.DAYS:
            return Fraction(b.date().toordinal() - a.date().toordinal(), end.date().toordinal() - start.date().toordinal())
        case Proration.ACTUAL_DAYS_INCLUSIVE:
            return Fraction(_days_touched(a, b), _days_touched(start, end))
        case Proration.FIXED_30:
            return Fraction(_fixed_days(a, b, 30), 30)
        case Proration.FIXED_28:
            return Fraction(_fixed_days(a, b, 28), 28)
        case _:
            tick = timedelta(microseconds=1)
            return Fraction((b - a) // tick, (end - start) // tick)


def _days_touched(a: datetime, b: datetime) -> int:
    days = [a.date() + timedelta(days=n) for n in range(40)]
    return sum(1 for day in days if datetime(day.year, day.month, day.day, tzinfo=UTC) < b)


def _fixed_days(a: datetime, b: datetime, days_in_month: int) -> int:
    until = days_in_month + 1 if (b.year, b.month) != (a.year, a.month) else min(b.day, days_in_month)
    return until - min(a.day, days_in_month)
