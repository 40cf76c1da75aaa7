"""Invoice runs: rate everything due into drafts, look at what is unlike before, finalize the rest in bulk, with progress."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import current_app, g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.run_view import REASONS, Decision, stages_of, view_of
from core import clock
from core.db import db, transaction
from core.errors import BillingError, FieldError, Invalid
from core.identity.queries import as_uuid
from core.invoicing import numbering, review, run
from core.invoicing.models import RunStatus
from core.invoicing.review import Reason, ReviewRow
from core.payments import queries as payments
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page, redirect_to

ROWS_MAX = 50
REASON_LENGTH_MIN = 10
CALM = "calm"
"""The choice that shows the drafts without any reason."""


@blueprint.get("/runs")
@requires("runs.view")
def runs() -> Response:
    """The runs, newest first."""
    found = run.runs(db.session())
    totals = {row.id: run.totals(db.session(), row.id) for row in found[:1]}
    return page("admin/runs/index.html", current="runs", runs=found, totals=totals)


@blueprint.post("/runs")
@requires("runs.start")
def start_run() -> Response:
    """Rate everything that is due now into drafts that wait for a person."""

    def work() -> str:
        begun = run.start(db.session(), as_of=clock.now(), actor=g.actor, at=clock.now())
        return url_for("admin.run", run_id=begun.id)

    return once(work)


@blueprint.get("/runs/<uuid:run_id>", endpoint="run")
@requires("runs.view")
def show_run(run_id: uuid.UUID) -> Response:
    """Stages, totals, exceptions first."""
    return _show(run_id, request.args.get("reason", ""))


@blueprint.get("/runs/<uuid:run_id>/progress")
@requires("runs.view")
def run_progress(run_id: uuid.UUID) -> Response:
    """The moving part of the page: asked for every second until the run stands still."""
    session = db.session()
    found = run.get(session, run_id)
    rows = review.rows(session, run_id)
    stages = stages_of(found, rows, run.totals(session, run_id))
    if found.status not in {RunStatus.RATING, RunStatus.FINALIZING}:
        return redirect_to(url_for("admin.run", run_id=run_id))
    return page("admin/runs/progress.html", partial="admin/runs/_progress.html", current="runs", run=found, stages=stages)


@blueprint.post("/runs/<uuid:run_id>/decisions")
@requires("runs.review")
def decide(run_id: uuid.UUID) -> Response:
    """Approve, hold or release the picked drafts, or approve every draft without an exception."""
    decision = Decision.parse(request.form.get("do", ""))
    shown = request.form.get("shown", "")
    try:
        _decide(run_id, decision)
    except Invalid as error:
        return _show(run_id, shown, error)
    return redirect_to(url_for("admin.run", run_id=run_id, reason=shown or None))


@blueprint.get("/runs/<uuid:run_id>/finalization")
@requires("runs.finalize")
def confirm_finalization(run_id: uuid.UUID) -> Response:
    """What finalizing will do, before it is done: how many, how much, which numbers, which mails and charges."""
    session, settings = db.session(), current_app.config["SETTINGS"]
    totals = run.totals(session, run_id)
    first = numbering.upcoming(session, entity=settings.seller.legal_name, series=settings.seller.series, year=clock.now().year)
    ready = sum(entry.drafts - entry.held for entry in totals)
    return page(
        "admin/runs/finalize.html",
        current="runs",
        run=run.get(session, run_id),
        totals=totals,
        ready=ready,
        first=first.text,
        last=replace(first, sequence=first.sequence + max(ready, 1) - 1).text,
        charges=payments.chargeable_drafts(session, run_id),
    )


@blueprint.post("/runs/<uuid:run_id>/finalization")
@requires("runs.finalize")
def finalize_run(run_id: uuid.UUID) -> Response:
    """Finalize every draft that is not held; asked again, it goes on where it stopped."""

    def work() -> str:
        run.request_finalize(db.session(), run_id, at=clock.now(), actor=g.actor)
        return url_for("admin.run", run_id=run_id)

    return once(work)


@blueprint.post("/runs/<uuid:run_id>/pause")
@requires("runs.finalize")
def pause_run(run_id: uuid.UUID) -> Response:
    """Stop after the present set."""
    with transaction() as session:
        run.pause(session, run_id, at=clock.now(), actor=g.actor)
    return redirect_to(url_for("admin.run", run_id=run_id))


def _show(run_id: uuid.UUID, reason: str, error: BillingError | None = None) -> Response:
    session = db.session()
    found = run.get(session, run_id)
    rows = review.rows(session, run_id)
    chosen = _chosen(rows, reason)
    shown = chosen[: ROWS_MAX if "all" not in request.args else None]
    causes = review.causes(session, [row.invoice_id for row in shown])
    return page(
        "admin/runs/show.html",
        partial="admin/runs/_review.html",
        status=error.status if error else 200,
        current="runs",
        errors=field_errors(error) if error else {},
        form=request.form,
        run=found,
        stages=stages_of(found, rows, run.totals(session, run_id)),
        totals=run.totals(session, run_id),
        run_errors=run.errors(session, run_id),
        counts=review.counts(rows),
        calm=sum(not row.reasons for row in rows),
        open_calm=sum(not row.reasons and not row.reviewed_by and not row.held_reason for row in rows),
        rows=[view_of(row, causes[row.invoice_id]) for row in shown],
        more=len(chosen) - len(shown),
        reason=reason,
        reason_names=REASONS,
    )


def _decide(run_id: uuid.UUID, decision: Decision) -> None:
    with transaction() as session:
        rows = {row.invoice_id: row for row in review.rows(session, run_id)}
        if decision.what == "approve_calm":
            picked = [key for key, row in rows.items() if not row.reasons and not row.held_reason]
        else:
            names = [decision.only] if decision.only else request.form.getlist("pick")
            picked = [key for name in names if (key := as_uuid(name)) in rows]
        _carry_out(session, decision, picked)


def _chosen(rows: Sequence[ReviewRow], reason: str) -> list[ReviewRow]:
    if reason == CALM:
        return [row for row in rows if not row.reasons]
    wanted = next((known for known in Reason if known == reason), None)
    return [row for row in rows if row.reasons and (wanted is None or wanted in row.reasons)]


def _carry_out(session: Any, decision: Decision, picked: Sequence[uuid.UUID]) -> None:
    at, actor = clock.now(), g.actor
    if decision.what in {"approve", "approve_calm"}:
        review.approve(session, picked, at=at, actor=actor)
        return
    if decision.what == "release":
        for invoice_id in picked:
            review.release(session, invoice_id, at=at, actor=actor)
        return
    why = request.form.get("why", "").strip()
    if len(why) < REASON_LENGTH_MIN:
        detail = f"Say in at least {REASON_LENGTH_MIN} characters why the drafts are held back."
        raise Invalid("A reason is needed.", errors=(FieldError("/why", detail),))
    for invoice_id in picked:
        review.hold(session, invoice_id, reason=why, at=at, actor=actor)
