"""Subscriptions of every account: the list, and one with its terms, what is planned, its invoices, and what may be done with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint, subscription_view
from admin.reason import why
from core import clock
from core.catalog import queries as catalog
from core.db import db, transaction
from core.errors import BillingError, NotFound
from core.identity.queries import as_uuid
from core.invoicing import queries as invoicing
from core.subscriptions import lifecycle, plan_change, queries
from core.subscriptions.models import Subscription, SubscriptionStatus, SubscriptionTerm
from core.subscriptions.status import possible
from web import pagination
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page

STATUSES = (("", "All"), *((status.value, status.value.replace("_", " ").capitalize()) for status in SubscriptionStatus))
INVOICES_SHOWN = 6


@blueprint.get("/subscriptions")
@requires("subscriptions.view")
def subscriptions() -> Response:
    """Newest first, of every account."""
    chosen = request.args.get("status", "")
    rows = queries.all_subscriptions(
        db.session(),
        status=SubscriptionStatus(chosen) if chosen in dict(STATUSES[1:]) else None,
        before_id=as_uuid(pagination.after() or ""),
        limit=pagination.PAGE_ROWS + 1,
    )
    found = pagination.paginate(rows, key=lambda row: row.id)
    return page(
        "admin/subscriptions/index.html",
        partial="admin/subscriptions/_rows.html" if pagination.after() else "admin/subscriptions/_list.html",
        current="subscriptions",
        rows=found,
        names=invoicing.owner_names(db.session(), {row.organization_id for row in found.rows}),
        statuses=STATUSES,
        chosen=chosen,
        announce=f"{len(found.rows)} subscriptions",
    )


@blueprint.get("/subscriptions/<uuid:subscription_id>")
@requires("subscriptions.view")
def subscription(subscription_id: UUID) -> Response:
    """One of them."""
    return show(subscription_id)


@blueprint.post("/subscriptions/<uuid:subscription_id>/cancellation")
@requires("subscriptions.change")
def cancel_subscription(subscription_id: UUID) -> Response:
    """End it with its period or now; what was paid for unused time is credited as the plan says."""
    when = "now" if request.form.get("when") == "now" else "period_end"
    return carry_out_on(
        subscription_id,
        lambda session, row, at: lifecycle.cancel(session, row, at=at, actor=g.actor, when=when, reason=why()),
    )


def running_term(row: Subscription, at: datetime) -> SubscriptionTerm | None:
    """The term that holds at the instant."""
    return next((term for term in row.terms if term.start_at <= at and (term.end_at is None or at < term.end_at)), None)


def of_account(subscription_id: UUID) -> tuple[Any, Subscription]:
    """The subscription with the organization it belongs to; NotFound."""
    owner = invoicing.subscriber(db.session(), subscription_id)
    return owner, queries.subscription(db.session(), owner.id, subscription_id)


def carry_out_on(subscription_id: UUID, work: Callable[[Any, Subscription, datetime], object]) -> Response:
    """One transaction, once per form; a refusal is shown on the subscription's page."""

    def carry_out() -> str:
        owner, row = of_account(subscription_id)
        work(db.session(), row, clock.now(owner))
        return url_for("admin.subscription", subscription_id=subscription_id)

    try:
        return once(carry_out)
    except NotFound:
        raise
    except BillingError as error:
        return show(subscription_id, error)


def show(subscription_id: UUID, error: BillingError | None = None) -> Response:
    """The page of the subscription, with what was refused."""
    with transaction() as session:  # a fresh look, also after a refused change
        owner, row = of_account(subscription_id)
        at = clock.now(owner)
        return page(
            "admin/subscriptions/show.html",
            status=error.status if error else 200,
            current="subscriptions",
            errors=field_errors(error) if error else {},
            form=request.form,
            subscription=row,
            owner=owner,
            zone=owner.timezone,
            at=at,
            term=running_term(row, at),
            change=plan_change.scheduled_change(row, at=at),
            possible=possible(row, at),
            **subscription_view.shown(session, row, owner, at),
            offered_items=[
                (version.plan.code, f"{version.plan.name} ({version.plan.kind.replace('_', '-')})")
                for version in catalog.attachable(session, row.currency)
            ],
            invoices=invoicing.invoices(session, owner.id, subscription_id=row.id, limit=INVOICES_SHOWN),
        )
