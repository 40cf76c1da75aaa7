"""Moves of many subscriptions to another version of a plan: preview, exceptions first, decide, move with progress, pause, take back."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.run_view import signed
from core import clock
from core.catalog import queries as catalog
from core.catalog.models import PlanKind, PlanVersion
from core.db import db, transaction
from core.errors import BillingError, FieldError, Invalid, NotFound
from core.identity.queries import as_uuid
from core.invoicing import plan_move_results, plan_moves
from core.invoicing.plan_move_models import ItemState, MoveStatus, PlanMove, Timing
from core.invoicing.plan_move_preview import Flag
from core.money import parse_decimal
from core.subscriptions.queries import counts_by_version
from web.auth import requires
from web.dates import begins, read_day
from web.forms import field_errors, once
from web.htmx import page, redirect_to

PLANS_MAX = 200
ROWS_MAX = 50
FLAGS = {
    Flag.INCREASE: "Increase",
    Flag.UNDER_NOTICE: "Ends",
    Flag.CHANGE_PLANNED: "Change planned",
    Flag.UNDER_CONTRACT: "Under contract",
}
STATES = {
    ItemState.READY: ("info", "◔", "Ready"),
    ItemState.HELD: ("warn", "!", "Held back"),
    ItemState.MOVED: ("ok", "●", "Moved"),
    ItemState.FAILED: ("bad", "▲", "Failed"),
    ItemState.UNDONE: ("", "↺", "Taken back"),
}
STATUSES = {
    MoveStatus.PREVIEWING: ("info", "◔", "Previewing"),
    MoveStatus.REVIEW: ("info", "◐", "In review"),
    MoveStatus.MOVING: ("info", "◔", "Moving"),
    MoveStatus.UNDOING: ("info", "◔", "Taking back"),
    MoveStatus.DONE: ("ok", "●", "Finished"),
}
WHEN = ((Timing.PERIOD_END, "Each one's period end"), (Timing.NOW, "The preview"), (Timing.DATE, "A day"))
WORKING = (MoveStatus.PREVIEWING, MoveStatus.MOVING, MoveStatus.UNDOING)


@blueprint.get("/moves")
@requires("catalog.view")
def moves() -> Response:
    """The moves, newest first, and the form for the next."""
    return _index({"from_version": request.args.get("version", "")})


@blueprint.post("/moves")
@requires("moves.preview")
def start_move() -> Response:
    """Begin the preview; nothing is moved yet."""
    form = {name: request.form.get(name, "").strip() for name in ("from_version", "to_version", "when", "on", "increase_percent")}
    try:
        return once(lambda: _preview(form))
    except BillingError as error:
        return _index(form, error)


@blueprint.get("/moves/<uuid:move_id>", endpoint="move")
@requires("catalog.view")
def show_move(move_id: uuid.UUID) -> Response:
    """Where it stands, what it comes to, exceptions first."""
    return _show(move_id)


@blueprint.get("/moves/<uuid:move_id>/progress")
@requires("catalog.view")
def move_progress(move_id: uuid.UUID) -> Response:
    """The moving part of the page: asked for every second until the move stands still."""
    found = plan_moves.get(db.session(), move_id)
    if found.status not in WORKING:
        return redirect_to(url_for("admin.move", move_id=move_id))
    return page("admin/moves/progress.html", partial="admin/moves/_progress.html", current="moves", move=found, **_standing(found))


@blueprint.post("/moves/<uuid:move_id>/decisions")
@requires("moves.preview")
def decide_move(move_id: uuid.UUID) -> Response:
    """Hold the picked subscriptions back, or release them."""
    picked = [found for name in request.form.getlist("pick") if (found := as_uuid(name)) is not None]
    what = request.form.get("do", "")
    if what not in ("hold", "release"):
        raise Invalid("Choose what to do: hold or release.")
    with transaction() as session:
        plan_moves.decide(session, move_id, picked, hold=what == "hold", at=clock.now(), actor=g.actor)
    return redirect_to(url_for("admin.move", move_id=move_id, show=request.form.get("shown") or None))


@blueprint.post("/moves/<uuid:move_id>/start")
@requires("moves.start")
def carry_out_move(move_id: uuid.UUID) -> Response:
    """Move everybody who is ready; after a pause, go on."""

    def work() -> str:
        plan_moves.request_move(db.session(), move_id, at=clock.now(), actor=g.actor)
        return url_for("admin.move", move_id=move_id)

    return _refusable(move_id, lambda: once(work))


@blueprint.post("/moves/<uuid:move_id>/pause")
@requires("moves.start")
def pause_move(move_id: uuid.UUID) -> Response:
    """Stop after the present set."""
    with transaction() as session:
        plan_moves.pause(session, move_id, at=clock.now(), actor=g.actor)
    return redirect_to(url_for("admin.move", move_id=move_id))


@blueprint.post("/moves/<uuid:move_id>/undo")
@requires("moves.start")
def undo_move(move_id: uuid.UUID) -> Response:
    """Take back what does not hold yet."""

    def work() -> str:
        plan_moves.request_undo(db.session(), move_id, at=clock.now(), actor=g.actor)
        return url_for("admin.move", move_id=move_id)

    return _refusable(move_id, lambda: once(work))


def _refusable(move_id: uuid.UUID, act: Any) -> Response:
    try:
        answer: Response = act()
    except BillingError as error:
        if isinstance(error, NotFound):
            raise
        return _show(move_id, error)
    return answer


def _preview(form: dict[str, str]) -> str:
    timing = next((known for known in Timing if known == form["when"]), Timing.PERIOD_END)
    day = read_day(form["on"])
    if timing is Timing.DATE and day is None:
        raise Invalid("This cannot be moved.", errors=(FieldError("/on", "choose the day"),))
    made = plan_moves.start(
        db.session(),
        from_version=_version(form, "from_version"),
        to=_version(form, "to_version"),
        timing=timing,
        on=begins(day, "UTC") if day and timing is Timing.DATE else None,
        increase_percent=_percent(form["increase_percent"]),
        at=clock.now(),
        actor=g.actor,
    )
    return url_for("admin.move", move_id=made.id)


def _version(form: dict[str, str], name: str) -> PlanVersion:
    named = as_uuid(form[name])
    if named is None:
        raise Invalid("This cannot be moved.", errors=(FieldError(f"/{name}", "choose a version"),))
    return catalog.version(db.session(), named)


def _percent(text: str) -> Decimal:
    try:
        return parse_decimal(text or "10")
    except ValueError as error:
        raise Invalid("This cannot be moved.", errors=(FieldError("/increase_percent", str(error)),)) from error


def _index(form: dict[str, str], error: BillingError | None = None) -> Response:
    plans = [plan for plan in catalog.plans(db.session(), active=None, limit=PLANS_MAX) if plan.kind == PlanKind.PLAN]
    counts = counts_by_version(db.session())
    versions = [(version, f"{plan.name}, version {version.version}") for plan in plans for version in reversed(plan.versions)]
    running = [(version.id, f"{name} ({counts[version.id]:,})") for version, name in versions if counts.get(version.id)]
    return page(
        "admin/moves/index.html",
        status=error.status if error else 200,
        current="moves",
        errors=field_errors(error) if error else {},
        form={"increase_percent": "10", "when": Timing.PERIOD_END, **form},
        sources=[("", "Choose"), *running],
        targets=[("", "Choose"), *((version.id, name) for version, name in versions)],
        when=WHEN,
        moves=plan_move_results.moves(db.session()),
        statuses=STATUSES,
    )


def _show(move_id: uuid.UUID, error: BillingError | None = None) -> Response:
    session, shown = db.session(), request.args.get("show", "")
    found = plan_moves.get(session, move_id)
    only = next((known for known in (*Flag, *ItemState) if known == shown), None)
    everything = "all" in request.args
    rows = plan_move_results.exceptions(session, move_id, only=only, limit=None if everything else ROWS_MAX + 1)
    cut = rows if everything else rows[:ROWS_MAX]
    return page(
        "admin/moves/show.html",
        partial="admin/moves/_review.html",
        status=error.status if error else 200,
        current="moves",
        errors=field_errors(error) if error else {},
        move=found,
        statuses=STATUSES,
        states=STATES,
        flags=FLAGS,
        shown=shown,
        flag_counts=plan_move_results.flag_counts(session, move_id),
        sums=plan_move_results.sums(session, move_id),
        undoable=plan_move_results.undoable(session, move_id, clock.now()),
        rows=[(row, signed(row.change_minor, row.currency) if row.change_minor is not None else "") for row in cut],
        more=len(rows) > len(cut),
        **_standing(found),
    )


def _standing(found: PlanMove) -> dict[str, Any]:
    counts = plan_move_results.states(db.session(), found.id)
    previewed, ready, moved = sum(counts.values()), counts[ItemState.READY], counts[ItemState.MOVED]
    at = {MoveStatus.PREVIEWING: 0, MoveStatus.REVIEW: 1, MoveStatus.MOVING: 2, MoveStatus.UNDOING: 2, MoveStatus.DONE: 3}
    words = (
        ("Preview", f"{previewed:,}", f"of {found.subscriptions_total:,} subscriptions"),
        ("Review", f"{counts[ItemState.HELD]:,}", "held back"),
        ("Move", f"{moved:,}", f"{ready:,} ready, {counts[ItemState.FAILED]:,} failed"),
    )
    now = at[MoveStatus(found.status)]
    stages = [
        {"label": label, "value": value, "detail": detail, "state": "done" if i < now else "now" if i == now else ""}
        for i, (label, value, detail) in enumerate(words)
    ]
    done = previewed if found.status == MoveStatus.PREVIEWING else moved + counts[ItemState.FAILED] + counts[ItemState.UNDONE]
    return {"counts": counts, "stages": stages, "ready": ready, "done": done, "total": max(found.subscriptions_total, done, 1)}
