"""Price lists side by side: for each price the plans' own words, tier by tier. Plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from core import rendering
from core.catalog.models import PlanVersion, PricingRule
from core.pricing.rules import Flat, Graduated, Package, PerUnit, Stairstep, Volume, parse_model
from core.subscriptions.models import Subscription

BASE = "base"
Words = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One price in every plan: `cells` has for each plan its lines (before, price), () where the plan has none."""

    code: str
    name: str
    unit: str
    cells: tuple[Words, ...]

    @property
    def differs(self) -> bool:
        """Whether the plans do not all say the same."""
        return len(set(self.cells)) > 1


def price_lists(versions: Sequence[PlanVersion], currency: str) -> list[PriceRow]:
    """The usage and extra prices of the plans, in the order of the first plan that has them."""
    known: dict[str, PricingRule] = {}
    for version in versions:
        for rule in version.rules:
            if rule.code != BASE:
                known.setdefault(_key(rule), rule)
    rows = []
    for key, rule in known.items():
        found = [next((other for other in version.rules if _key(other) == key), None) for version in versions]
        unit = rule.metric.unit if rule.metric else ""
        name, words = _with_unit(rule.metric.name if rule.metric else rule.name, [price_words(other, currency, unit) for other in found])
        rows.append(PriceRow(key, name, unit, tuple(words)))
    return rows


def _with_unit(name: str, cells: list[Words]) -> tuple[str, list[Words]]:
    """What all prices of a row are for ("per 1 M") said once, in its head."""
    ends = {price.partition(" per ")[2] for cell in cells for _, price in cell if price[:1] not in "0123456789i"}
    if len(ends) != 1 or ends == {""}:
        return name, cells
    [end] = ends
    return f"{name}, per {end}", [tuple((reach, price.removesuffix(f" per {end}")) for reach, price in cell) for cell in cells]


def price_words(rule: PricingRule | None, currency: str, unit: str) -> Words:
    """A price in words, a pair a line: ("first 20 M", "€4.80 per 1 M"), ("above", "€3.20 per 1 M")."""
    if rule is None:
        return ()
    model = parse_model(rule.rules)
    match model:
        case Flat():
            return (("", rendering.unit_price(model.flat_price, currency, scale=1)),)
        case PerUnit():
            return (("", rendering.unit_price(model.unit_price, currency, unit)),)
        case Package():
            free = (("included", _count(model.free_units)),) if model.free_units else ()
            per = f"{rendering.unit_price(model.package_price, currency, scale=1)} per {_count(model.package_size)}"
            return (*free, ("then" if free else "", per))
        case Graduated() | Volume() | Stairstep():
            prices = [tier.unit_price for tier in model.tiers if tier.unit_price]
            scale = max((rendering.price_scale(price) for price in prices), default=1)
            lines, lower = [], Decimal(0)
            for tier in model.tiers:
                fee = f" + {rendering.unit_price(tier.flat_fee, currency, scale=1)}" if tier.flat_fee and tier.unit_price else ""
                price = (
                    rendering.unit_price(tier.unit_price, currency, unit, scale=scale)
                    if tier.unit_price or not tier.flat_fee
                    else rendering.unit_price(tier.flat_fee, currency, scale=1)
                )
                lines.append(
                    (_reach(lower, tier.up_to, len(model.tiers)), "included" if not tier.unit_price and not tier.flat_fee else price + fee)
                )
                lower = tier.up_to or lower
            return tuple(lines)
    return (("", rule.name),)


def _key(rule: PricingRule) -> str:
    return rule.metric.code if rule.metric else rule.code


def _reach(lower: Decimal, up_to: Decimal | None, tiers: int) -> str:
    if tiers == 1:
        return ""
    if up_to is None:
        return "above"
    return f"to {_count(up_to)}" if lower else f"first {_count(up_to)}"


def _count(value: Decimal) -> str:
    for size, letter in ((Decimal(10) ** 9, " G"), (Decimal(10) ** 6, " M")):
        if value >= size and value % (size / 10) == 0:
            return f"{rendering.quantity(value / size)}{letter}"
    return rendering.quantity(value)


def running_version(subscription: Subscription, at: datetime) -> PlanVersion | None:
    """The plan version that holds at the instant."""
    held = (term.plan_version for term in subscription.terms if term.start_at <= at and (term.end_at is None or at < term.end_at))
    return next(held, None)


def limits(versions: Sequence[PlanVersion]) -> list[tuple[str, tuple[str, ...]]]:
    """Limits and features in words, a row for each that any of the plans has."""
    names = list(dict.fromkeys(name for version in versions for name in (*version.limits, *version.features)))
    return [(_label(name), tuple(_said({**version.limits, **version.features}.get(name)) for version in versions)) for name in names]


def differences(before: PlanVersion | None, after: PlanVersion, currency: str) -> list[tuple[str, str, str]]:
    """What a change of plan changes: (what, before, after), the base price first, then prices, limits and features."""
    if before is None:
        return []
    base = (rendering.unit_price(before.base_price, currency, scale=1), rendering.unit_price(after.base_price, currency, scale=1))
    rows = [("Base price", *base)] if base[0] != base[1] else []
    rows += [(row.name, _short(row.cells[0]), _short(row.cells[1])) for row in price_lists([before, after], currency) if row.differs]
    return rows + [(name, values[0], values[1]) for name, values in limits([before, after]) if values[0] != values[1]]


def _short(cell: Words) -> str:
    """A price in a few words: "€4.80 to €3.20", "1 M included, then €0.04", "none"."""
    if not cell:
        return "none"
    if cell[0][0] == "included":
        return f"{cell[0][1]} included, then {cell[-1][1]}"
    first, last = cell[0][1], cell[-1][1]
    return first if first == last else f"{first} to {last}"


def _said(value: object) -> str:
    if value is True:
        return "yes"
    if value is False or value is None:
        return "no"
    return rendering.quantity(Decimal(str(value))) if isinstance(value, (int, Decimal)) else str(value)


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()
