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
from core.catalog.models import PlanKind, PlanVersion
from core.db import new_id
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.subscriptions import attachable, plan_change, timeline
from core.subscriptions.attached import Attached, held_from, kept
from core.subscriptions.models import Subscription, SubscriptionItem
from core.subscriptions.queries import locked
from core.subscriptions.status import Act, bill_from, require, show


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
    version = attachable.offered(session, plan, subscription)
    start = plan_change.effective_at(subscription, when, at=at)
    planned = timeline.spans(subscription)
    span = attachable.billed_span(planned, start)
    item = SubscriptionItem(
        id=new_id(),
        organization_id=subscription.organization_id,
        plan_version=version,
        quantity=attachable.some(quantity),
        start_at=max(start, span.start),
        end_at=None,
    )
    if version.plan.kind == PlanKind.COUPON:
        item.quantity = Decimal(1)
        item.start_at, item.end_at = attachable.whole_cycles(planned, span, item.start_at, version.duration_cycles)
    attachable.check_bounds(version, item.quantity)
    attachable.check(subscription, version, item.start_at, span)
    subscription.items.append(item)
    _settle(session, subscription, changed_at=start, at=at)
    audit.record(session, actor, f"subscription.{version.plan.kind}_attached", subscription, at=at, reason=reason, **_facts(item))
    return item


def change_quantity(
    session: Session,
    subscription: Subscription,
    item_id: uuid.UUID,
    *,
    quantity: Decimal | str | int,
    at: datetime,
    actor: Actor,
    when: str | datetime = "now",
) -> SubscriptionItem:
    """Hold another quantity of an add-on from `when` on; what was planned for later gives way. The item that holds from then on.

    NotFound for an item the subscription does not hold, Conflict for one that ended.
    """
    subscription = locked(session, subscription)
    item = _running(subscription, item_id, at)
    if item.plan_version.plan.kind == PlanKind.COUPON:
        raise Invalid("A coupon has no quantity.", errors=(FieldError("/quantity", "only an add-on has one"),))
    wanted, version = attachable.some(quantity), item.plan_version
    effective = plan_change.effective_at(subscription, when, at=at)
    hold(session, subscription, version=version, quantity=wanted, item_id=item_id, effective_at=effective, at=at, actor=actor)
    now = [found for found in subscription.items if found.plan_version is version and found.quantity == wanted]
    return next((found for found in now if found.id == item_id), now[-1])


def detach(
    session: Session,
    subscription: Subscription,
    item_id: uuid.UUID,
    *,
    at: datetime,
    actor: Actor,
    when: str | datetime = "now",
    reason: str | None = None,
) -> Subscription:
    """Take an add-on away from `when`, or a coupon from the end of the running period. Done before, nothing happens. NotFound."""
    subscription = locked(session, subscription)
    item = _item(subscription, item_id)
    if item.end_at is not None and item.end_at <= at:
        return subscription
    version = item.plan_version
    end = plan_change.effective_at(subscription, "period_end" if version.plan.kind == PlanKind.COUPON else when, at=at)
    own, planned = _own(subscription, item_id)
    _arrange(session, subscription, held_from(planned, own=own, version=version, quantity=Decimal(0), at=end))
    _settle(session, subscription, changed_at=end if end <= at else None, at=at)
    facts = {**_facts(item), "ends_at": min(end, item.end_at or end)}
    audit.record(session, actor, f"subscription.{version.plan.kind}_detached", subscription, at=at, reason=reason, **facts)
    return subscription


def hold(
    session: Session,
    subscription: Subscription,
    *,
    version: PlanVersion,
    quantity: Decimal,
    at: datetime,
    actor: Actor,
    item_id: uuid.UUID | None = None,
    effective_at: datetime | None = None,
    reason: str | None = None,
) -> Subscription:
    """Let `quantity` of the add-on be held from `effective_at` (default `at`): more, fewer or none (0) of an item, or a new one.

    Of a coupon there is one or none; a new one holds for whole periods.

    Errors as `attach` and `change_quantity`.
    """
    subscription = locked(session, subscription)
    require(subscription, Act.CHANGE_PLAN, at)
    effective = effective_at or at
    before = _running(subscription, item_id, effective).quantity if item_id else Decimal(0)
    if before == quantity and not (item_id and _item(subscription, item_id).end_at):
        return subscription
    _arrange(session, subscription, arranged(subscription, version=version, quantity=quantity, item_id=item_id, effective_at=effective))
    left_to_next = plan_change.waits(attachable.billed_span(timeline.spans(subscription), effective).version)
    _settle(session, subscription, changed_at=None if left_to_next else effective, at=at)
    word = "detached" if not quantity else "changed" if before else "attached"
    sold: dict[str, Any] = {
        "plan": version.plan.code,
        "version": version.version,
        "before": before,
        "quantity": quantity,
        "start": effective,
    }
    audit.record(session, actor, f"subscription.{version.plan.kind}_{word}", subscription, at=at, reason=reason, **sold)
    return subscription


