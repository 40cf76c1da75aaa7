"""The catalogue: plans, their versions and what changed between them, metrics; and the editor that publishes the next version."""

from __future__ import annotations

import inspect
import json
from decimal import Decimal, localcontext
from difflib import unified_diff
from typing import Any

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint, plan_form, simulations
from admin.plan_form import Draft
from core import clock
from core.catalog import plan_document, publish, queries
from core.catalog.models import PlanVersion, PricingRule
from core.db import db
from core.errors import BillingError, FieldError, Invalid
from core.metering import metrics as metering
from core.metering.models import Metric
from core.money import EXACT, parse_decimal, round_half_up
from core.periods import Interval
from core.pricing.charge import explain_charge
from core.pricing.models import name_of, reads_one
from core.subscriptions.queries import counts_by_version
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page
from web.plan_words import rule_words
from web.price_words import Words

METRICS_MAX = 1_000
PERIODS_SIMULATED = 3
PLAN_KEYS = set(inspect.signature(publish.create_version).parameters) - {"session", "actor", "at"}
PERIODS = tuple((interval.value, interval.value.replace("_", " ").capitalize()) for interval in Interval)


@blueprint.get("/catalog")
@requires("catalog.view")
def catalog() -> Response:
    """Every plan with the version on offer and how many subscriptions it has."""
    plans = queries.plans(db.session(), active=None, limit=200)
    counts = counts_by_version(db.session())
    used = {plan.id: sum(counts.get(version.id, 0) for version in plan.versions) for plan in plans}
    return page("admin/catalog/index.html", current="catalog", plans=plans, used=used)


@blueprint.get("/catalog/metrics")
@requires("catalog.view")
def metrics() -> Response:
    """What is measured, and how events become a quantity."""
    return page("admin/catalog/metrics.html", current="metrics", metrics=metering.page(db.session(), limit=METRICS_MAX))


@blueprint.get("/catalog/plans/<code>")
@requires("catalog.view")
def plan(code: str) -> Response:
    """One plan: its versions, newest first, each with what changed since the one before."""
    found = queries.plan(db.session(), code)
    versions = sorted(found.versions, key=lambda version: version.version, reverse=True)
    return page(
        "admin/catalog/plan.html",
        current="catalog",
        plan=found,
        versions=versions,
        differences=_differences(versions),
        counts=counts_by_version(db.session()),
        words={rule.id: _words(rule, found.currency) for version in versions for rule in version.rules},
    )


@blueprint.get("/catalog/new")
@requires("catalog.change")
def new_plan() -> Response:
    """The editor, empty."""
    return _editor(plan_form.empty())


@blueprint.get("/catalog/plans/<code>/next")
@requires("catalog.change")
def next_version(code: str) -> Response:
    """The editor, filled with the newest version."""
    versions = queries.plan(db.session(), code).versions
    return _editor(plan_form.of_version(max(versions, key=lambda version: version.version)))


@blueprint.post("/catalog/versions")
@requires("catalog.change")
def save_version() -> Response:
    """Add or remove a row, calculate, simulate or publish: the button pressed says which."""
    draft = plan_form.read(request.form)
    changed = plan_form.acted(draft, request.form.get("act", ""))
    if changed is not None:
        return _editor(changed)
    try:
        if "json" in request.form:
            document = _pasted(request.form["json"])
        else:
            document = plan_form.document(draft)
        if request.form.get("act") == "simulate":
            segment = simulations.everybody_on(str(document.get("code", "")))
            return once(lambda: simulations.begin(document, segment, PERIODS_SIMULATED))
        if request.form.get("act") != "publish":
            return _editor(draft)
        return once(lambda: _publish(document))
    except BillingError as error:
        return _editor(draft, error, pasted=request.form.get("json"), status=422)


