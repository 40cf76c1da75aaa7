"""Price lists side by side: for each price the plans' own words, tier by tier. Plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from core import rendering
from core.catalog.models import PlanVersion, PricingRule
from core.pricing.rules import Flat, Graduated, Package, PerUnit, Stairstep, Volume, parse_model

BASE = "base"


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One price in every plan: `cells` has for each plan its lines (before, price), () where the plan has none."""

    code: str
    name: str
    unit: str
    cells: tuple[tuple[tuple[str, str], ...], ...]

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
        rows.append(
            PriceRow(
                key, rule.metric.name if rule.metric else rule.name, unit, tuple(price_words(other, currency, unit) for other in found)
            )
        )
    return rows


def price_words(rule: PricingRule | None, currency: str, unit: str) -> tuple[tuple[str, str], ...]:
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
