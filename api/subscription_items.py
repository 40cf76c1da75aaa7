"""Add-ons and coupons of a subscription."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated

from msgspec import Meta, field

from api.call import Call
from api.contract import Input, endpoint
from api.plan_changes import QuoteOut, quote_out
from api.reading import Exact
from api.subscriptions import TAG, ItemOut, SubscriptionOut, When, item_out, load, subscription_out
from api.values import Text, instant
from core.catalog.models import PlanVersion
from core.errors import FieldError, Invalid
from core.identity.permissions import Scope
from core.invoicing import quote as quotes
from core.subscriptions import attachable, items
from core.subscriptions.models import Subscription


class ItemIn(Input):
    """What is attached, how many of it, and from when. A coupon holds for whole periods, from the running one on."""

    plan: Annotated[Text, Meta(description="The code or id of an add-on or coupon, or the id of a version of one.")]
    quantity: Annotated[Exact, Meta(description="Of an add-on.")] = field(default_factory=lambda: Exact("1"))
    when: When = "now"


class ItemQuoteIn(Input):
    """Something that could be attached, or an item that is held; how many of it there will be, and from when."""

    plan: Annotated[Text | None, Meta(description="As in attaching it.")] = None
    item_id: Annotated[uuid.UUID | None, Meta(description="In place of `plan`: an item that is held.")] = None
    quantity: Annotated[Exact, Meta(description="0: the item is taken away; a coupon always with the running period.")] = field(
        default_factory=lambda: Exact("1")
    )
    when: When = "now"


class ItemChange(Input):
    """How many are held from now on."""

    quantity: Exact


class Removal(Input):
    """When it ends. A coupon always ends with the running period."""

    when: When = "now"


@endpoint("POST", "/billing/subscriptions/<uuid:subscription_id>/items", scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def attach_item(call: Call, subscription_id: uuid.UUID, body: ItemIn) -> ItemOut:
    """Attach an add-on or a coupon. What it changes in the running period is on the next invoice."""
    organization, subscription = load(call, subscription_id)
    when = body.when if body.when in ("now", "period_end") else instant(body.when, organization, "/when")
    at = call.now(organization)
    item = items.attach(call.session, subscription, plan=body.plan, quantity=body.quantity, when=when, at=at, actor=call.actor)
    return item_out(item)


@endpoint("POST", "/billing/subscriptions/<uuid:subscription_id>/items/quote", scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def quote_item(call: Call, subscription_id: uuid.UUID, body: ItemQuoteIn) -> QuoteOut:
    """Preview what an add-on or a coupon costs or gives back; the price holds for 15 minutes.

    Nothing is attached. Send the quote's id as `quote_id` to `…/plan-change` to carry it out for exactly its total.
    """
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    version, item_id = _wanted(call, subscription, body, at)
    quote = quotes.create_for_add_on(
        call.session,
        organization.id,
        subscription_id,
        version=version,
        quantity=attachable.NONE if item_id and not body.quantity else attachable.some(body.quantity),
        when=body.when if body.when in ("now", "period_end") else instant(body.when, organization, "/when"),
        at=at,
        actor=call.actor,
        item_id=item_id,
    )
    return quote_out(quote)


def _wanted(call: Call, subscription: Subscription, body: ItemQuoteIn, at: datetime) -> tuple[PlanVersion, uuid.UUID | None]:
    if (body.plan is None) == (body.item_id is None):
        raise Invalid("Nothing can be quoted.", errors=(FieldError("/plan", "Give a plan or an item_id."),))
    if body.plan is not None:
        return attachable.offered(call.session, body.plan, subscription), None
    item = next((held for held in items.held(subscription, at) if held.id == body.item_id), None)
    if item is None:
        raise Invalid("Nothing can be quoted.", errors=(FieldError("/item_id", "The subscription holds no such item."),))
    return item.plan_version, item.id


@endpoint("PATCH", "/billing/subscriptions/<uuid:subscription_id>/items/<uuid:item_id>", scope=Scope.BILLING_WRITE, tag=TAG)
def change_item(call: Call, subscription_id: uuid.UUID, item_id: uuid.UUID, body: ItemChange) -> ItemOut:
    """Hold another quantity of an add-on. The answer is the item that holds from now on, with an id of its own."""
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    return item_out(items.change_quantity(call.session, subscription, item_id, quantity=body.quantity, at=at, actor=call.actor))


@endpoint("DELETE", "/billing/subscriptions/<uuid:subscription_id>/items/<uuid:item_id>", scope=Scope.BILLING_WRITE, tag=TAG)
def detach_item(call: Call, subscription_id: uuid.UUID, item_id: uuid.UUID, query: Removal) -> SubscriptionOut:
    """Take an add-on or a coupon away. Unused time is credited as the plan's credit policy says."""
    organization, subscription = load(call, subscription_id)
    when = query.when if query.when in ("now", "period_end") else instant(query.when, organization, "/when")
    at = call.now(organization)
    return subscription_out(items.detach(call.session, subscription, item_id, when=when, at=at, actor=call.actor), at)
