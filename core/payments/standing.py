"""Good standing: a subscription whose payment failed is past due, loses access when nobody pays, and gets both back with the payment.

Found by state, so that a worker may look at any time and twice: `waiting` names the subscriptions, `review` judges one of them.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from core import config
from core.audit import SYSTEM, Actor
from core.identity.models import Organization
from core.invoicing.models import Invoice, InvoiceStatus
from core.subscriptions import lifecycle, status
from core.subscriptions.models import Subscription, SubscriptionStatus, SuspensionCause
from core.subscriptions.queries import locked

UNPAID_REASON = "the invoice stayed unpaid after every try"
PAID_REASON = "the payment arrived"
SETTLED_REASON = "nothing is overdue any more"
_FAILING = (
    Invoice.subscription_id == Subscription.id,
    Invoice.status.in_((InvoiceStatus.OPEN, InvoiceStatus.UNCOLLECTIBLE)),
    Invoice.collect_attempts > 0,
    Invoice.amount_due_minor > 0,
)
"""An invoice that was tried in vain; written off, it is one still."""
_PAST_DUE = Subscription.status == SubscriptionStatus.PAST_DUE
_AT_FAULT = and_(
    Subscription.status.in_((SubscriptionStatus.PAST_DUE, SubscriptionStatus.SUSPENDED)),
    or_(_PAST_DUE, Subscription.suspension_cause == SuspensionCause.UNPAID),
)


def waiting(session: Session, *, as_of: datetime, clock_id: uuid.UUID | None = None, limit: int = 100) -> Sequence[uuid.UUID]:
    """Subscriptions to be suspended by `as_of`, or to recover because an invoice was settled in another way than by a payment.

    Those in real time, or those bound to the test clock.
    """
    given_up = and_(_PAST_DUE, exists().where(*_FAILING, *_given_up(as_of)))
    return session.scalars(
        select(Subscription.id)
        .join(Organization, Organization.id == Subscription.organization_id)
        .where(_AT_FAULT, _bound(clock_id), or_(given_up, ~exists().where(*_FAILING)))
        .order_by(Subscription.id)
        .limit(limit)
    ).all()


def review(session: Session, subscription_id: uuid.UUID, *, at: datetime) -> None:
    """Suspend the subscription SUSPEND_UNPAID_DAYS after an invoice that is not tried any more; let it recover when none is failing."""
    subscription = session.get(Subscription, subscription_id)
    if subscription is None:
        return
    subscription = locked(session, subscription)
    if subscription.status == SubscriptionStatus.PAST_DUE and _has_invoice(session, subscription, *_given_up(at)):
        lifecycle.suspend(session, subscription, at=at, actor=SYSTEM, cause=SuspensionCause.UNPAID, reason=UNPAID_REASON)
    else:
        recover(session, subscription, at=at, actor=SYSTEM, reason=SETTLED_REASON)


def recover(session: Session, subscription: Subscription, *, at: datetime, actor: Actor, reason: str = PAID_REASON) -> None:
    """Make a past-due subscription active, and give access back that was taken for non-payment, unless an invoice is still failing.

    What an operator suspended stays suspended.
    """
    at_fault = subscription.status == SubscriptionStatus.PAST_DUE or subscription.suspension_cause == SuspensionCause.UNPAID
    if not at_fault or _has_invoice(session, subscription):
        return
    if subscription.status == SubscriptionStatus.PAST_DUE:
        status.move(session, subscription, SubscriptionStatus.ACTIVE, at=at, actor=actor, reason=reason)
    else:
        lifecycle.reinstate(session, subscription, at=at, actor=actor, reason=reason)


def next_suspension(session: Session, *, clock_id: uuid.UUID) -> datetime | None:
    """When the next subscription on the test clock is to be suspended; None when none is."""
    days = config.current().suspend_unpaid_days
    first = session.scalar(
        select(func.min(Invoice.finalized_at))
        .join(Subscription, _FAILING[0])
        .join(Organization, Organization.id == Subscription.organization_id)
        .where(_PAST_DUE, _bound(clock_id), *_FAILING[1:], Invoice.next_collect_at.is_(None))
    )
    return None if first is None or not days else first + timedelta(days=days)


def _has_invoice(session: Session, subscription: Subscription, *also: ColumnElement[bool]) -> bool:
    """Whether the subscription has an invoice that was tried in vain, and is so `also`."""
    found = select(Subscription.id).where(Subscription.id == subscription.id, exists().where(*_FAILING, *also))
    return session.scalar(found) is not None


def _given_up(as_of: datetime) -> tuple[ColumnElement[bool], ...]:
    """No further try is planned, and the first was long enough ago. Nothing ever is when SUSPEND_UNPAID_DAYS is 0."""
    days = config.current().suspend_unpaid_days
    return Invoice.next_collect_at.is_(None), Invoice.finalized_at <= as_of - timedelta(days=days or 36_500)


def _bound(clock_id: uuid.UUID | None) -> ColumnElement[bool]:
    return Organization.test_clock_id.is_(None) if clock_id is None else Organization.test_clock_id == clock_id
