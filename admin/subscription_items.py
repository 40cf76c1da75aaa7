"""Add-ons and coupons of a subscription, as operators attach them and take them away: each with a quote first, as a change of plan has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.subscriptions import of_account, show
from core import clock
from core.db import db, transaction
from core.errors import BillingError, NotFound
from core.identity.models import Organization
from core.invoicing import quote as quotes
from core.subscriptions import attachable, items
from core.subscriptions.models import PlanChangeQuote, Subscription
from web.auth import requires
from web.htmx import redirect_to


@blueprint.post("/subscriptions/<uuid:subscription_id>/items")
@requires("subscriptions.change")
def quote_item(subscription_id: UUID) -> Response:
    """Price one more, from now or from the next period on, and lock the price."""
    plan, quantity = request.form.get("plan", ""), request.form.get("quantity", "").strip() or "1"
    when = "period_end" if request.form.get("from") == "period_end" else "now"

    def made(owner: Organization, row: Subscription, at: datetime) -> PlanChangeQuote:
        version, wanted = attachable.offered(db.session(), plan, row), attachable.some(quantity)
        return quotes.create_for_add_on(db.session(), owner.id, row.id, version=version, quantity=wanted, when=when, at=at, actor=g.actor)

    return _quoted(subscription_id, made)


@blueprint.post("/subscriptions/<uuid:subscription_id>/items/<uuid:item_id>/removal")
@requires("subscriptions.change")
def quote_removal(subscription_id: UUID, item_id: UUID) -> Response:
    """Price taking it away with the end of the period."""

    def made(owner: Organization, row: Subscription, at: datetime) -> PlanChangeQuote:
        item = next((found for found in items.held(row, at) if found.id == item_id), None)
        if item is None:
            raise NotFound("The subscription has no such item.")
        return quotes.create_for_add_on(
            db.session(), owner.id, row.id, version=item.plan_version, quantity=attachable.NONE, when="period_end", at=at,
            actor=g.actor, item_id=item_id,
        )  # fmt: skip

    return _quoted(subscription_id, made)


def _quoted(subscription_id: UUID, make: Callable[[Organization, Subscription, datetime], PlanChangeQuote]) -> Response:
    """The page of the quote, where the reason is asked for; a refusal is shown on the subscription's page."""
    try:
        with transaction():
            owner, row = of_account(subscription_id)
            made = make(owner, row, clock.now(owner))
    except NotFound:
        raise
    except BillingError as error:
        return show(subscription_id, error)
    return redirect_to(url_for("admin.plan_quote", subscription_id=subscription_id, quote_id=made.id))
