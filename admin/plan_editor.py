"""The price editor: a plan as a form, or as JSON, with what it comes to beside it; saved as a draft, simulated, or published."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint, plan_form, plan_worked, price_form, simulations
from admin.plan_form import Draft
from core import clock
from core.catalog import draft_document, drafts, publish, queries
from core.catalog.draft_models import DraftStatus, PlanDraft
from core.catalog.models import PlanKind
from core.db import db
from core.errors import BillingError, Conflict, FieldError, Forbidden, Invalid
from core.identity import permissions
from core.metering import metrics as metering
from core.metering.models import Metric
from core.periods import Interval
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page

METRICS_MAX = 1_000
PERIODS_SIMULATED = 3
PERIODS = tuple((interval.value, interval.value.replace("_", " ").capitalize()) for interval in Interval if interval != Interval.DAYS_30)
DRAFT_STATUSES = {
    DraftStatus.OPEN: ("", "○", "Draft"),
    DraftStatus.PROPOSED: ("info", "◐", "Waits for publishing"),
    DraftStatus.PUBLISHED: ("ok", "●", "Published"),
    DraftStatus.DISCARDED: ("", "✕", "Discarded"),
}
TEMPLATES: dict[str, dict[str, Any]] = {
    "usage": {"base_price": "0", "prices": [{"model": "graduated", "tiers": [{"up_to": "10000"}, {"up_to": None}]}]},
    "seats": {"base_price": "49.00", "prices": [{"licensed": "seats", "name": "Seats", "model": "per_unit", "unit_price": "12.00"}]},
    "bundle": {"base_price": "99.00", "prices": [{"model": "per_unit", "included": "10000"}]},
    "committed": {
        "base_price": "0",
        "prices": [
            {"model": "per_unit"},
            {"code": "minimum", "name": "Monthly minimum", "model": "commitment", "amount": "500.00"},
        ],
    },
}
"""What a new plan can begin with."""


@blueprint.get("/catalog/new")
@requires("catalog.change")
def new_plan() -> Response:
    """The editor, empty or with a template."""
    template = TEMPLATES.get(request.args.get("template", ""))
    return _editor(plan_form.of_document(template) if template else plan_form.empty())


@blueprint.get("/catalog/plans/<code>/next")
@requires("catalog.change")
def next_version(code: str) -> Response:
    """The editor, filled with the newest version."""
    versions = queries.plan(db.session(), code).versions
    return _editor(plan_form.of_version(max(versions, key=lambda version: version.version)))


@blueprint.get("/catalog/drafts/<uuid:draft_id>/edit")
@requires("catalog.change")
def edit_draft(draft_id: uuid.UUID) -> Response:
    """The editor with a stored draft."""
    stored = drafts.get(db.session(), draft_id)
    if stored.status not in drafts.BEING_WRITTEN:
        raise Conflict(f"This draft was {stored.status}.")
    return _editor(plan_form.with_usage(plan_form.of_document(stored.document), stored.usage), stored=stored)


@blueprint.post("/catalog/versions")
@requires("catalog.change")
def save_version() -> Response:
    """Add or remove a row, calculate, simulate, save as a draft or publish: the button pressed says which."""
    return _act(None)


@blueprint.post("/catalog/drafts/<uuid:draft_id>/edit")
@requires("catalog.change")
def save_draft(draft_id: uuid.UUID) -> Response:
    """The same for a stored draft."""
    return _act(drafts.get(db.session(), draft_id))


def _act(stored: PlanDraft | None) -> Response:
    act, pasted = request.form.get("act", ""), request.form.get("json")
    draft = plan_form.read(request.form)
    changed = plan_form.acted(draft, act, request.form.get("new_currency", ""))
    if changed is not None:
        return _editor(changed, stored=stored)
    try:
        document = plan_form.document(draft) if pasted is None else _pasted(pasted)
        if pasted is not None:
            draft = plan_form.of_document(document)
        match act:
            case "simulate":
                segment = simulations.everybody_on(str(document.get("code", "")))
                return once(lambda: simulations.begin(document, segment, PERIODS_SIMULATED))
            case "save":
                return once(lambda: _save(stored, document, draft))
            case "publish":
                return once(lambda: _publish(stored, document, draft))
        return _editor(draft, stored=stored)
    except BillingError as error:
        theirs = isinstance(error, Conflict) and error.code == "changed_meanwhile" and stored is not None
        found = drafts.get(db.session(), stored.id) if theirs and stored else stored
        return _editor(draft, error, stored=found, pasted=pasted, status=error.status, theirs=theirs)


def _save(stored: PlanDraft | None, document: dict[str, Any], draft: Draft) -> str:
    name, usage = request.form.get("draft_name", ""), plan_form.usage_of(draft)
    session, actor, at = db.session(), g.actor, clock.now()
    if stored is None:
        begun = drafts.live_version(session, str(document.get("code", "")))
        stored = drafts.create(session, name=name, document=document, usage=usage, based_on=begun, actor=actor, at=at)
    else:
        drafts.save(session, stored.id, revision=_revision(), name=name, document=document, usage=usage, actor=actor, at=at)
    return url_for("admin.draft", draft_id=stored.id)


def _publish(stored: PlanDraft | None, document: dict[str, Any], draft: Draft) -> str:
    """Publish what is typed: at once, or as the next revision of its draft."""
    if not permissions.can(g.role, "catalog.publish"):
        raise Forbidden("Your role may not publish plans.")
    if stored is None:
        if drafts.needs_second_person():
            raise Forbidden("Save this as a draft: somebody else has to publish it.", code="second_person_needed")
        made = publish.create_version(db.session(), **drafts.arguments(document), actor=g.actor, at=clock.now())
        return url_for("admin.plan", code=made.plan.code)
    session, at = db.session(), clock.now()
    saved = drafts.save(
        session,
        stored.id,
        revision=_revision(),
        name=request.form.get("draft_name", ""),
        document=document,
        usage=plan_form.usage_of(draft),
        actor=g.actor,
        at=at,
    )
    made = drafts.publish_draft(session, saved.id, revision=saved.revision, actor=g.actor, at=at)
    return url_for("admin.plan", code=made.plan.code)


def _revision() -> int:
    text = request.form.get("revision", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _pasted(text: str) -> dict[str, Any]:
    """The JSON view's document; Invalid with the place of the fault."""
    try:
        document = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"This is not JSON: {error}", errors=(FieldError("/json", f"is not JSON: {error}"),)) from error
    if not isinstance(document, dict):
        raise Invalid("A plan is a JSON object.", errors=(FieldError("/json", "must be a JSON object"),))
    drafts.arguments(document)
    return document


