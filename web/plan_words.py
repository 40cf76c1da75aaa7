"""What a price of a plan says, in the words of a price list: its model, and what it is multiplied by, includes and looks at."""

from __future__ import annotations

from decimal import Decimal

from core import rendering
from core.catalog.models import PricingRule
from core.pricing.models import parse
from core.pricing.rules import Flat, GraduatedPercentage, Volume
from core.pricing.terms import Kind
from web.price_words import Words, stored_words

PERIODS = {"day": "a day", "week": "a week", "month": "a month", "quarter": "a quarter", "half_year": "a half-year", "year": "a year"}


def rule_words(rule: PricingRule, currency: str, unit: str) -> Words:
    """The price in words, a pair a line: ("included", "1,000"), ("then", "€0.01")."""
    if rule.kind == Kind.COMMITMENT:
        words = _commitment(rule, currency)
    elif rule.kind == Kind.DISCOUNT:
        words = _discount(rule, currency)
    else:
        words = stored_words(rule.rules, currency, unit)
        if rule.included:
            each = f" for each of your {rule.licensed}" if rule.licensed else ""
            words = (("included", f"{rendering.quantity(rule.included)}{each}"), *_then(words))
    return (*words, ("billed", _period(rule))) if rule.interval else words


def _then(words: Words) -> Words:
    return tuple(("then" if not reach and i == 0 else reach, price) for i, (reach, price) in enumerate(words))


def _commitment(rule: PricingRule, currency: str) -> Words:
    amount = _flat(rule, currency)
    words: Words = (("prepaid" if rule.billing_mode == "in_advance" else "at least", amount),)
    if rule.overage_factor == 1:
        return words
    return (*words, ("above it", f"{rendering.quantity(rule.overage_factor)} times the price"))


def _discount(rule: PricingRule, currency: str) -> Words:
    model = parse(rule.rules)
    if isinstance(model, GraduatedPercentage):
        return (("off", rendering.rate(model.tiers[0].rate_percent)),)
    if isinstance(model, Volume):
        return tuple((_reach(tier.up_to, currency), f"{rendering.rate(tier.unit_price * 100)} off") for tier in model.tiers)
    return (("off", _flat(rule, currency)),)


def _reach(up_to: Decimal | None, currency: str) -> str:
    return "above" if up_to is None else f"up to {rendering.unit_price(up_to, currency, scale=1)}"


def _flat(rule: PricingRule, currency: str) -> str:
    model = parse(rule.rules)
    return rendering.unit_price(model.flat_price, currency, scale=1) if isinstance(model, Flat) else ""


def _period(rule: PricingRule) -> str:
    count, interval = rule.interval_count or 1, rule.interval or ""
    return PERIODS[interval] if count == 1 else f"every {count} {interval.replace('_', '-')}s"
