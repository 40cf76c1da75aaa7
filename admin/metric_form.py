"""What the forms of metrics share: their fields as text, read into the fields of a definition, and each fault at its field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from flask import request

from core.errors import BillingError, FieldError, Invalid
from core.metering.models import Aggregation, BucketSize, BucketTotal, LatePolicy, Metric
from core.metering.revisions.models import MetricRevision
from core.money import parse_decimal, plain
from core.pricing.modifiers import Rounding
from web.forms import field_errors

LABELS = ("name", "unit", "late_policy", "late_after_hours")
COUNTED = ("aggregation", "property", "expression", "filters", "group_by", "operation_property", "percentile", "recurring")
RESTS = ("bucket_size", "bucket_total", "rounding", "rounding_precision")
FIELDS = ("code", "event_name", *LABELS, *COUNTED, *RESTS)
MEANINGS = {
    Aggregation.COUNT: "Count: how many events",
    Aggregation.SUM: "Sum: everything added up",
    Aggregation.MAX: "Maximum: the largest value",
    Aggregation.MIN: "Minimum: the smallest value",
    Aggregation.AVG: "Average of the values",
    Aggregation.LATEST: "Latest: the value sent last",
    Aggregation.UNIQUE_COUNT: "Unique count: how many different values",
    Aggregation.WEIGHTED_SUM: "Weighted sum: a running total over time",
    Aggregation.PERCENTILE: "Percentile of the values",
}
LATE = {
    LatePolicy.ADJUST: "Bill it as an adjustment on the next invoice",
    LatePolicy.IGNORE: "Count and show it, leave billed periods as they are",
    LatePolicy.REJECT: "Refuse events that come too late",
}
CHOICES: dict[str, Any] = {
    "aggregations": [(one.value, MEANINGS[one]) for one in Aggregation],
    "bucket_sizes": [("", "No, over the whole period"), *((one.value, f"By {one.value}") for one in BucketSize)],
    "bucket_totals": [("", "–"), *((one.value, f"The {one.value} of the buckets") for one in BucketTotal)],
    "roundings": [("", "Not at all"), *((one.value, one.value.replace("_", " ").capitalize()) for one in Rounding)],
    "late_policies": [(one.value, LATE[one]) for one in LatePolicy],
}
PLACES = {"bucket": "bucket_size", "rounding_function": "rounding"}


def posted() -> dict[str, str]:
    """The form as it was typed."""
    return {name: request.form.get(name, "").strip() for name in FIELDS}


def shown(row: Metric | MetricRevision) -> dict[str, str]:
    """A definition as the form shows it."""
    rest = row.rest if isinstance(row, MetricRevision) else {name: getattr(row, name) for name in (*RESTS, "percentile")}
    percentile = rest.get("percentile")
    found = {name: getattr(row, name) for name in COUNTED if name != "percentile"} | {name: rest.get(name) for name in RESTS}
    found |= {"percentile": plain(Decimal(percentile)) if percentile else "", "recurring": "1" if row.recurring else ""}
    found |= {"group_by": ", ".join(row.group_by), "filters": "\n".join(filter_lines(row.filters))}
    if isinstance(row, Metric):
        found |= {name: getattr(row, name) for name in ("code", "event_name", *LABELS)}
    return {name: "" if value is None else str(value) for name, value in found.items()}


def filter_lines(filters: Iterable[Mapping[str, Any]]) -> list[str]:
    """Conditions as people type them: region = eu, us."""
    return [f"{one['property']} = {', '.join(one['in'])}" for one in filters]


def labels(form: Mapping[str, str]) -> dict[str, Any]:
    """The arguments that need no counting. Raises Invalid."""
    hours = form["late_after_hours"]
    if hours and not (hours.isascii() and hours.isdigit() and len(hours) < 6):
        raise _invalid("/late_after_hours", "Give whole hours, such as 24.")
    policy = form["late_policy"] or LatePolicy.ADJUST
    after = int(hours) if hours and policy == LatePolicy.REJECT else None
    return {"name": form["name"], "unit": form["unit"], "late_policy": policy, "late_after_hours": after}


def counted(form: Mapping[str, str]) -> dict[str, Any]:
    """The arguments that say how events are counted and what is made of the sums. Raises Invalid."""
    given: dict[str, Any] = {name: form[name] or None for name in ("property", "expression", "operation_property", "bucket_size")}
    given |= {"bucket_total": form["bucket_total"] or None, "rounding": form["rounding"] or None}
    given |= {"aggregation": form["aggregation"], "recurring": bool(form["recurring"]), "filters": list(_filters(form["filters"]))}
    given["group_by"] = [name.strip() for name in form["group_by"].split(",") if name.strip()]
    if form["percentile"]:
        given["percentile"] = _number("percentile", form["percentile"], "Give a number such as 95.")
    if form["rounding_precision"]:
        places = _number("rounding_precision", form["rounding_precision"], "Give whole places, such as 2 or -3.", signed=True)
        if places != int(places):
            raise _invalid("/rounding_precision", "Give whole places, such as 2 or -3.")
        given["rounding_precision"] = int(places)
    return given


def errors_of(error: BillingError) -> dict[str, str]:
    """The refusal by field of the form."""
    found: dict[str, str] = {}
    for name, sentence in field_errors(error).items():
        place = "filters" if name.startswith("filters") else PLACES.get(name, name)
        found.setdefault(place, sentence)
    return found


def _filters(text: str) -> Iterable[dict[str, Any]]:
    for line in text.splitlines():
        if line.strip():
            name, equals, values = line.partition("=")
            wanted = [value.strip() for value in values.split(",") if value.strip()]
            if not equals or not name.strip() or not wanted:
                raise _invalid("/filters", f"“{line.strip()[:60]}” is no condition; write them as region = eu, us.")
            yield {"property": name.strip(), "in": wanted}


def _number(name: str, text: str, detail: str, *, signed: bool = False) -> Decimal:
    try:
        return parse_decimal(text, signed=signed)
    except ValueError as error:
        raise _invalid(f"/{name}", detail) from error


def _invalid(pointer: str, detail: str) -> Invalid:
    return Invalid("The form cannot be read.", errors=(FieldError(pointer, detail),))
