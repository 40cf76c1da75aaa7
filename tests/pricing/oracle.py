"""A second, slow and independent way to compute what is owed, in exact fractions: only for comparison with the kernel."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from core.pricing.rules import Flat, Graduated, Package, PerUnit, PriceModel, Stairstep, Volume
from core.pricing.timeline import Kind, Proration, Rule, Term, Timing


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
        case Graduated(tiers):
            bounds = [Fraction(0), *(Fraction(t.up_to) if t.up_to is not None else None for t in tiers)]
            total = Fraction(0)
            for lower, upper, tier in zip(bounds, bounds[1:], tiers, strict=False):
                assert lower is not None
                inside = (q if upper is None else min(q, upper)) - lower
                if inside > 0 or lower == 0:
                    total += max(inside, Fraction(0)) * Fraction(tier.unit_price) + Fraction(tier.flat_fee)
            return total
        case Volume(tiers) | Stairstep(tiers):
            holding = [t for t in tiers if t.up_to is None or q <= Fraction(t.up_to)]
            tier = holding[0] if holding else tiers[-1]
            return Fraction(tier.flat_fee) + (q * Fraction(tier.unit_price) if isinstance(model, Volume) else 0)


def minor(amount: Fraction, digits: int) -> int:
    """Half away from zero."""
    scaled = amount * 10**digits
    rounded = int(abs(scaled) + Fraction(1, 2))
    return rounded if scaled >= 0 else -rounded


def month(year: int, number: int) -> datetime:
    """First instant of a UTC month; month numbers run on past 12."""
    return datetime(year + (number - 1) // 12, (number - 1) % 12 + 1, 1, tzinfo=UTC)


def owed_by_month(terms: list[Term], rule: Rule, start: datetime, end: datetime, usage: Decimal, as_of: datetime) -> Fraction | None:
    """What `rule` owes for the UTC month [start, end); None if nothing is due yet. `usage` is the month's quantity."""
    windows = [(max(t.start, start), min(t.end or end, end), t) for t in terms if rule in t.rules]
    windows = [(a, b, t) for a, b, t in windows if a < b]
    if rule.kind is Kind.USAGE or rule.timing is Timing.IN_ARREARS:
        windows = [(a, b, t) for a, b, t in windows if b <= as_of]
    else:
        windows = [(a, b, t) for a, b, t in windows if a <= as_of]
    if not windows:
        return None
    if rule.kind is Kind.USAGE:
        return price(rule.model, max(usage, Decimal(0)))
    if rule.prorate is Proration.NONE:
        return price(rule.model, windows[0][2].quantity)
    return sum((price(rule.model, t.quantity) * _part(a, b, start, end, rule.prorate) for a, b, t in windows), Fraction(0))


def _part(a: datetime, b: datetime, start: datetime, end: datetime, policy: Proration) -> Fraction:
    if policy is Proration.DAYS:
        return Fraction(b.date().toordinal() - a.date().toordinal(), end.date().toordinal() - start.date().toordinal())
    tick = timedelta(microseconds=1)
    return Fraction((b - a) // tick, (end - start) // tick)
