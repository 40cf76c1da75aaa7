"""Two versions of a plan side by side: what was said and is said, price by price, and what both come to for the same quantities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core import rendering
from core.catalog import calculator, plan_document, written
from core.catalog.models import PlanVersion, PricingRule
from core.errors import Invalid
from core.metering.models import Metric
from web.plan_words import rule_words
from web.price_words import Words

TERMS = (
    ("name", "Name"),
    ("description", "Description"),
    ("billing_period", "Billing period"),
    ("interval_count", "So many of them"),
    ("billing_mode", "Base price is due"),
    ("trial_period_days", "Trial days"),
    ("trial_end_without_method", "Trial over, no payment method"),
    ("proration", "Parts of a period"),
    ("credit_policy", "Unused time"),
    ("is_public", "Customers may choose it"),
    ("customers_may_pause", "Customers may pause it"),
    ("duration_cycles", "Periods it holds"),
    ("features", "Features"),
    ("limits", "Limits"),
    ("metadata", "Metadata"),
)


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One price in words and, for the same quantities, in minor units; None where it is not, or is asked differently."""

    name: str
    code: str
    currency: str
    before: Words
    after: Words
    before_minor: int | None
    after_minor: int | None

    @property
    def change(self) -> str:
        """What happened to it: "new", "gone", "changed" or "same"."""
        if not self.before or not self.after:
            return "new" if self.after else "gone"
        return "same" if self.before == self.after else "changed"

    @property
    def difference_minor(self) -> int | None:
        """How much more it comes to."""
        if self.before_minor is None or self.after_minor is None:
            return None
        return self.after_minor - self.before_minor


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs: terms as (what, before, after), and every price."""

    terms: list[tuple[str, str, str]]
    prices: list[PriceRow]

    def changed(self) -> int:
        """How many things differ."""
        return len(self.terms) + sum(row.change != "same" for row in self.prices)


def compare(
    before: PlanVersion | None, after: PlanVersion, usage: Mapping[str, Any], metrics: Mapping[str, Metric], document: Mapping[str, Any]
) -> Comparison:
    """`after` is the version `document` would be published as; `usage` is what was typed for its prices, by place."""
    old = written.document(before) if before else {}
    new = {**written.document(after), **{name: document[name] for name in ("description", "metadata", "is_public") if name in document}}
    differing = [(name, label) for name, label in TERMS if before and old.get(name) != new.get(name)]
    terms = [(label, said(old.get(name)), said(new.get(name))) for name, label in differing]
    typed = _typed(new, usage, metrics)
    costs_before, costs_after = _costs(old, typed, metrics), _costs(new, typed, metrics)
    rules_before = {(rule.code, rule.currency): rule for rule in before.rules} if before else {}
    rules_after = {(rule.code, rule.currency): rule for rule in after.rules}
    rows = []
    for key in dict.fromkeys((*rules_after, *rules_before)):
        one, other = rules_before.get(key), rules_after.get(key)
        shown = other or one
        if shown is None:
            continue
        currency = key[1] or after.plan.currency
        sides = (_words(one, currency), _words(other, currency), costs_before.get(key), costs_after.get(key))
        rows.append(PriceRow(shown.name, key[0], currency, *sides))
    return Comparison(terms, rows)


def _typed(document: Mapping[str, Any], usage: Mapping[str, Any], metrics: Mapping[str, Metric]) -> dict[str, dict[str, str]]:
    """What each price of the draft is told, by code: as typed, else a sample."""
    try:
        plan = plan_document.read_plan(document, metrics)
    except Invalid:
        return {}
    found: dict[str, dict[str, str]] = {}
    for i, price in enumerate(calculator.prices_in(plan, plan.currency)):
        given = usage.get(f"prices_{i}", {})
        found[price.code] = {key: str(given.get(key, value)) for key, value in calculator.sample(price).items()}
    return found


def _costs(
    document: Mapping[str, Any], typed: Mapping[str, Mapping[str, str]], metrics: Mapping[str, Metric]
) -> dict[tuple[str, str | None], int]:
    """Minor units by code and currency, for the prices that are asked with what was typed."""
    found: dict[tuple[str, str | None], int] = {}
    try:
        plan = plan_document.read_plan(document, metrics) if document else None
    except Invalid:
        plan = None
    for currency in dict.fromkeys((None, *(price.currency for price in plan.prices))) if plan else ():
        if plan is None:
            break
        prices = calculator.prices_in(plan, currency or plan.currency)
        told = [{**calculator.sample(price), **typed.get(price.code, {})} for price in prices]
        try:
            result = calculator.calculate(plan, told, currency or plan.currency)
        except Invalid:
            continue
        for line in result.lines:
            asked = {ask.key for ask in calculator.asks(line.price)}
            if line.price.code not in typed or asked <= typed[line.price.code].keys():
                found[line.price.code, currency] = line.minor
    return found


def _words(rule: PricingRule | None, currency: str) -> Words:
    return rule_words(rule, currency, rule.metric.unit if rule.metric else "") if rule else ()


def said(value: Any) -> str:
    """A term, feature or limit in words."""
    if value is None or value in ({}, ""):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')}: {said(item)}" for name, item in value.items())
    return rendering.quantity(value) if isinstance(value, int) else str(value).replace("_", " ")
