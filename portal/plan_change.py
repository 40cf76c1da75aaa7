"""Comparing plans on one's own usage and changing with a locked quote: what the page says is what is charged, or nothing is."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from core import clock, rendering
from core.catalog import queries as catalog
from core.catalog.models import PlanVersion, VersionStatus
from core.db import db, transaction
from core.errors import BillingError, Conflict, FieldError, Invalid, NotFound
from core.invoicing import outlook, whatif, wishes
from core.invoicing import quote as quotes
from core.invoicing.quote import QuoteChanged
from core.invoicing.wishes import Settled
from core.payments import collect
from core.payments import queries as payments
from core.subscriptions import agreement, timeline
from core.subscriptions.models import PlanChangeQuote, QuoteSubject, Subscription
from core.subscriptions.quantities import OWN
from portal import blueprint
from portal.plan import my_subscription
from portal.plan_view import differences, limits, price_lists, running_term, running_version
from web import licensed
from web.auth import requires
from web.dates import begins, read_day
from web.forms import field_errors, once_stepwise
from web.htmx import page, redirect_to

PLANS_MAX = 4


@blueprint.get("/plan/compare")
@requires("subscription.view")
def compare_plans() -> Response:
    """Up to four plans side by side, each rated on the usage of the last closed periods by the engine that makes the invoices."""
    subscription, now = my_subscription(), clock.now(g.organization)
    running = running_version(subscription, now)
    offered = [version for version in catalog.live_versions(db.session(), currency=subscription.currency) if _comparable(version, running)]
    shown = _shown(offered, running)
    found = whatif.compare(db.session(), g.organization.id, subscription.id, versions=shown, as_of=now)
    only = request.args.get("only") == "differences"
    rows = [row for row in price_lists(shown, subscription.currency) if row.differs or not only]
    return page(
        "portal/plan/compare.html",
        current="plan",
        subscription=subscription,
        running=running,
        versions=shown,
        comparison=found,
        costs={cost.version_id: cost for cost in found.plans},
        lowest=found.cheapest.version_id if found.cheapest and found.periods else None,
        prices=rows,
        limits=[row for row in limits(shown) if len(set(row[1])) > 1 or not only],
        only=only,
    )


@blueprint.get("/plan/change")
@requires("subscription.view")
def choose_change() -> Response:
    """When to change and in which quantity; without JavaScript the first of the two steps."""
    return _choose(_wanted(request.args.get("plan", "")))


@blueprint.post("/plan/change")
@requires("subscription.change")
def make_quote() -> Response:
    """Price the change and lock it for fifteen minutes."""
    version, now = _wanted(request.form.get("plan", "")), clock.now(g.organization)
    try:
        wanted = licensed.typed(request.form, version)
        subscription = my_subscription()
        agreement.check_customer(subscription, timeline.spans(subscription), now, to=version, quantities=wanted)
        with transaction() as session:
            made = quotes.create(
                session,
                g.organization.id,
                my_subscription().id,
                to=version,
                when=when_chosen("Enter the day from which the new plan holds."),
                at=now,
                actor=g.actor,
                quantity=wanted.pop(OWN, None),
                quantities=wanted,
            )
    except (Invalid, Conflict) as refusal:
        return _choose(version, field_errors(refusal), status=refusal.status)
    return redirect_to(url_for("portal.plan_quote", quote_id=made.id))


@blueprint.get("/plan/change/<uuid:quote_id>")
@requires("subscription.view")
def plan_quote(quote_id: UUID) -> Response:
    """The quote: every line, what is due now, what changes, and the button with the amount."""
    return _quote(quotes.get(db.session(), g.organization.id, quote_id))


@blueprint.post("/plan/change/<uuid:quote_id>")
@requires("subscription.change")
def confirm_quote(quote_id: UUID) -> Response:
    """Carry out exactly what was quoted. When the amount is another by now, nothing happens and the new one is shown."""

    def confirm() -> str:
        at = clock.now(g.organization)
        with transaction() as session:
            invoice = quotes.confirm(session, g.organization.id, quote_id, at=at, actor=g.actor)
            due = (invoice.id, invoice.invoice_number) if invoice is not None and invoice.amount_due_minor > 0 else None
        if due is None:
            return url_for("portal.plan", done="changed" if invoice is not None else "scheduled")
        here: dict[str, Any] = {"number": due[1]}
        if g.organization.auto_collect and payments.default_method(db.session(), g.organization.id) is not None:
            back = url_for("portal.invoice", **here, _external=True)
            collect.pay(g.organization.id, due[0], at=at, actor=g.actor, return_url=back)
        return url_for("portal.invoice", **here, changed=1)

    try:
        return once_stepwise(confirm)
    except QuoteChanged as refusal:
        return _requote(quote_id, refusal)
    except Conflict as refusal:
        return _quote(quotes.get(db.session(), g.organization.id, quote_id), {"": refusal.message}, status=409)


def _requote(quote_id: UUID, refusal: QuoteChanged) -> Response:
    """A new quote for the same change in place of the one that no longer holds, with both amounts."""
    old, now = quotes.get(db.session(), g.organization.id, quote_id), clock.now(g.organization)
    old_total = old.total_minor
    with transaction() as session:
        made = quotes.again(session, g.organization.id, quote_id, at=now, actor=g.actor)
    return _quote(made, {"": f"{refusal.message} Nothing was changed."}, before=old_total, status=409)


def _quote(found: PlanChangeQuote, errors: dict[str, str] | None = None, *, before: int | None = None, status: int = 200) -> Response:
    now = clock.now(g.organization)
    subscription = my_subscription()
    version = catalog.version(db.session(), found.plan_version_id)
    running = running_version(subscription, now)
    return page(
        "portal/plan/quote.html",
        status=status,
        current="plan",
        errors=errors or {},
        quote=found,
        before=before,
        version=version,
        running=running,
        statement_view=quotes.statement(found, g.organization),
        total_label=quotes.total_label(found),
        expired=now > found.expires_at and found.confirmed_at is None,
        method=payments.default_method(db.session(), g.organization.id),
        changes=_changes(found, running, version, subscription, now),
        upcoming=_upcoming(found, subscription, version),
        subscription=subscription,
    )


def _changes(
    found: PlanChangeQuote, running: PlanVersion | None, version: PlanVersion, subscription: Subscription, now: datetime
) -> list[tuple[str, str, str]]:
    """What the quote changes: prices and limits of the plan, and quantities; of an add-on, how many."""
    if found.subject == QuoteSubject.ADD_ON:
        before = next((item.quantity for item in subscription.items if item.id == found.item_id), Decimal(0))
        return [(version.plan.name, rendering.quantity(before), rendering.quantity(found.quantity))]
    counts = licensed.changes(version, running_term(subscription, now), found.quantity, found.quantities)
    return counts + differences(running, version, subscription.currency)


def _upcoming(found: PlanChangeQuote, subscription: Subscription, version: PlanVersion) -> tuple[outlook.Upcoming, ...]:
    """The next invoices as they would be with the change; of a quote that was confirmed or no longer holds, none."""
    if found.confirmed_at is not None:
        return ()
    try:
        terms = wishes.quoted(found, version).terms(subscription)
    except BillingError:
        return ()
    waits = found.content["billed"] == Settled.NEXT_INVOICE
    return outlook.upcoming(db.session(), g.organization, subscription, terms, as_of=found.created_at, count=2, on_next=waits)


def _choose(version: PlanVersion, errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    subscription, now = my_subscription(), clock.now(g.organization)
    running = running_version(subscription, now)
    return page(
        "portal/plan/choose.html",
        status=status,
        current="plan",
        errors=errors or {},
        version=version,
        running=running,
        subscription=subscription,
        form=request.values,
        quantities=licensed.fields(version, running_term(subscription, now)),
        changes=differences(running, version, subscription.currency),
    )


def _wanted(reference: str) -> PlanVersion:
    """The version that the address names: one on offer, or the one that is held; NotFound for every other."""
    running = running_version(my_subscription(), clock.now(g.organization))
    if running is not None and reference == str(running.id):
        return running
    found = catalog.offered_version(db.session(), reference)
    if found.status != VersionStatus.LIVE or not found.plan.is_public:
        raise NotFound("There is no such plan.")
    return found


def when_chosen(ask: str) -> str | datetime:
    """The instant a form chose: now, period_end, or the beginning of a day. Invalid at the date, with what to enter."""
    chosen = request.form.get("when", "now")
    if chosen != "date":
        return chosen
    day = read_day(request.form.get("date", ""))
    if day is None:
        raise Invalid("Choose a date.", errors=(FieldError("/date", ask),))
    return begins(day, g.organization.timezone)


def _comparable(version: PlanVersion, running: PlanVersion | None) -> bool:
    """Plans of the same billing period: others cannot be held against each other month by month."""
    return running is None or (version.billing_period, version.interval_count) == (running.billing_period, running.interval_count)


def _shown(offered: list[PlanVersion], running: PlanVersion | None) -> list[PlanVersion]:
    """At most four columns; the running version stands in for its plan's newest, so that "your plan" is what is really held."""
    shown = [version for version in offered if running is None or version.plan_id != running.plan_id]
    if running is None:
        return shown[:PLANS_MAX]
    return sorted([running, *shown[: PLANS_MAX - 1]], key=lambda version: (version.base_price, version.plan.code))
