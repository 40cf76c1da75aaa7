"""Add-ons and coupons of a subscription."""

from __future__ import annotations

import uuid
from typing import Annotated

from msgspec import Meta, field

from api.call import Call
from api.contract import Input, endpoint
from api.reading import Exact
from api.subscriptions import TAG, ItemOut, SubscriptionOut, When, item_out, load, subscription_out
from api.values import Text, instant
from core.identity.permissions import Scope
from core.subscriptions import items


class ItemIn(Input):
    """What is attached, how many of it, and from when. A coupon holds for whole periods, from the running one on."""

    plan: Annotated[Text, Meta(description="The code or id of an add-on or coupon, or the id of a version of one.")]
    quantity: Annotated[Exact, Meta(description="Of an add-on.")] = field(default_factory=lambda: Exact("1"))
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
