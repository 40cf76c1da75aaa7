"""Starting, cancelling, pausing and resuming a subscription. Billing the difference follows from the changed timeline."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit, config, jobs
from core.audit import Actor
from core.catalog import queries as catalog
from core.catalog.models import PlanVersion
from core.catalog.plan_document import TRIAL_DAYS_MAX, Reader
from core.db import new_id
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.identity.models import Organization, OrganizationStatus
from core.money import parse_decimal
from core.pricing.timeline import current_cycle
from core.subscriptions import spans as timelines
from core.subscriptions import timeline
from core.subscriptions.models import AnchorMode, Subscription, SubscriptionStatus
from core.subscriptions.queries import locked
from core.subscriptions.spans import Span
from core.subscriptions.status import bill_from, move, show

Status = SubscriptionStatus
AHEAD_DAYS_MAX = 366


def start(
    session: Session,
    organization_id: uuid.UUID,
    *,
    plan: str | uuid.UUID,
    at: datetime,
    actor: Actor,
    start_at: datetime | None = None,
    anchor: str = AnchorMode.ANNIVERSARY,
    quantity: Decimal | str | int = 1,
    trial_period_days: int | None = None,
    payment_method_id: uuid.UUID | None = None,
    external_id: str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Subscription:
    """Subscribe the organization to `plan` (the code or id of a plan, or the id of a version) from the local day of `start_at`.

    `trial_period_days` overrides the plan's. Invalid with pointers for wrong input, NotFound for an unknown organization, Conflict when
    the account is closed or another subscription already bills the plan or one of its metrics. The caller checks `payment_method_id`.
    """
    organization = _active(session, organization_id)
    version = _version(session, plan, organization)
    begins = start_at or at
    days = version.trial_period_days if trial_period_days is None else trial_period_days
    wish = _wish(anchor=anchor, trial_days=days, quantity=quantity, metadata=metadata, external_id=external_id, begins=begins, at=at)
    planned = timelines.opening(
        version,
        start=begins,
        timezone=organization.timezone,
        mode=wish.mode,
        quantity=wish.quantity,
        trial_days=wish.trial_days,
        not_before=_ended_before(session, organization_id, version, begins),
    )
    subscription = _row(organization_id, version, wish, planned)
    subscription.payment_method_id = payment_method_id
    session.add(subscription)
    timeline.store(session, subscription, planned)
    show(subscription, timeline.spans(subscription), as_of=max(at, planned[0].start))
    sold = {"code": version.plan.code, "version": version.version, "quantity": wish.quantity}
    audit.record(session, actor, "subscription.started", subscription, at=at, start=begins, plan=sold)
    jobs.enqueue(session, "bill_subscription", subscription.id)
    return subscription


def cancel(
    session: Session,
    subscription: Subscription,
    *,
    at: datetime,
    actor: Actor,
    when: str | datetime = "period_end",
    reason: str | None = None,
) -> Subscription:
    """End the subscription `now`, at `period_end` (of a trial: its end) or at an instant; an earlier plan to end it is replaced.

    Unused time billed in advance is credited as the plan's credit policy says. One that has not begun, or is paused, ends at once.
    Conflict when it has already ended, Invalid with the pointer /when.
    """
    subscription = _open(session, subscription, at)
    planned = timeline.spans(subscription)
    if subscription.ends_at is not None:
        planned = timelines.reopened(planned, AnchorMode(subscription.anchor_mode))
    ends = _end(planned, when, at)
    if ends <= planned[0].start or subscription.status == Status.PAUSED:
        ends = at
    timeline.store(session, subscription, timelines.ended(planned, ends))
    subscription.cancel_at_period_end = ends > at
    subscription.canceled_at, subscription.ends_at = at, ends
    _settle(session, subscription, changed_at=ends, at=at)
    if ends <= at:
        move(session, subscription, Status.CANCELED, at=at, actor=actor, reason=reason)
    else:
        audit.record(session, actor, "subscription.cancellation_scheduled", subscription, at=at, reason=reason, ends_at=ends)
    return subscription


def undo_cancel(session: Session, subscription: Subscription, *, at: datetime, actor: Actor) -> Subscription:
    """Take a planned cancellation back before it has come to pass; Conflict when there is none."""
    subscription = _open(session, subscription, at)
    if subscription.ends_at is None:
        raise Conflict("No cancellation is planned.", code="no_cancellation")
    planned = timelines.reopened(timeline.spans(subscription), AnchorMode(subscription.anchor_mode))
    timeline.store(session, subscription, planned)
    subscription.cancel_at_period_end, subscription.canceled_at, subscription.ends_at = False, None, None
    _settle(session, subscription, changed_at=None, at=at)
    audit.record(session, actor, "subscription.cancellation_undone", subscription, at=at)
    return subscription


def pause(session: Session, subscription: Subscription, *, at: datetime, actor: Actor, reason: str | None = None) -> Subscription:
    """Nothing is owed from `at` until `resume`. Conflict during a trial, before the start, or while a change or an end is planned."""
    subscription = _open(session, subscription, at)
    planned = timeline.spans(subscription)
    running = next((span for span in planned if span.contains(at)), None)
    if running is None or running.is_trial or running.end is not None:
        raise Conflict("Only a running subscription without a trial, a planned change or a planned end can be paused.", code="not_pausable")
    if running.start == at:
        raise Conflict("The current term began this very instant; pause a moment later.", code="not_pausable")
    timeline.store(session, subscription, timelines.ended(planned, at))
    move(session, subscription, Status.PAUSED, at=at, actor=actor, reason=reason)
    _settle(session, subscription, changed_at=at, at=at)
    return subscription


def resume(session: Session, subscription: Subscription, *, at: datetime, actor: Actor) -> Subscription:
    """Go on after a pause with the same version, quantity and cycles; Conflict when it is not paused."""
    subscription = locked(session, subscription)
    if subscription.status != Status.PAUSED:
        raise Conflict("The subscription is not paused.", code="not_paused")
    timeline.store(session, subscription, timelines.resumed(timeline.spans(subscription), at))
    move(session, subscription, Status.ACTIVE, at=at, actor=actor)
    _settle(session, subscription, changed_at=at, at=at)
    return subscription


@dataclass(frozen=True, slots=True)
class _Wish:
    """How a subscription is to start, checked."""

    mode: AnchorMode
    trial_days: int
    quantity: Decimal
    metadata: dict[str, Any]
    external_id: str | None


def _wish(
    *,
    anchor: str,
    trial_days: int,
    quantity: Decimal | str | int,
    metadata: Mapping[str, object] | None,
    external_id: str | None,
    begins: datetime,
    at: datetime,
) -> _Wish:
    reader = Reader()
    wish = _Wish(
        mode=reader.choice("/anchor", anchor, AnchorMode, AnchorMode.ANNIVERSARY),
        trial_days=reader.whole("/trial_period_days", trial_days, least=0, most=TRIAL_DAYS_MAX),
        quantity=_quantity(reader, quantity),
        metadata=reader.object("/metadata", metadata),
        external_id=reader.text("/external_id", external_id, needed=False) or None,
    )
    _check_start(reader, begins, at)
    if reader.faults:
        raise Invalid("The subscription cannot start like this.", errors=tuple(reader.faults))
    return wish


def _row(organization_id: uuid.UUID, version: PlanVersion, wish: _Wish, planned: Sequence[Span]) -> Subscription:
    return Subscription(
        id=new_id(),
        organization_id=organization_id,
        plan=version.plan,
        external_id=wish.external_id,
        status=Status.TRIALING if planned[0].is_trial else Status.ACTIVE,
        currency=version.plan.currency,
        anchor_mode=wish.mode,
        started_at=planned[0].start,
        trial_end=timelines.trial_end(planned),
        next_bill_at=planned[0].start,
        extra=wish.metadata,
        terms=[],
    )


def _active(session: Session, organization_id: uuid.UUID) -> Organization:
    """The organization, locked, so that two subscriptions of it do not start at once."""
    lock = {"of": Organization, "key_share": True}
    organization = session.get(Organization, organization_id, with_for_update=lock, populate_existing=True)
    if organization is None:
        raise NotFound("There is no such organization.")
    if organization.status != OrganizationStatus.ACTIVE:
        raise Conflict(f"The account is {organization.status}: nothing can be subscribed to.")
    return organization


def _version(session: Session, plan: str | uuid.UUID, organization: Organization) -> PlanVersion:
    try:
        version = catalog.offered_version(session, plan)
    except NotFound as error:
        raise Invalid("The subscription cannot start like this.", errors=(FieldError("/plan", error.message),)) from None
    if version.plan.currency != organization.currency:
        detail = f"the plan is in {version.plan.currency}, the account in {organization.currency}"
        raise Invalid("The subscription cannot start like this.", errors=(FieldError("/plan", detail),))
    return version


def _check_start(reader: Reader, begins: datetime, at: datetime) -> None:
    back = config.current().adjustment_days
    if begins.tzinfo is None:
        reader.fault("/start_at", "needs a time zone, such as 2026-01-31T00:00:00+01:00")
    elif begins < at - timedelta(days=back):
        reader.fault("/start_at", f"must not be more than {back} days ago: older periods are closed")
    elif begins > at + timedelta(days=AHEAD_DAYS_MAX):
        reader.fault("/start_at", f"must be within {AHEAD_DAYS_MAX} days")


def _quantity(reader: Reader, quantity: Decimal | str | int) -> Decimal:
    try:
        return parse_decimal(str(quantity), digits=9, places=6)
    except ValueError as error:
        reader.fault("/quantity", str(error))
        return Decimal(0)


def _ended_before(session: Session, organization_id: uuid.UUID, version: PlanVersion, begins: datetime) -> datetime | None:
    """Until when an older subscription billed the plan or its metrics; Conflict when it still does at `begins`.

    Two subscriptions on one metric would bill the same usage twice.
    """
    metrics = {rule.metric_id for rule in version.rules if rule.metric_id}
    older = session.scalars(
        select(Subscription).where(
            Subscription.organization_id == organization_id,
            Subscription.ends_at.is_(None) | (Subscription.ends_at > begins - timedelta(days=2)),
        )
    ).all()
    ends: list[datetime] = []
    for other in older:
        rules = [rule for span in timeline.spans(other) for rule in span.version.rules]
        shared = {rule.metric.name for rule in rules if rule.metric and rule.metric_id in metrics}
        if other.plan_id != version.plan_id and not shared:
            continue
        if other.ends_at is None or other.ends_at > begins:
            what = f"already bills {', '.join(sorted(shared))}" if shared else f"is already on {version.plan.name}"
            raise Conflict(f"The account's subscription {other.id} {what}; change its plan or cancel it first.", code="already_subscribed")
        ends.append(other.ends_at)
    return max(ends, default=None)


def _end(planned: Sequence[Span], when: str | datetime, at: datetime) -> datetime:
    if when == "now":
        return at
    if when == "period_end":
        cycle = current_cycle(timeline.terms(planned), as_of=at)
        return at if cycle is None else cycle.end
    if isinstance(when, datetime) and when.tzinfo is not None and at < when <= at + timedelta(days=AHEAD_DAYS_MAX):
        return when
    detail = f"must be now, period_end or an instant with a time zone within the next {AHEAD_DAYS_MAX} days"
    raise Invalid("The subscription cannot end then.", errors=(FieldError("/when", detail),))


def _open(session: Session, subscription: Subscription, at: datetime) -> Subscription:
    subscription = locked(session, subscription)
    if subscription.status == Status.CANCELED or (subscription.ends_at is not None and subscription.ends_at <= at):
        raise Conflict("The subscription has ended.", code="subscription_ended")
    return subscription


def _settle(session: Session, subscription: Subscription, *, changed_at: datetime | None, at: datetime) -> None:
    planned = timeline.spans(subscription)
    show(subscription, planned, as_of=at)
    bill_from(subscription, planned, changed_at=changed_at, at=at)
    jobs.enqueue(session, "bill_subscription", subscription.id)
