"""Add-ons beside the plan: buying one, holding more or fewer, ending it. Each with a quote first, as a change of plan has."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from core import clock
from core.catalog.models import PlanVersion
from core.db import db, transaction
from core.errors import BillingError, Conflict, FieldError, Invalid, NotFound
from core.invoicing import quote as quotes
from core.money import parse_decimal
from core.subscriptions import attachable, items
from core.subscriptions.models import SubscriptionItem
from portal import blueprint
from portal.plan import my_subscription
from portal.plan_change import when_chosen
from portal.plan_view import price_lists
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page, redirect_to


@blueprint.get("/plan/add-ons/<code>")
@requires("subscription.view")
def new_add_on(code: str) -> Response:
    """What it costs, how many, and from when."""
    return _choose(_offered(code), None)


@blueprint.post("/plan/add-ons/<code>")
@requires("subscription.change")
def quote_new_add_on(code: str) -> Response:
    """Price it and lock the price."""
    return _quoted(_offered(code), None)


@blueprint.get("/plan/items/<uuid:item_id>")
@requires("subscription.view")
def add_on(item_id: UUID) -> Response:
    """More or fewer of one that is held, or none."""
    item = _held(item_id)
    return _choose(item.plan_version, item)


@blueprint.post("/plan/items/<uuid:item_id>")
@requires("subscription.change")
def quote_add_on(item_id: UUID) -> Response:
    """Price the change and lock the price."""
    item = _held(item_id)
    return _quoted(item.plan_version, item)


@blueprint.post("/plan/items/<uuid:item_id>/undo")
@requires("subscription.change")
def keep_add_on(item_id: UUID) -> Response:
    """Take its planned end or change back."""

    def undo() -> str:
        items.keep(db.session(), my_subscription(), item_id, at=clock.now(g.organization), actor=g.actor)
        return url_for("portal.plan", done="undone")

    try:
        return once(undo)
    except Conflict:
        return redirect_to(url_for("portal.plan"))


def _offered(code: str) -> PlanVersion:
    """The add-on with that code, if the subscription can have it."""
    offered = attachable.on_offer(db.session(), my_subscription(), at=clock.now(g.organization))
    found = next((version for version in offered if version.plan.code == code), None)
    if found is None:
        raise NotFound("There is no such add-on for your plan.")
    return found


def _held(item_id: UUID) -> SubscriptionItem:
    """An add-on that runs or will; coupons are not for customers to change."""
    now = clock.now(g.organization)
    held = items.held(my_subscription(), now)
    item = next((found for found in held if found.id == item_id and found.plan_version.plan.kind == "add_on"), None)
    if item is None:
        raise NotFound("There is no such add-on.")
    return item


def _quoted(version: PlanVersion, item: SubscriptionItem | None) -> Response:
    try:
        with transaction() as session:
            made = quotes.create_for_add_on(
                session,
                g.organization.id,
                my_subscription().id,
                version=version,
                quantity=_quantity(item),
                when=_when(),
                at=clock.now(g.organization),
                actor=g.actor,
                item_id=item.id if item else None,
            )
    except NotFound:
        raise
    except BillingError as refusal:
        return _choose(version, item, field_errors(refusal), status=refusal.status)
    return redirect_to(url_for("portal.plan_quote", quote_id=made.id))


def _when() -> str | datetime:
    return when_chosen("Enter the day from which it holds.")


def _quantity(item: SubscriptionItem | None) -> Decimal:
    """How many there will be; "end" says none."""
    if item is not None and request.form.get("act") == "end":
        return Decimal(0)
    try:
        quantity = parse_decimal(request.form.get("quantity", "").strip() or "1", digits=9, places=6)
    except ValueError:
        raise Invalid("Enter a quantity.", errors=(FieldError("/quantity", "Enter a number, such as 5."),)) from None
    if not quantity:
        raise Invalid("Enter a quantity.", errors=(FieldError("/quantity", "Enter 1 or more. To have none of it, end it."),))
    if item is not None and quantity == item.quantity and item.end_at is None:
        raise Invalid("Nothing would change.", errors=(FieldError("/quantity", "That is how many you have."),))
    return quantity


def _choose(version: PlanVersion, item: SubscriptionItem | None, errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    subscription = my_subscription()
    return page(
        "portal/plan/add_on.html",
        status=status,
        current="plan",
        errors=errors or {},
        subscription=subscription,
        version=version,
        item=item,
        form=request.form,
        prices=price_lists([version], subscription.currency),
    )
