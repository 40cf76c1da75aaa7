"""Add-ons and coupons of a subscription: attaching them, changing how many, taking them away. Billing follows from the timeline.

An add-on holds from its exact instant, like a change of plan. A coupon holds for whole billing periods: from the running one on, for as
many as it says.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from core import audit, jobs
from core.audit import Actor
from core.catalog import queries as catalog
from core.catalog.conditions import fits
from core.catalog.models import PlanKind, PlanVersion
from core.db import new_id
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.money import parse_decimal
from core.periods import Anchor, Interval
from core.subscriptions import plan_change, timeline
from core.subscriptions.models import Subscription, SubscriptionItem
from core.subscriptions.queries import locked
from core.subscriptions.spans import Span
from core.subscriptions.status import Act, bill_from, require, show

ITEMS_MAX = 100


def attach(
    session: Session,
    subscription: Subscription,
    *,
    plan: str | uuid.UUID,
    at: datetime,
    actor: Actor,
    quantity: Decimal | str | int = 1,
    when: str | datetime = "now",
    reason: str | None = None,
) -> SubscriptionItem:
    """Let the subscription hold the add-on or coupon `plan` (code, id, or id of a version) from `when` (now, period_end, an instant).

    Invalid with a pointer for something that cannot be attached, Conflict when the coupon holds already, the usage an add-on bills is
    billed already, or the subscription does not run.
    """
    subscription = locked(session, subscription)
    require(subscription, Act.CHANGE_PLAN, at)
    version = _version(session, plan, subscription)
    start = plan_change.effective_at(subscription, when, at=at)
    span = _billed_span(timeline.spans(subscription), start)
    item = SubscriptionItem(
        id=new_id(),
        organization_id=subscription.organization_id,
        plan_version=version,
        quantity=_quantity(quantity),
        start_at=max(start, span.start),
        end_at=None,
    )
    if version.plan.kind == PlanKind.COUPON:
        item.quantity = Decimal(1)
        item.start_at, item.end_at = _whole_cycles(span.anchor, item.start_at, version.duration_cycles)
    _check(subscription, version, item, span)
    subscription.items.append(item)
    _settle(session, subscription, changed_at=start, at=at)
    audit.record(session, actor, f"subscription.{version.plan.kind}_attached", subscription, at=at, reason=reason, **_facts(item))
    return item


def change_quantity(
    session: Session, subscription: Subscription, item_id: uuid.UUID, *, quantity: Decimal | str | int, at: datetime, actor: Actor
) -> SubscriptionItem:
    """Hold another quantity of an add-on from now on; NotFound for an item the subscription does not hold, Conflict for one that ended."""
    subscription = locked(session, subscription)
    require(subscription, Act.CHANGE_PLAN, at)
    item, wanted = _running(subscription, item_id, at), _quantity(quantity)
    if item.plan_version.plan.kind == PlanKind.COUPON:
        raise Invalid("A coupon has no quantity.", errors=(FieldError("/quantity", "only an add-on has one"),))
    if item.quantity == wanted:
        return item
    before, end = item.quantity, item.end_at
    if item.start_at < at:
        item.end_at = at
        item = SubscriptionItem(
            id=new_id(),
            organization_id=subscription.organization_id,
            plan_version=item.plan_version,
            quantity=wanted,
            start_at=at,
            end_at=end,
        )
        subscription.items.append(item)
    item.quantity = wanted
    _settle(session, subscription, changed_at=at, at=at)
    audit.record(session, actor, "subscription.add_on_changed", subscription, at=at, before=before, **_facts(item))
    return item


def detach(
    session: Session, subscription: Subscription, item_id: uuid.UUID, *, at: datetime, actor: Actor, when: str | datetime = "now"
) -> Subscription:
    """Take an add-on away from `when`, or a coupon from the end of the running period. Done before, nothing happens. NotFound."""
    subscription = locked(session, subscription)
    item = _item(subscription, item_id)
    if item.end_at is not None and item.end_at <= at:
        return subscription
    if item.plan_version.plan.kind == PlanKind.COUPON:
        when = "period_end"
    end = plan_change.effective_at(subscription, when, at=at)
    if end <= item.start_at:
        subscription.items.remove(item)
        session.delete(item)
    else:
        item.end_at = end
    _settle(session, subscription, changed_at=end if end <= at else None, at=at)
    audit.record(session, actor, f"subscription.{item.plan_version.plan.kind}_detached", subscription, at=at, **_facts(item), ends_at=end)
    return subscription


def held(subscription: Subscription, at: datetime) -> list[SubscriptionItem]:
    """What is attached at `at` or will be."""
    return [item for item in subscription.items if item.end_at is None or item.end_at > at]


def _version(session: Session, plan: str | uuid.UUID, subscription: Subscription) -> PlanVersion:
    try:
        version = catalog.offered_version(session, plan)
    except NotFound as error:
        raise Invalid("This cannot be attached.", errors=(FieldError("/plan", error.message),)) from None
    fault = None
    if version.plan.kind == PlanKind.PLAN:
        fault = f"{version.plan.name} is a plan: change the subscription's plan to it instead"
    elif not version.sells_in(subscription.currency):
        fault = f"{version.plan.name} is in {version.plan.currency}, the subscription in {subscription.currency}"
    if fault is not None:
        raise Invalid("This cannot be attached.", errors=(FieldError("/plan", fault),))
    return version


def _check(subscription: Subscription, version: PlanVersion, item: SubscriptionItem, span: Span) -> None:
    """Nothing is granted or billed twice, and the add-on's period fits the plan's."""
    same = [other for other in held(subscription, item.start_at) if other.plan_version.plan_id == version.plan_id]
    if version.plan.kind == PlanKind.COUPON:
        if same:
            raise Conflict(f"The subscription has the coupon {version.plan.code} already.", code="already_attached")
        return
    if len(subscription.items) >= ITEMS_MAX:
        raise Conflict(f"A subscription holds at most {ITEMS_MAX} items.", code="too_many_items")
    own, plans = (Interval(version.billing_period), version.interval_count), (span.anchor.interval, span.anchor.count)
    if own != plans and not fits(own, plans):
        detail = f"its period of {own[1]} {own[0]} does not fit the subscription's of {plans[1]} {plans[0]}"
        raise Invalid("This cannot be attached.", errors=(FieldError("/plan", detail),))
    others = [span.version, *(other.plan_version for other in held(subscription, item.start_at))]
    billed = {rule.metric_id: rule.metric.name for other in others for rule in other.rules if rule.metric}
    twice = sorted(billed[rule.metric_id] for rule in version.rules if rule.metric_id in billed)
    if twice:
        raise Conflict(f"{', '.join(twice)} is billed by the subscription already.", code="already_billed")


def _billed_span(spans: Sequence[Span], at: datetime) -> Span:
    """The span that bills at `at`: after a trial, the one that follows it."""
    for span in spans:
        if not span.is_trial and (span.end is None or span.end > at):
            return span
    raise Conflict("The subscription does not run at that time.", code="not_running")


def _whole_cycles(anchor: Anchor, at: datetime, count: int | None) -> tuple[datetime, datetime | None]:
    first = anchor.index(at)
    return anchor.boundary(first), None if count is None else anchor.boundary(first + count)


def _item(subscription: Subscription, item_id: uuid.UUID) -> SubscriptionItem:
    item = next((found for found in subscription.items if found.id == item_id), None)
    if item is None:
        raise NotFound("The subscription has no such item.")
    return item


def _running(subscription: Subscription, item_id: uuid.UUID, at: datetime) -> SubscriptionItem:
    item = _item(subscription, item_id)
    if item.end_at is not None and item.end_at <= at:
        raise Conflict("The item has ended.", code="item_ended")
    return item


def _quantity(quantity: Decimal | str | int) -> Decimal:
    try:
        found = parse_decimal(str(quantity), digits=9, places=6)
    except ValueError as error:
        raise Invalid("The quantity cannot be taken.", errors=(FieldError("/quantity", str(error)),)) from None
    if not found:
        raise Invalid("The quantity cannot be taken.", errors=(FieldError("/quantity", "must be more than 0; take the item away instead"),))
    return found


def _settle(session: Session, subscription: Subscription, *, changed_at: datetime | None, at: datetime) -> None:
    session.flush()
    planned = timeline.spans(subscription)
    show(subscription, planned, as_of=at)
    bill_from(subscription, planned, changed_at=changed_at, at=at)
    jobs.enqueue(session, "bill_subscription", subscription.id)


def _facts(item: SubscriptionItem) -> dict[str, Any]:
    version = item.plan_version
    return {"item_id": item.id, "plan": version.plan.code, "version": version.version, "quantity": item.quantity, "start": item.start_at}
