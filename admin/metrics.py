"""Metrics: one with what it says and said, the form that makes one, and the one that changes its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint, metric_form
from core import clock
from core.db import db
from core.errors import BillingError
from core.metering import metrics as metering
from core.metering.models import Aggregation, LatePolicy, Metric
from core.metering.revisions import proposing
from web.auth import requires
from web.forms import once
from web.htmx import page


@blueprint.get("/catalog/metrics/<code>")
@requires("catalog.view")
def metric(code: str) -> Response:
    """What it counts and how, what late usage becomes, and what it said before."""
    found = metering.find(db.session(), code)
    return page(
        "admin/catalog/metric.html",
        current="metrics",
        metric=found,
        said=proposing.said(found),
        filters=metric_form.filter_lines(found.filters),
        meaning=metric_form.MEANINGS[Aggregation(found.aggregation)],
        late=metric_form.LATE[LatePolicy(found.late_policy)],
        revisions=proposing.newest(db.session(), found),
    )


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
    form = metric_form.posted()

    def work() -> str:
        given = metric_form.labels(form) | metric_form.counted(form) | {"code": form["code"], "event_name": form["event_name"] or None}
        metering.create(db.session(), **given, actor=g.actor, at=clock.now())
        return url_for("admin.metrics")

    try:
        return once(work)
    except BillingError as error:
        return _form(form, metric_form.errors_of(error), status=error.status)


@blueprint.get("/catalog/metrics/<code>/change")
@requires("catalog.change")
def change_metric(code: str) -> Response:
    """The form for what needs no counting: name, unit, late usage."""
    found = metering.find(db.session(), code)
    return _change_form(found, metric_form.shown(found))


@blueprint.post("/catalog/metrics/<code>/change")
@requires("catalog.change")
def do_change_metric(code: str) -> Response:
    """Change it."""
    found, form = metering.find(db.session(), code), metric_form.posted()

    def work() -> str:
        metering.change(db.session(), found, **metric_form.labels(form), actor=g.actor, at=clock.now())
        return url_for("admin.metric", code=code)

    try:
        return once(work)
    except BillingError as error:
        return _change_form(found, form, metric_form.errors_of(error), status=error.status)


def _change_form(found: Metric, form: Mapping[str, Any], errors: Mapping[str, str] | None = None, status: int = 200) -> Response:
    given: dict[str, Any] = {"metric": found, "form": form, "errors": errors or {}, "choices": metric_form.CHOICES}
    return page("admin/catalog/change_metric.html", current="metrics", status=status, **given)


def _words(name: str) -> str:
    """A first name for a metric: llm.input_tokens becomes Llm input tokens."""
    return name.replace(".", " ").replace("_", " ").replace("-", " ").strip().capitalize()


def _form(form: Mapping[str, Any], errors: Mapping[str, str] | None = None, status: int = 200) -> Response:
    return page(
        "admin/catalog/new_metric.html", current="metrics", form=form, errors=errors or {}, choices=metric_form.CHOICES, status=status
    )