def _publish(document: dict[str, Any]) -> str:
    prices = document.get("prices") or ()
    plan_document.read_plan(document, _metrics())
    values = {"billing_period": "month", "base_price": "0", **document, "prices": prices}
    if unknown := sorted(values.keys() - PLAN_KEYS):
        raise Invalid("A plan has no such key.", errors=tuple(FieldError(f"/{key}", "is not a key of a plan") for key in unknown))
    made = publish.create_version(db.session(), **values, actor=g.actor, at=clock.now())
    return url_for("admin.plan", code=made.plan.code)


def _words(rule: PricingRule, currency: str) -> Words:
    """A price as customers read it."""
    return rule_words(rule, rule.currency or currency, rule.metric.unit if rule.metric else "")


def _metrics() -> dict[str, Metric]:
    return {metric.code: metric for metric in metering.page(db.session(), limit=METRICS_MAX)}


def _pasted(text: str) -> dict[str, Any]:
    """The JSON view's document; Invalid with the place of the fault."""
    try:
        document = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"This is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Invalid("A plan is a JSON object.")
    if unknown := sorted(set(document) - PLAN_KEYS):
        raise Invalid(f"A plan has no {unknown[0]!r}.")
    missing = [name for name in ("code", "name", "currency") if name not in document]
    if missing:
        raise Invalid(f"The plan needs {', '.join(missing)}.")
    return document


def _editor(draft: Draft, error: BillingError | None = None, *, pasted: str | None = None, status: int = 200) -> Response:
    known = metering.page(db.session(), limit=METRICS_MAX)
    return page(
        "admin/catalog/editor.html",
        partial="admin/catalog/_editor.html",
        status=status,
        current="catalog",
        draft=draft,
        errors=plan_form.placed(field_errors(error), draft) if error and pasted is None else field_errors(error) if error else {},
        models=plan_form.MODELS,
        fields=plan_form.MODEL_FIELDS,
        tier_fields=plan_form.TIER_FIELDS,
        periods=PERIODS,
        metrics=[("", "None: a recurring fee"), *((metric.code, f"{metric.name} ({metric.code})") for metric in known)],
        calculation=_calculate(draft, {metric.code: metric for metric in known}),
        json_view=request.values.get("view") == "json" or pasted is not None,
        text=pasted if pasted is not None else plan_form.as_json(draft),
    )


def _calculate(draft: Draft, metrics: dict[str, Metric]) -> dict[str, Any]:
    """What the prices as typed come to for the quantities as typed, by the kernel that bills; or why they cannot be priced yet."""
    try:
        checked = plan_document.read_plan(plan_form.document(draft), metrics)
    except Invalid as error:
        return {"faults": [f"{item.pointer}: {item.detail}" for item in error.errors] or [error.message]}
    rows: list[dict[str, Any]] = []
    for price, typed in zip(checked.prices, draft.quantities, strict=True):
        try:
            quantity = parse_decimal(typed or "0")
        except ValueError as error:
            return {"faults": [f"Quantity of {price.code}: {error}"]}
        if not reads_one(price.model):
            rows.append({"price": price, "quantity": quantity, "steps": (), "minor": 0, "by": name_of(price.model).replace("_", " ")})
            continue
        with localcontext(EXACT):
            found = explain_charge(price.model, quantity)
        rows.append({"price": price, "quantity": quantity, "steps": found.steps, "minor": round_half_up(found.amount, checked.currency)})
    base = round_half_up(checked.base_price, checked.currency)
    return {"plan": checked, "rows": rows, "base": base, "total": base + sum(row["minor"] for row in rows)}


def _differences(versions: list[PlanVersion]) -> dict[Any, list[str]]:
    """By version id, the lines of its document that differ from the version before: "+ …" came, "- …" went."""
    texts = [plan_form.as_json(plan_form.of_version(version)).splitlines() for version in versions]
    found: dict[Any, list[str]] = {}
    for i, version in enumerate(versions[:-1]):
        lines = unified_diff(texts[i + 1], texts[i], lineterm="", n=0)
        found[version.id] = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    return found
