"""A published version as the document that publishes it again: what an editor begins with, and what two versions are compared by. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from core.catalog.models import PlanVersion, PricingRule
from core.catalog.plan_document import BASE
from core.money import plain
from core.pricing.terms import Kind

RESOLVED = {"metrics", "metric_id", "group_by"}
"""Keys of a stored price that publishing adds."""


def document(version: PlanVersion) -> dict[str, Any]:
    """The version in the vocabulary of `POST /billing/plans`; its plan, rules and metrics are loaded."""
    plan = version.plan
    prices: dict[str | None, list[dict[str, Any]]] = {None: []}
    bases: dict[str, str] = {}
    for rule in version.rules:
        if rule.code != BASE:
            prices.setdefault(rule.currency, []).append(_price(rule))
        elif rule.currency is not None:
            bases[rule.currency] = str(rule.rules["flat_price"])
    currencies = {
        currency: {"base_price": bases.get(currency, "0"), "prices": prices.get(currency, [])}
        for currency in dict.fromkeys((*bases, *(known for known in prices if known is not None)))
    }
    written = {
        "code": plan.code,
        "name": plan.name,
        "description": plan.description,
        "kind": plan.kind,
        "duration_cycles": version.duration_cycles,
        "currency": plan.currency,
        "billing_period": version.billing_period,
        "interval_count": version.interval_count,
        "base_price": plain(version.base_price),
        "billing_mode": version.billing_mode,
        "trial_period_days": version.trial_period_days,
        "trial_end_without_method": version.trial_end_without_method,
        "proration": version.proration,
        "credit_policy": version.credit_policy,
        "prices": prices[None],
        "currencies": currencies,
        "features": version.features,
        "limits": version.limits,
        "metadata": plan.extra,
        "is_public": plan.is_public,
        "customers_may_pause": None if version.customers_may_pause else False,
    }
    return {key: value for key, value in written.items() if value not in (None, "", {})}


def _price(rule: PricingRule) -> dict[str, Any]:
    written: dict[str, Any] = {"metric": rule.metric.code if rule.metric else None, "code": rule.code, "name": rule.name}
    if rule.kind != Kind.USAGE:
        written["billing_mode"] = rule.billing_mode
    written |= _model(rule)
    written |= {
        "licensed": rule.licensed,
        "included": plain(rule.included) if rule.included else None,
        "billing_period": rule.interval,
        "interval_count": rule.interval_count,
        "proration": rule.proration,
        "covers": list(rule.covers) if rule.covers is not None else None,
        "overage_factor": plain(rule.overage_factor) if rule.overage_factor != 1 else None,
        "quantity_min": plain(rule.quantity_min) if rule.quantity_min is not None else None,
        "quantity_max": plain(rule.quantity_max) if rule.quantity_max is not None else None,
    }
    return {key: value for key, value in written.items() if value is not None or key in rule.rules}


def _model(rule: PricingRule) -> dict[str, Any]:
    """The price's model; discounts and commitments in the words they are published with."""
    stored: dict[str, Any] = _unresolved(rule.rules)
    if rule.kind == Kind.COMMITMENT:
        return {"model": "commitment", "amount": stored["flat_price"]}
    if rule.kind != Kind.DISCOUNT:
        return stored
    match stored["model"]:
        case "flat":
            return {"model": "discount", "amount_off": stored["flat_price"]}
        case "volume":
            tiers = [{"up_to": tier["up_to"], "percent_off": _percent(tier["unit_price"])} for tier in stored["tiers"]]
            return {"model": "discount", "tiers": tiers}
    return {"model": "discount", "percent_off": stored["tiers"][0]["rate_percent"]}


def _unresolved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unresolved(item) for key, item in value.items() if key not in RESOLVED}
    return [_unresolved(item) for item in value] if isinstance(value, list) else value


def _percent(share: str) -> str:
    return f"{(Decimal(share) * 100).normalize():f}"
