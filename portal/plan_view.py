"""Price lists side by side: for each price the plans' own words, tier by tier. Plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from core import rendering
from core.catalog.models import PlanVersion, PricingRule
from core.subscriptions.models import Subscription, SubscriptionTerm
from web.plan_words import rule_words
from web.price_words import AROUND, Words

BASE = "base"


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
        for rule in version.rules_in(currency):
            if rule.code != BASE:
                known.setdefault(_key(rule), rule)
    rows = []
    for key, rule in known.items():
        found = [next((other for other in version.rules_in(currency) if _key(other) == key), None) for version in versions]
        unit = rule.metric.unit if rule.metric else ""
        name, words = _with_unit(rule.metric.name if rule.metric else rule.name, [_words(other, currency, unit) for other in found])
        rows.append(PriceRow(key, name, unit, tuple(words)))
    return rows


def _with_unit(name: str, cells: list[Words]) -> tuple[str, list[Words]]:
    """What all prices of a row are for ("per 1 M") said once, in its head."""
    ends = {price.partition(" per ")[2] for cell in cells for _, price in cell if price[:1] not in "0123456789i"}
    if len(ends) != 1 or ends == {""}:
        return name, cells
    [end] = ends
    return f"{name}, per {end}", [tuple((reach, price.removesuffix(f" per {end}")) for reach, price in cell) for cell in cells]


def _words(rule: PricingRule | None, currency: str, unit: str) -> Words:
    return rule_words(rule, currency, unit) if rule else ()


def _key(rule: PricingRule) -> str:
    return rule.metric.code if rule.metric else rule.code


def running_term(subscription: Subscription, at: datetime) -> SubscriptionTerm | None:
    """The term that holds at the instant."""
    return next((term for term in subscription.terms if term.start_at <= at and (term.end_at is None or at < term.end_at)), None)


def running_version(subscription: Subscription, at: datetime) -> PlanVersion | None:
    """The plan version that holds at the instant."""
    term = running_term(subscription, at)
    return term.plan_version if term else None


def running_quantities(subscription: Subscription, at: datetime) -> list[tuple[str, Decimal]]:
    """The named quantities held at the instant, by name."""
    held = [term for term in subscription.terms if term.start_at <= at and (term.end_at is None or at < term.end_at)]
    return [(name, Decimal(quantity)) for term in held[:1] for name, quantity in sorted(term.quantities.items()) if Decimal(quantity)]


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
    prices = [line for line in cell if line[0] not in AROUND] or list(cell)
    if prices[0][0] == "included":
        return f"{prices[0][1]} included, then {prices[-1][1]}"
    first, last = prices[0][1], prices[-1][1]
    return first if first == last else f"{first} to {last}"


def _said(value: object) -> str:
    if value is True:
        return "yes"
    if value is False or value is None:
        return "no"
    return rendering.quantity(Decimal(str(value))) if isinstance(value, (int, Decimal)) else str(value)


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()
