"""Changing an account's plan: the same locked quote the customer gets, with the operator's reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.reason import why
from admin.subscriptions import of_account, running_term
from core import audit, clock, rendering
from core.catalog import queries as catalog
from core.catalog.models import PlanVersion
from core.db import db, transaction
from core.errors import BillingError, FieldError, Invalid, NotFound
from core.identity.models import Organization
from core.invoicing import outlook, wishes
from core.invoicing import quote as quotes
from core.invoicing.quote import QuoteChanged
from core.payments import collect
from core.payments import queries as payments
from core.subscriptions.models import PlanChangeQuote, QuoteSubject, Subscription, SubscriptionTerm
from core.subscriptions.quantities import OWN
from web import licensed
from web.auth import requires
from web.dates import begins, read_day
from web.forms import field_errors, once_stepwise
from web.htmx import page, redirect_to


@blueprint.get("/subscriptions/<uuid:subscription_id>/change")
@requires("subscriptions.change")
def change_plan(subscription_id: UUID) -> Response:
    """To which plan, when, in which quantity."""
    return _choose(subscription_id)


@blueprint.post("/subscriptions/<uuid:subscription_id>/change")
@requires("subscriptions.change")
def make_plan_quote(subscription_id: UUID) -> Response:
    """Price the change and lock it for fifteen minutes."""
    owner, row = of_account(subscription_id)
    try:
        version = catalog.offered_version(db.session(), request.form.get("plan", ""))
        wanted = licensed.typed(request.form, version)
        with transaction() as session:
            made = quotes.create(
                session,
                owner.id,
                row.id,
                to=version,
                when=_when(owner),
                at=clock.now(owner),
                actor=g.actor,
                quantity=wanted.pop(OWN, None),
                quantities=wanted,
                backdate=True,
            )
    except BillingError as error:
        return _choose(subscription_id, error)
    return redirect_to(url_for("admin.plan_quote", subscription_id=subscription_id, quote_id=made.id))


@blueprint.get("/subscriptions/<uuid:subscription_id>/change/<uuid:quote_id>")
@requires("subscriptions.view")
def plan_quote(subscription_id: UUID, quote_id: UUID) -> Response:
    """Every line of the change and what is due now."""
    return _quote(subscription_id, quote_id)


@blueprint.post("/subscriptions/<uuid:subscription_id>/change/<uuid:quote_id>")
@requires("subscriptions.change")
def confirm_plan_quote(subscription_id: UUID, quote_id: UUID) -> Response:
    """Carry out exactly what was quoted; when the amount is another by now, nothing happens."""
    owner, _ = of_account(subscription_id)

    def confirm() -> str:
        at, reason = clock.now(owner), why()
        with transaction() as session:
            invoice = quotes.confirm(session, owner.id, quote_id, at=at, actor=g.actor)
            audit.record(session, g.actor, "plan_change.reason_given", _found(owner, subscription_id, quote_id), at=at, reason=reason)
            due = invoice.id if invoice is not None and invoice.amount_due_minor > 0 else None
        if due is not None and owner.auto_collect and payments.default_method(db.session(), owner.id) is not None:
            collect.pay(owner.id, due, at=at, actor=g.actor)
        return url_for("admin.subscription", subscription_id=subscription_id)

    try:
        return once_stepwise(confirm)
    except NotFound:
        raise
    except QuoteChanged as error:
        return _quote(subscription_id, quote_id, {"": f"{error.message} Nothing was changed. Make a new quote."}, status=409)
    except BillingError as error:
        return _quote(subscription_id, quote_id, field_errors(error), status=error.status)


def _found(owner: Organization, subscription_id: UUID, quote_id: UUID) -> PlanChangeQuote:
    found = quotes.get(db.session(), owner.id, quote_id)
    if found.subscription_id != subscription_id:
        raise NotFound("There is no such quote.")
    return found


def _quote(subscription_id: UUID, quote_id: UUID, errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    owner, row = of_account(subscription_id)
    found, at = _found(owner, subscription_id, quote_id), clock.now(owner)
    version = catalog.version(db.session(), found.plan_version_id)
    return page(
        "admin/subscriptions/quote.html",
        status=status,
        current="subscriptions",
        errors=errors or {},
        form=request.form,
        owner=owner,
        zone=owner.timezone,
        subscription=row,
        quote=found,
        version=version,
        term=running_term(row, at),
        statement_view=quotes.statement(found, owner),
        total_label=quotes.total_label(found),
        expired=at > found.expires_at and found.confirmed_at is None,
        changes=_changes(found, row, version, at),
        upcoming=_upcoming(found, row, owner, version),
    )


def _changes(found: PlanChangeQuote, row: Subscription, version: PlanVersion, at: datetime) -> list[tuple[str, str, str]]:
    """(what, before, after) of each quantity that changes."""
    if found.subject == QuoteSubject.PLAN:
        return licensed.changes(version, running_term(row, at), found.quantity, found.quantities)
    before = next((item.quantity for item in row.items if item.id == found.item_id), Decimal(0))
    return [(version.plan.name, rendering.quantity(before), rendering.quantity(found.quantity))]


def _upcoming(found: PlanChangeQuote, row: Subscription, owner: Organization, version: PlanVersion) -> tuple[outlook.Upcoming, ...]:
    """The next invoices as they would be with the change; none once it is confirmed or no longer possible."""
    if found.confirmed_at is not None:
        return ()
    try:
        terms = wishes.quoted(found, version).terms(row)
    except BillingError:
        return ()
    waits = found.content["billed"] == wishes.Settled.NEXT_INVOICE
    return outlook.upcoming(db.session(), owner, row, terms, as_of=found.created_at, count=2, on_next=waits)


def _choose(subscription_id: UUID, error: BillingError | None = None) -> Response:
    owner, row = of_account(subscription_id)
    at = clock.now(owner)
    term = running_term(row, at)
    live = catalog.live_versions(db.session(), currency=row.currency, public=None)
    held = [term.plan_version] if term is not None and term.plan_version not in live else []
    return page(
        "admin/subscriptions/change.html",
        status=error.status if error else 200,
        current="subscriptions",
        errors=field_errors(error) if error else {},
        form=request.form,
        owner=owner,
        zone=owner.timezone,
        subscription=row,
        term=term,
        versions=[*held, *live],
        quantities=_fields([*held, *live], term),
    )


def _when(owner: Organization) -> str | datetime:
    chosen = request.form.get("when", "now")
    if chosen != "date":
        return chosen
    day = read_day(request.form.get("date", ""))
    if day is None:
        raise Invalid("Choose a date.", errors=(FieldError("/date", "Enter the day from which the new plan holds."),))
    return begins(day, owner.timezone)


def _fields(versions: Sequence[PlanVersion], term: SubscriptionTerm | None) -> list[tuple[str, str, str]]:
    """(field, label, value) of the subscription's quantity and of every one the plans have a price for, as they are held now."""
    held = term.quantities if term else {}
    named = sorted({rule.licensed for version in versions for rule in version.rules if rule.licensed})
    own = rendering.quantity(term.quantity) if term else "1"
    return [("quantity", "Quantity", own)] + [(licensed.field_of(name), licensed.label(name), held.get(name, "")) for name in named]