def known_metrics() -> dict[str, Metric]:
    """The metrics that prices may read, by code."""
    return {metric.code: metric for metric in metering.page(db.session(), limit=METRICS_MAX)}


def _editor(
    draft: Draft,
    error: BillingError | None = None,
    *,
    stored: PlanDraft | None = None,
    pasted: str | None = None,
    status: int = 200,
    theirs: bool = False,
) -> Response:
    metrics = known_metrics()
    return page(
        "admin/catalog/editor.html",
        partial="admin/catalog/_editor.html",
        status=status,
        current="catalog",
        draft=draft,
        stored=stored,
        draft_name=request.form.get("draft_name", stored.name if stored else ""),
        action=url_for("admin.save_draft", draft_id=stored.id) if stored else url_for("admin.save_version"),
        theirs=_theirs(stored, draft) if theirs and stored else None,
        errors=_errors(error, draft, pasted),
        shape=price_form,
        periods=PERIODS,
        kinds=[(kind.value, kind.value.replace("_", "-").capitalize()) for kind in PlanKind],
        metrics=[("", "None: a recurring fee"), *((code, f"{metric.name} ({code})") for code, metric in metrics.items())],
        names={code: metric.name for code, metric in metrics.items()},
        known={code: metric.group_by for code, metric in metrics.items()},
        week_of=plan_worked.week_of,
        worked=plan_worked.work_out(draft, metrics),
        json_view=(request.values.get("view") or ("json" if "json" in request.form else "")) == "json"
        or (pasted is not None and error is not None),
        text=pasted if pasted is not None and error is not None else plan_form.as_json(draft),
        second_person=drafts.needs_second_person(),
    )


def _errors(error: BillingError | None, draft: Draft, pasted: str | None) -> Mapping[str, str]:
    if error is None:
        return {}
    if pasted is not None:
        found = field_errors(error)
        return found if set(found) <= {"json", ""} else {"json": " ".join(f"{e.pointer}: {e.detail}." for e in error.errors)}
    return plan_form.placed(error.errors, draft) if error.errors else {"": error.message}


def _theirs(stored: PlanDraft, draft: Draft) -> list[tuple[str, Any, Any]]:
    """(place, as somebody else saved it, as it is typed here) for each difference."""
    theirs, mine = draft_document.changes(stored.document, plan_form.document(draft))
    return [(plan_form.spoken(place), theirs[place], mine[place]) for place in theirs]