def keep(session: Session, subscription: Subscription, item_id: uuid.UUID, *, at: datetime, actor: Actor) -> Subscription:
    """Take the planned end or other quantity of an add-on back; Conflict when none is planned. NotFound."""
    subscription = locked(session, subscription)
    item = _running(subscription, item_id, at)
    if item.end_at is None or item.plan_version.plan.kind == PlanKind.COUPON:
        raise Conflict("No change of it is planned.", code="no_scheduled_change")
    own, planned = _own(subscription, item_id)
    _arrange(session, subscription, kept(planned, own))
    _settle(session, subscription, changed_at=None, at=at)
    audit.record(session, actor, "subscription.add_on_kept", subscription, at=at, **_facts(item))
    return subscription


def arranged(
    subscription: Subscription, *, version: PlanVersion, quantity: Decimal, effective_at: datetime, item_id: uuid.UUID | None
) -> tuple[Attached, ...]:
    """What the subscription would have attached if `hold` were done; nothing is saved. Errors as `hold`."""
    spans = timeline.spans(subscription)
    span = attachable.billed_span(spans, effective_at)
    start, end, is_coupon = max(effective_at, span.start), None, version.plan.kind == PlanKind.COUPON
    attachable.check_bounds(version, quantity)
    if item_id is None:
        if is_coupon:
            start, end = attachable.whole_cycles(spans, span, start, version.duration_cycles)
        attachable.check(subscription, version, start, span)
        return (*timeline.attached(subscription), Attached(version, Decimal(1) if is_coupon else quantity, start, end))
    if is_coupon and quantity:
        raise Invalid("A coupon has no quantity.", errors=(FieldError("/quantity", "only an add-on has one"),))
    own, planned = _own(subscription, item_id)
    return held_from(planned, own=own, version=version, quantity=quantity, at=max(start, own.start))


def held(subscription: Subscription, at: datetime) -> list[SubscriptionItem]:
    """What is attached at `at` or will be."""
    return [item for item in subscription.items if item.end_at is None or item.end_at > at]


def _item(subscription: Subscription, item_id: uuid.UUID) -> SubscriptionItem:
    item = next((found for found in subscription.items if found.id == item_id), None)
    if item is None:
        raise NotFound("The subscription has no such item.")
    return item


def _own(subscription: Subscription, item_id: uuid.UUID) -> tuple[Attached, tuple[Attached, ...]]:
    """The item among all that are attached, as values."""
    _item(subscription, item_id)
    planned = timeline.attached(subscription)
    return next(found for found in planned if found.id == item_id), planned


def _arrange(session: Session, subscription: Subscription, wanted: Sequence[Attached]) -> None:
    """Make the stored items equal to `wanted`; one that only ends at another time keeps its row."""
    ends = {item.id: item.end for item in wanted if item.id is not None}
    for row in list(subscription.items):
        if row.id in ends:
            row.end_at = ends[row.id]
        else:
            subscription.items.remove(row)
            session.delete(row)
    subscription.items.extend(
        SubscriptionItem(
            id=new_id(),
            organization_id=subscription.organization_id,
            plan_version=item.version,
            quantity=item.quantity,
            start_at=item.start,
            end_at=item.end,
        )
        for item in wanted
        if item.id is None
    )


def _running(subscription: Subscription, item_id: uuid.UUID, at: datetime) -> SubscriptionItem:
    item = _item(subscription, item_id)
    if item.end_at is not None and item.end_at <= at:
        raise Conflict("The item has ended.", code="item_ended")
    return item


def _settle(session: Session, subscription: Subscription, *, changed_at: datetime | None, at: datetime) -> None:
    session.flush()
    planned = timeline.spans(subscription)
    show(subscription, planned, as_of=at)
    bill_from(subscription, planned, changed_at=changed_at, at=at)
    jobs.enqueue(session, "bill_subscription", subscription.id)


def _facts(item: SubscriptionItem) -> dict[str, Any]:
    version = item.plan_version
    return {"item_id": item.id, "plan": version.plan.code, "version": version.version, "quantity": item.quantity, "start": item.start_at}
