"""The plan: what one has, what others would have cost, changing it with a locked quote, cancelling it."""

from __future__ import annotations

from datetime import datetime

from flask import g, request, url_for
from werkzeug.wrappers import Response

from core import clock
from core.catalog.models import PlanVersion
from core.db import db
from core.errors import Conflict, NotFound
from core.invoicing import figure
from core.subscriptions import agreement, attachable, items, lifecycle, plan_change, queries, timeline
from core.subscriptions.models import Subscription, SubscriptionStatus
from core.subscriptions.status import Act, customers_may_pause, possible, resumes_at
from portal import account, blueprint
from portal.plan_view import limits, price_lists, running_quantities, running_term, running_version
from web import licensed, standing
from web.auth import requires
from web.forms import once
from web.htmx import page, redirect_to


@blueprint.get("/plan")
@requires("subscription.view")
def plan() -> Response:
    """The running plan with its prices, and what is planned, each with its undo."""
    return _plan()


@blueprint.post("/plan/scheduled-change/undo")
@requires("subscription.change")
def undo_plan_change() -> Response:
    """Take a planned change back; the plan stays as it is."""

    def undo() -> str:
        subscription, at = my_subscription(), clock.now(g.organization)
        spans, running = timeline.spans(subscription), plan_change.version_at(subscription, at)
        agreement.check_customer(subscription, spans, at, to=running, quantities={})
        plan_change.undo_scheduled(db.session(), subscription, at=at, actor=g.actor)
        return url_for("portal.plan", done="undone")

    try:
        return once(undo)
    except Conflict as refusal:
        return _plan({"": refusal.message}, status=409)


@blueprint.get("/plan/cancellation")
@requires("subscription.cancel")
def cancellation() -> Response:
    """What cancelling means, on one page."""
    subscription = my_subscription()
    if subscription.status == SubscriptionStatus.CANCELED or subscription.ends_at is not None:
        return redirect_to(url_for("portal.plan"))
    at = clock.now(g.organization)
    bound = agreement.bound_until(subscription, timeline.spans(subscription), at) if subscription.terms else None
    end = bound or plan_change.effective_at(subscription, "period_end", at=at)
    now = figure.of_act(db.session(), subscription, Act.CANCEL, at=at)
    return page("portal/plan/cancel.html", current="plan", subscription=subscription, end=end, bound=bound, now_figure=now)


@blueprint.post("/plan/cancellation")
@requires("subscription.cancel")
def cancel_plan() -> Response:
    """End the subscription now or with its period."""
    when = "now" if request.form.get("when") == "now" else "period_end"
    reason = request.form.get("reason", "").strip()[:500] or None

    def cancel() -> str:
        lifecycle.cancel(db.session(), my_subscription(), at=clock.now(g.organization), actor=g.actor, when=when, reason=reason)
        return url_for("portal.plan", done="cancelled")

    try:
        return once(cancel)
    except Conflict as refusal:
        return _plan({"": refusal.message}, status=409)


@blueprint.post("/plan/cancellation/undo")
@requires("subscription.cancel")
def undo_cancellation() -> Response:
    """Take a planned end back."""

    def undo() -> str:
        lifecycle.undo_cancel(db.session(), my_subscription(), at=clock.now(g.organization), actor=g.actor)
        return url_for("portal.plan", done="kept")

    try:
        return once(undo)
    except Conflict as refusal:
        return _plan({"": refusal.message}, status=409)


def my_subscription() -> Subscription:
    """The account's subscription; NotFound without one."""
    found = account.my_subscription()
    if found is None:
        raise NotFound("There is no subscription yet.")
    return found


def _not_held(offered: list[PlanVersion], subscription: Subscription, at: datetime) -> list[PlanVersion]:
    """Those the customer does not have yet: of what is held, the number is changed instead."""
    held = {item.plan_version.plan_id for item in items.held(subscription, at)}
    return [version for version in offered if version.plan_id not in held]


def _plan(errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    at = clock.now(g.organization)
    subscription = queries.current_subscription(db.session(), g.organization.id)
    if subscription is None:
        return page("portal/plan/none.html", current="plan")
    version = running_version(subscription, at)
    change = plan_change.scheduled_change(subscription, at=at)
    return page(
        "portal/plan/show.html",
        status=status,
        current="plan",
        errors=errors or {},
        subscription=subscription,
        version=version,
        change=change,
        possible=possible(subscription, at),
        resumes=resumes_at(subscription, at),
        bound=agreement.bound_until(subscription, timeline.spans(subscription), at) if subscription.terms else None,
        standing=standing.sentence(subscription, at=at, zone=g.organization.timezone),
        may_pause=customers_may_pause(subscription, at),
        held=running_quantities(subscription, at),
        attached=items.held(subscription, at),
        offered=_not_held(attachable.on_offer(db.session(), subscription, at=at), subscription, at) if version else [],
        licensed=licensed.fields(version, running_term(subscription, at)) if version else [],
        planned=licensed.changes(change.version, running_term(subscription, at), change.quantity, change.quantities) if change else [],
        prices=price_lists([version], g.organization.currency) if version else [],
        limits=limits([version]) if version else [],
        done=request.args.get("done", ""),
        seats=next((term.quantity for term in subscription.terms if version and term.plan_version is version), 1),
    )
