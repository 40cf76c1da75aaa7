"""Golden cases of charge models as the product is told them: a price as JSON, and the usage it is asked with."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from core.pricing.usage import ByMetric, Changes, Events, Grouped, ProratedChange, Several, Usage

CASES = json.loads((Path(__file__).parents[1] / "golden" / "cases" / "charge_models.json").read_text())
MODEL_KEYS = {
    "per_unit": ("unit_price",),
    "package": ("package_size", "package_price", "free_units", "rounding"),
    "percentage": ("rate_percent", "fixed_fee_per_event", "free_events", "free_amount", "min_per_event", "max_per_event"),
    "dynamic": ("multiplier",),
    "capacity": ("capacity_tiers",),
    "flat": ("flat_price",),
}
MODIFIERS = ("usage_discount", "unit_conversion", "discount_percent", "minimum_amount", "maximum_amount")
ELSEWHERE = ("prior_quantity", "previously_billed", "cumulative_quantity", "prorated_quantity", "line_position", "event_amount_minor_total")
"""What the timeline does (owed less billed), or the metric."""


@dataclass(frozen=True)
class Told:
    """A case in the product's words."""

    id: str
    price: dict[str, Any]
    usage: Usage
    currency: str
    expected: Mapping[str, Any]


def told() -> Iterator[Told]:
    """The cases that ask what usage costs under one price and state an amount."""
    for case in CASES:
        given, expected = case["input"], case["expected"]
        if (
            any(given.get(key) is not None for key in ELSEWHERE)
            or case.get("disagrees")
            or not {"amount", "amount_rounded"} & set(expected)
        ):
            continue
        if Decimal(str(given.get("quantity", 0))) >= 0 and given["model"] not in ("usage_discount", "flat"):
            yield Told(case["id"], price_json(given), usage(given), given.get("currency", "USD"), expected)


def price_json(given: Mapping[str, Any]) -> dict[str, Any]:
    """The price as `POST /billing/plans` takes it."""
    if given["model"] == "sum":
        return {"model": "sum", "parts": [price_json(part) for part in given["parts"]]}
    keys = MODEL_KEYS.get(given["model"], ("tiers",))
    model = {"model": given["model"], **{key: given[key] for key in keys if given.get(key) is not None}}
    if given["model"] == "capacity":
        names = given["capacity_tiers"][0]["limits"]
        model["metrics"] = {name: name for name in names}
    if "groups" in given:
        cells = [{"values": {"group": key}, "unit_price": price} for key, price in given.get("unit_price_by_group", {}).items()]
        model = {"model": "matrix", "dimensions": ["group"], "prices": cells, "default": model if len(model) > 1 else None}
    if "bucket_quantities" in given:
        model["bucket"] = "day"
    return model | {key: given[key] for key in MODIFIERS if given.get(key) is not None}


def usage(given: Mapping[str, Any]) -> Usage:
    """The usage of the case, of the kind its model is asked with."""
    if given["model"] == "sum":
        return Several(tuple(usage(part) for part in given["parts"]))
    if "event_amounts" in given:
        return Events(tuple(map(Decimal, given["event_amounts"])))
    if given["model"] == "graduated_prorated":
        return Changes(tuple(ProratedChange(Decimal(e["units"]), Decimal(e["prorated_units"])) for e in given["events"]))
    if given["model"] == "capacity":
        return ByMetric({name: Decimal(value) for name, value in given["quantities"].items()})
    if "groups" in given:
        return Grouped({(key,): Decimal(value) for key, value in given["groups"].items()})
    if "bucket_quantities" in given:
        return Grouped({(str(day),): Decimal(value) for day, value in enumerate(given["bucket_quantities"])})
    return Decimal(str(given.get("metered_amount", given.get("quantity", 0))))
