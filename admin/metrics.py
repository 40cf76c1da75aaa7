"""The form that makes a metric, for instance of an event name that is kept without one."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from core import clock
from core.db import db
from core.errors import BillingError, FieldError, Invalid
from core.metering import metrics as metering
from core.metering.models import Aggregation
from core.money import parse_decimal
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page

FIELDS = ("code", "name", "unit", "event_name", "aggregation", "property", "percentile", "group_by")
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


@blueprint.get("/catalog/metrics/new")
@requires("catalog.change")
def new_metric() -> Response:
    """The form; `event` fills in the name of the events it is to read."""
    name = request.args.get("event", "").strip()
    return _form({"code": name, "event_name": name, "name": _words(name), "aggregation": Aggregation.SUM})


@blueprint.post("/catalog/metrics")
@requires("catalog.change")
def create_metric() -> Response:
    """Create it; the aggregator then counts the events of its name that are already there."""
    form = {name: request.form.get(name, "").strip() for name in FIELDS}

    def work() -> str:
        metering.create(db.session(), **_given(form), actor=g.actor, at=clock.now())
        return url_for("admin.metrics")

    try:
        return once(work)
    except BillingError as error:
        return _form(form, field_errors(error), status=error.status)


def _given(form: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of metrics.create. Raises Invalid for a percentile that is no number."""
    groups = [name.strip() for name in form["group_by"].split(",") if name.strip()]
    given: dict[str, Any] = {name: form[name] or None for name in ("property", "event_name")}
    if form["percentile"]:
        given["percentile"] = _percentile(form["percentile"])
    return {**given, **{name: form[name] for name in ("code", "name", "unit", "aggregation")}, "group_by": groups}


def _percentile(text: str) -> Decimal:
    try:
        return parse_decimal(text)
    except ValueError as error:
        fault = FieldError("/percentile", "Give a number such as 95.")
        raise Invalid("The metric was not created.", errors=(fault,)) from error


def _words(name: str) -> str:
    """A first name for a metric: llm.input_tokens becomes Llm input tokens."""
    return name.replace(".", " ").replace("_", " ").replace("-", " ").strip().capitalize()


def _form(form: Mapping[str, Any], errors: Mapping[str, str] | None = None, status: int = 200) -> Response:
    choices = [(one.value, MEANINGS.get(one, one.value.replace("_", " ").capitalize())) for one in Aggregation]
    return page("admin/catalog/new_metric.html", current="metrics", form=form, errors=errors or {}, aggregations=choices, status=status)
