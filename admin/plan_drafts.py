"""Drafts of plan versions: where each stands, what it changes in words and money, and what is done with it."""

from __future__ import annotations

import uuid
from typing import Any

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint, plan_compare, plan_form, simulations
from admin.plan_editor import DRAFT_STATUSES, PERIODS_SIMULATED, known_metrics
from core import clock
from core.catalog import drafts, publish
from core.catalog.draft_models import DraftStatus, PlanDraft
from core.db import db
from core.errors import BillingError, Forbidden, Invalid, NotFound
from core.identity import permissions
from core.identity.queries import as_uuid
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page

NEEDS = {"publish": "catalog.publish", "send_back": "catalog.publish", "simulate": "simulations.start"}
"""What an act takes; the others take catalog.change."""


@blueprint.get("/catalog/drafts", endpoint="drafts")
@requires("catalog.view")
def show_drafts() -> Response:
    """Every draft, changed last first; those that are published or discarded too when asked for."""
    every = "all" in request.args
    found = drafts.page(db.session(), every=every, limit=drafts.PAGE_SIZE_MAX)
    return page("admin/catalog/drafts.html", current="catalog", drafts=found, every=every, statuses=DRAFT_STATUSES)


@blueprint.get("/catalog/drafts/<uuid:draft_id>", endpoint="draft")
@requires("catalog.view")
def show_draft(draft_id: uuid.UUID) -> Response:
    """What the draft changes, what is wrong with it, and what can be done."""
    return _show(drafts.get(db.session(), draft_id))


@blueprint.post("/catalog/drafts/<uuid:draft_id>/acts")
@requires("catalog.view")
def act_on_draft(draft_id: uuid.UUID) -> Response:
    """Propose, publish, send back, discard, take note of a newer version, or simulate."""
    act = request.form.get("act", "")
    if not permissions.can(g.role, NEEDS.get(act, "catalog.change")):
        raise Forbidden(f"Your role ({g.role.replace('_', ' ')}) may not do this.")
    drafts.get(db.session(), draft_id)
    try:
        return once(lambda: _carry_out(draft_id, act))
    except BillingError as error:
        if isinstance(error, NotFound):
            raise
        return _show(drafts.get(db.session(), draft_id), error)


def _carry_out(draft_id: uuid.UUID, act: str) -> str:
    session, at, note = db.session(), clock.now(), request.form.get(f"note_{act}", "").strip()
    text = request.form.get("revision", "")
    given: dict[str, Any] = {"revision": int(text) if text.isdecimal() and len(text) < 10 else 0, "actor": g.actor, "at": at}
    match act:
        case "publish":
            made = drafts.publish_draft(session, draft_id, **given)
            return url_for("admin.plan", code=made.plan.code)
        case "propose":
            drafts.propose(session, draft_id, **given)
        case "send_back":
            drafts.send_back(session, draft_id, note=note, **given)
        case "discard":
            drafts.discard(session, draft_id, note=note, **given)
            return url_for("admin.drafts")
        case "rebase":
            drafts.rebase(session, draft_id, **given)
        case "simulate":
            found = drafts.get(session, draft_id)
            return simulations.begin(drafts.arguments(found.document), simulations.everybody_on(found.plan_code), PERIODS_SIMULATED)
        case _:
            raise Invalid("Choose what to do with the draft.")
    return url_for("admin.draft", draft_id=draft_id)


def _show(draft: PlanDraft, error: BillingError | None = None) -> Response:
    session = db.session()
    faults = drafts.faults(session, draft.document)
    comparison = None
    if not faults:
        made = publish.unpublished(session, drafts.arguments(draft.document))
        comparison = plan_compare.compare(draft.based_on, made, draft.usage, known_metrics(), draft.document)
    writing = draft.status in drafts.BEING_WRITTEN
    own = as_uuid(g.actor.id) is not None and any(known["id"] == g.actor.id for known in draft.editors)
    return page(
        "admin/catalog/draft.html",
        status=error.status if error else 200,
        current="catalog",
        draft=draft,
        tone=DRAFT_STATUSES[DraftStatus(draft.status)],
        errors={**({"": error.message} if not error.errors else {}), **field_errors(error)} if error else {},
        faults=[(plan_form.spoken(fault.pointer), fault.detail) for fault in faults],
        comparison=comparison,
        newer=drafts.newer_version(session, draft) if writing else None,
        writing=writing,
        barred=drafts.needs_second_person() and own,
        second_person=drafts.needs_second_person(),
        known_plan=drafts.live_version(session, draft.plan_code) is not None,
    )
