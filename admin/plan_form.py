"""The price editor's form: what was typed, as the plan document the catalogue reads, and back. Pure: no request, no database.

A field's name is its JSON pointer with _ for /: "prices_0_tiers_1_up_to" is /prices/0/tiers/1/up_to, so a refusal finds its field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from core.catalog import written
from core.catalog.models import PlanVersion
from core.errors import FieldError, Invalid

MODELS = (
    ("per_unit", "Per unit"),
    ("graduated", "Graduated tiers"),
    ("volume", "Volume tiers"),
    ("stairstep", "Stairstep"),
    ("package", "Packages"),
    ("flat", "Flat"),
    ("graduated_blocks", "Graduated, begun blocks"),
    ("volume_blocks", "Volume, begun blocks"),
    ("percentage", "Percentage of each event"),
    ("graduated_percentage", "Percentage by tier"),
    ("graduated_prorated", "Graduated, by time held"),
    ("dynamic", "Price carried by events"),
    ("matrix", "By dimensions (matrix)"),
    ("time_of_use", "By time of day"),
    ("capacity", "By size (capacity)"),
    ("sum", "Sum of prices"),
    ("discount", "Discount"),
    ("commitment", "Commitment"),
)
UNIT_TIERS = ("up_to", "unit_price", "flat_fee")
TIER_FIELDS = {
    "graduated": UNIT_TIERS,
    "volume": UNIT_TIERS,
    "graduated_prorated": UNIT_TIERS,
    "stairstep": ("up_to", "flat_fee"),
    "graduated_percentage": ("up_to", "rate_percent", "flat_fee"),
    "graduated_blocks": ("up_to", "block_size", "block_price"),
    "volume_blocks": ("up_to", "block_size", "block_price"),
}
MODEL_FIELDS: dict[str, tuple[str, ...]] = {
    "per_unit": ("unit_price",),
    "package": ("package_size", "package_price", "free_units"),
    "flat": ("flat_price",),
    "percentage": ("rate_percent", "fixed_fee_per_event", "free_events", "free_amount", "min_per_event", "max_per_event"),
    "dynamic": ("multiplier", "amount_property"),
    **dict.fromkeys(TIER_FIELDS, ("tiers",)),
}
MORE = {
    "matrix": '{"dimensions": ["model"], "prices": [{"values": {"model": ""}, "unit_price": ""}], "default": {"unit_price": ""}}',
    "time_of_use": '{"windows": [{"name": "peak", "weekdays": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "20:00",'
    ' "unit_price": ""}], "default": {"unit_price": ""}}',
    "capacity": '{"capacity_tiers": [{"price": "", "limits": {"metric_code": ""}}, {"price": "", "limits": {"metric_code": null}}]}',
    "sum": '{"parts": [{"model": "per_unit", "unit_price": ""}, {"metric": "other_code", "model": "per_unit", "unit_price": ""}]}',
    "discount": '{"percent_off": ""}',
    "commitment": '{"amount": ""}',
}
"""What the other keys of a model without fields look like."""
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
NEW_PRICE = {"metric": "", "model": "per_unit", "unit_price": ""}
NEW_TIER = dict.fromkeys(dict.fromkeys(name for names in TIER_FIELDS.values() for name in names), "")
PRICE_TEXTS = ("metric", "model", "code", "name", *dict.fromkeys(n for names in MODEL_FIELDS.values() for n in names if n != "tiers"))
PLAN_FIELDS = (*PLAN_TEXTS, "trial_period_days")
ACT = re.compile(r"(add_price|remove_price|add_tier|remove_tier)(?::([0-9]{1,3}))?(?::([0-9]{1,3}))?")
WHOLE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Draft:
    """What stands in the form: the plan's own fields, the rows of prices with their tiers, the quantities to calculate for.

    Keys that have no field stand in `more`, of the plan and of each price, as JSON.
    """

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
    given = written.document(version)
    prices = [_row(price) for price in given.pop("prices", [])]
    plan = {name: str(given.pop(name, "")) for name in PLAN_FIELDS}
    return Draft(plan | {"more": _json(given)}, prices, [""] * len(prices))


def _row(price: dict[str, Any]) -> dict[str, Any]:
    """A price of a document as a row of the form."""
    shown = {name: price.pop(name) or "" for name in PRICE_TEXTS if name in price}
    tiers = price.pop("tiers") if price.get("tiers") and shown["model"] in TIER_FIELDS else []
    return {**shown, "tiers": tiers, "more": _json(price)}


def _json(keys: Mapping[str, Any]) -> str:
    return json.dumps(keys, indent=2, ensure_ascii=False) if keys else ""


def read(form: Mapping[str, str]) -> Draft:
    """The form as it was sent, nothing judged yet."""
    plan = {name: form.get(name, "").strip() for name in (*PLAN_FIELDS, "more")}
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
    """The plan document (the API's vocabulary); what was left empty is left out. Invalid where other keys are not JSON."""
    trial = draft.plan["trial_period_days"]
    plan: dict[str, Any] = {name: value for name, value in draft.plan.items() if value and name != "more"}
    plan["trial_period_days"] = int(trial) if WHOLE.fullmatch(trial) else trial or 0
    plan["prices"] = [_priced(price, f"/prices/{i}/more") for i, price in enumerate(draft.prices)]
    return plan | _more(draft.plan.get("more", ""), "/more", plan.keys())


def as_json(draft: Draft) -> str:
    """The document as text, for the JSON view and for comparing; "" while other keys are not JSON."""
    try:
        return json.dumps(document(draft), indent=2, ensure_ascii=False, default=str)
    except Invalid:
        return ""


def placed(errors: Mapping[str, str], draft: Draft) -> dict[str, str]:
    """Refusals of keys without a field of their own, at the field their JSON stands in."""
    found: dict[str, str] = {}
    for name, sentence in errors.items():
        row = re.match(r"prices_([0-9]{1,3})_(.+)", name)
        field, key = (f"prices_{row[1]}_more", row[2]) if row else ("more", name)
        shown = name in draft.plan or name == "" or (row and int(row[1]) < len(draft.prices) and _has_field(draft.prices[int(row[1])], key))
        if shown:
            found[name] = sentence
        else:
            found[field] = f"{found[field]} {key}: {sentence}" if field in found else f"{key}: {sentence}"
    return found


def _has_field(price: Mapping[str, Any], key: str) -> bool:
    model = str(price["model"])
    tier = re.fullmatch(r"tiers_[0-9]+_(\w+)", key)
    return key in ("metric", "model", "code", "name", "more", *MODEL_FIELDS.get(model, ())) or (
        tier is not None and tier[1] in TIER_FIELDS.get(model, ())
    )


def _price(form: Mapping[str, str], prefix: str) -> dict[str, Any]:
    price: dict[str, Any] = {name: form.get(prefix + name, "").strip() for name in (*PRICE_TEXTS, "more")}
    columns = TIER_FIELDS.get(price["model"], UNIT_TIERS)
    count = _count(form, prefix + "tiers_{}_up_to")
    price["tiers"] = [{name: form.get(f"{prefix}tiers_{j}_{name}", "").strip() for name in columns} for j in range(count)]
    if price["model"] in TIER_FIELDS and not price["tiers"]:
        price["tiers"] = [dict(NEW_TIER)]
    if not price["more"] or price["more"] in MORE.values():
        price["more"] = MORE.get(price["model"], "")
    return price


def _priced(price: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    fields = MODEL_FIELDS.get(price["model"], ())
    priced = {name: price[name] for name in ("metric", "model", "code", "name", *fields) if name != "tiers" and price.get(name)}
    if "tiers" in fields:
        columns = TIER_FIELDS[price["model"]][1:]
        priced["tiers"] = [
            {"up_to": tier.get("up_to") or None, **{name: tier[name] for name in columns if tier.get(name)}} for tier in price["tiers"]
        ]
    return priced | _more(price.get("more", ""), pointer, priced.keys())


def _more(text: str, pointer: str, taken: Collection[str]) -> dict[str, Any]:
    """Other keys, written as a JSON object; the form's own fields win."""
    try:
        keys = json.loads(text or "{}", parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise Invalid("Other keys are not JSON.", errors=(FieldError(pointer, f"is not JSON: {error}"),)) from error
    if not isinstance(keys, dict):
        raise Invalid("Other keys are no object.", errors=(FieldError(pointer, "must be a JSON object of the other keys"),))
    return {key: value for key, value in keys.items() if key not in taken}


def _count(form: Mapping[str, str], name: str) -> int:
    n = 0
    while name.format(n) in form:
        n += 1
    return n
