"""The price editor's form: what was typed, as the plan document the catalogue reads, and back. Pure: no request, no database.

A field's name is its JSON pointer with _ for /: "prices_0_tiers_1_up_to" is /prices/0/tiers/1/up_to, so a refusal finds its field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.catalog.models import PlanVersion

MODELS = (
    ("per_unit", "Per unit"),
    ("graduated", "Graduated tiers"),
    ("volume", "Volume tiers"),
    ("package", "Packages"),
    ("flat", "Flat"),
)
MODEL_FIELDS = {
    "per_unit": ("unit_price",),
    "graduated": ("tiers",),
    "volume": ("tiers",),
    "package": ("package_size", "package_price", "free_units"),
    "flat": ("flat_price",),
}
TIER_FIELDS = ("up_to", "unit_price", "flat_fee")
PLAN_TEXTS = (
    "code",
    "name",
    "description",
    "currency",
    "billing_period",
    "base_price",
    "billing_mode",
    "proration",
    "credit_policy",
    "trial_end_without_method",
)
BASE = "base"
NEW_PRICE = {"metric": "", "model": "per_unit", "unit_price": ""}
NEW_TIER = {"up_to": "", "unit_price": "", "flat_fee": ""}
ACT = re.compile(r"(add_price|remove_price|add_tier|remove_tier)(?::([0-9]{1,3}))?(?::([0-9]{1,3}))?")
WHOLE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Draft:
    """What stands in the form: the plan's own fields, the rows of prices with their tiers, the quantities to calculate for."""

    plan: dict[str, str]
    prices: list[dict[str, Any]]
    quantities: list[str]


def empty() -> Draft:
    """A new plan with one price to fill in."""
    plan = dict.fromkeys(PLAN_TEXTS, "") | {"currency": "EUR", "billing_period": "month", "base_price": "0", "billing_mode": "in_advance"}
    plan |= {"proration": "seconds", "credit_policy": "credit", "trial_period_days": "0", "trial_end_without_method": "convert"}
    return Draft(plan, [dict(NEW_PRICE)], [""])


def of_version(version: PlanVersion) -> Draft:
    """A published version as the beginning of the next one."""
    plan = {
        "code": version.plan.code,
        "name": version.plan.name,
        "description": version.plan.description,
        "currency": version.plan.currency,
        "billing_period": version.billing_period,
        "base_price": f"{version.base_price:f}",
        "billing_mode": version.billing_mode,
        "proration": version.proration,
        "credit_policy": version.credit_policy,
        "trial_period_days": str(version.trial_period_days),
        "trial_end_without_method": version.trial_end_without_method,
    }
    prices = [
        {**rule.rules, "metric": rule.metric.code if rule.metric else "", "code": rule.code, "name": rule.name}
        for rule in version.rules
        if rule.code != BASE
    ]
    return Draft(plan, prices, [""] * len(prices))


def read(form: Mapping[str, str]) -> Draft:
    """The form as it was sent, nothing judged yet."""
    plan = {name: form.get(name, "").strip() for name in (*PLAN_TEXTS, "trial_period_days")}
    prices, quantities = [], []
    for i in range(_count(form, "prices_{}_model")):
        prices.append(_price(form, f"prices_{i}_"))
        quantities.append(form.get(f"quantity_{i}", "").strip())
    return Draft(plan, prices, quantities)


def acted(draft: Draft, act: str) -> Draft | None:
    """The draft after "add_price", "remove_price:0", "add_tier:0" or "remove_tier:0:1"; None when `act` is none of these."""
    found = ACT.fullmatch(act)
    if found is None:
        return None
    what, i, j = found[1], int(found[2] or 0), int(found[3] or 0)
    prices, quantities = [dict(price) for price in draft.prices], list(draft.quantities)
    if what == "add_price":
        return Draft(draft.plan, [*prices, dict(NEW_PRICE)], [*quantities, ""])
    if i < len(prices) and what == "remove_price":
        return Draft(draft.plan, prices[:i] + prices[i + 1 :], quantities[:i] + quantities[i + 1 :])
    if i < len(prices):
        tiers = list(prices[i].get("tiers") or [])
        prices[i]["tiers"] = [*tiers, dict(NEW_TIER)] if what == "add_tier" else tiers[:j] + tiers[j + 1 :]
    return Draft(draft.plan, prices, quantities)


def document(draft: Draft) -> dict[str, Any]:
    """The plan document (the API's vocabulary); what a model does not use, and what was left empty, is left out."""
    trial = draft.plan["trial_period_days"]
    plan: dict[str, Any] = {name: value for name, value in draft.plan.items() if value}
    plan["trial_period_days"] = int(trial) if WHOLE.fullmatch(trial) else trial or 0
    plan["prices"] = [_priced(price) for price in draft.prices]
    return plan


def as_json(draft: Draft) -> str:
    """The document as text, for the JSON view."""
    return json.dumps(document(draft), indent=2, ensure_ascii=False)


def _price(form: Mapping[str, str], prefix: str) -> dict[str, Any]:
    names = ("metric", "model", "code", "name", "unit_price", "package_size", "package_price", "free_units", "flat_price")
    price: dict[str, Any] = {name: form.get(prefix + name, "").strip() for name in names}
    count = _count(form, prefix + "tiers_{}_up_to")
    price["tiers"] = [{name: form.get(f"{prefix}tiers_{j}_{name}", "").strip() for name in TIER_FIELDS} for j in range(count)]
    if price["model"] in {"graduated", "volume"} and not price["tiers"]:
        price["tiers"] = [dict(NEW_TIER)]
    return price


def _priced(price: Mapping[str, Any]) -> dict[str, Any]:
    known = MODEL_FIELDS.get(price["model"])
    if known is None:  # a model the form has no fields for keeps the keys it was published with
        return {name: value for name, value in price.items() if value not in ("", [])}
    priced = {name: price[name] for name in ("metric", "model", "code", "name", *known) if name != "tiers" and price.get(name)}
    if "tiers" in known:
        tiers = price.get("tiers") or []
        priced["tiers"] = [
            {"up_to": tier.get("up_to") or None, **{name: tier[name] for name in TIER_FIELDS[1:] if tier.get(name)}} for tier in tiers
        ]
    return priced


def _count(form: Mapping[str, str], name: str) -> int:
    n = 0
    while name.format(n) in form:
        n += 1
    return n
