"""Pausing the plan, going on, and coming back: each on a page that says what it means and what it costs or gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import g, request, url_for
from werkzeug.wrappers import Response

from core import clock
from core.db import db
from core.errors import Conflict, Invalid, NotFound
from core.invoicing import figure
from core.subscriptions import lifecycle
from core.subscriptions.status import Act, customers_may_pause, possible
from portal import blueprint
from portal.plan import my_subscription
from web.auth import requires
from web.dates import planned_return
from web.forms import field_errors, once
from web.htmx import page, redirect_to

ACTS: dict[Act, tuple[Callable[..., Any], str]] = {
    Act.PAUSE: (lifecycle.pause, "paused"),
    Act.RESUME: (lifecycle.resume, "resumed"),
    Act.REACTIVATE: (lifecycle.reactivate, "back"),
}


@blueprint.get("/plan/acts/<act>")
@requires("subscription.change")
def plan_act(act: str) -> Response:
    """What it means, and what it costs or gives back if it is done now."""
    return _ask(_known(act))


@blueprint.post("/plan/acts/<act>")
@requires("subscription.change")
def do_plan_act(act: str) -> Response:
    """Do it, once however often the form is sent; a refusal is shown on the same page."""
    chosen = _known(act)
    carry_out, done = ACTS[chosen]

    def work() -> str:
        reason = request.form.get("reason", "").strip()[:500] or None
        at, given = clock.now(g.organization), planned_return(chosen, g.organization.timezone)
        carry_out(db.session(), my_subscription(), at=at, actor=g.actor, reason=reason, **given)
        return url_for("portal.plan", done=done)

    try:
        return once(work)
    except (Conflict, Invalid) as refusal:
        return _ask(chosen, field_errors(refusal), status=refusal.status)


@blueprint.post("/plan/planned-resumption/undo")
@requires("subscription.change")
def undo_planned_return() -> Response:
    """Take the planned return back; the plan stays paused."""

    def undo() -> str:
        lifecycle.undo_resume(db.session(), my_subscription(), at=clock.now(g.organization), actor=g.actor)
        return url_for("portal.plan", done="undone")

    try:
        return once(undo)
    except Conflict:
        return redirect_to(url_for("portal.plan"))


def _known(act: str) -> Act:
    """The act that the address names; NotFound for every other word, and for a pause that the plan leaves to operators."""
    at = clock.now(g.organization)
    if act not in ACTS or (act == Act.PAUSE and not customers_may_pause(my_subscription(), at)):
        raise NotFound("There is no such act.")
    return Act(act)


def _ask(act: Act, errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    subscription, at = my_subscription(), clock.now(g.organization)
    if act not in possible(subscription, at):
        return redirect_to(url_for("portal.plan")) if errors is None else _page(act, errors, None, status)
    return _page(act, errors or {}, figure.of_act(db.session(), subscription, act, at=at), status)


def _page(act: Act, errors: dict[str, str], found: figure.Figure | None, status: int) -> Response:
    subscription, shown = my_subscription(), None
    if found is not None and found.lines:
        total = "Due now" if found.total >= 0 else "Credit to your account"
        shown = figure.statement(found.lines, found.taxes, g.organization, subscription.currency, title="What it changes", total=total)
    return page(
        "portal/plan/act.html",
        status=status,
        current="plan",
        errors=errors,
        act=act,
        form=request.form,
        subscription=subscription,
        figure=found,
        statement_view=shown,
    )
