"""Reading subscriptions; everything a page shows is loaded (plan, terms, versions, rules, metrics)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.identity.models import Organization
from core.subscriptions.models import Subscription, SubscriptionStatus, SubscriptionTerm

PAGE_SIZE_MAX = 200


def subscription(session: Session, organization_id: uuid.UUID, subscription_id: uuid.UUID) -> Subscription:
    """One subscription of the organization, read once a session; NotFound also for another's."""
    found = session.get(Subscription, subscription_id)
    if found is None or found.organization_id != organization_id:
        raise NotFound("There is no such subscription.")
    return found


def current_subscription(session: Session, organization_id: uuid.UUID) -> Subscription | None:
    """The subscription a customer's page is about: the newest that is not cancelled, else the one that ended last, else None."""
    return session.scalars(
        select(Subscription)
        .where(Subscription.organization_id == organization_id)
        .order_by(Subscription.status == SubscriptionStatus.CANCELED, Subscription.started_at.desc(), Subscription.id.desc())
        .limit(1)
    ).one_or_none()


def subscriptions(
    session: Session,
    organization_id: uuid.UUID,
    *,
    status: SubscriptionStatus | None = None,
    before_id: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[Subscription]:
    """The organization's subscriptions, newest first; the page behind `before_id`."""
    return _page(session, organization_id, status, before_id, limit)


def all_subscriptions(
    session: Session, *, status: SubscriptionStatus | None = None, before_id: uuid.UUID | None = None, limit: int = 50
) -> Sequence[Subscription]:
    """Subscriptions of every organization, newest first: for operators only."""
    return _page(session, None, status, before_id, limit)


def due_ids(
    session: Session,
    *,
    as_of: datetime,
    after_id: uuid.UUID | None = None,
    limit: int = 1000,
    clock_id: uuid.UUID | None = None,
) -> Sequence[uuid.UUID]:
    """Ids, ascending, of subscriptions something may be due for by `as_of`: those in real time, or those bound to the test clock."""
    bound = Organization.test_clock_id.is_(None) if clock_id is None else Organization.test_clock_id == clock_id
    wanted = (
        select(Subscription.id)
        .join(Organization, Organization.id == Subscription.organization_id)
        .where(Subscription.next_bill_at <= as_of, bound)
        .order_by(Subscription.id)
        .limit(limit)
    )
    if after_id is not None:
        wanted = wanted.where(Subscription.id > after_id)
    return session.scalars(wanted).all()


def locked(session: Session, subscription: Subscription) -> Subscription:
    """The same subscription as committed last, its row locked until the transaction ends: every change and every billing takes it."""
    session.flush()
    session.execute(select(Subscription.id).where(Subscription.id == subscription.id).with_for_update())
    session.expire(subscription)
    return session.scalars(select(Subscription).where(Subscription.id == subscription.id).execution_options(populate_existing=True)).one()


def _page(
    session: Session, organization_id: uuid.UUID | None, status: SubscriptionStatus | None, before_id: uuid.UUID | None, limit: int
) -> Sequence[Subscription]:
    wanted = select(Subscription).order_by(Subscription.id.desc()).limit(min(limit, PAGE_SIZE_MAX))
    if organization_id is not None:
        wanted = wanted.where(Subscription.organization_id == organization_id)
    if status is not None:
        wanted = wanted.where(Subscription.status == status)
    if before_id is not None:
        wanted = wanted.where(Subscription.id < before_id)
    return session.scalars(wanted).all()


def counts_by_version(session: Session) -> dict[uuid.UUID, int]:
    """How many subscriptions go on without a planned end, by plan version (terms do not overlap: each has one such term at most)."""
    version, open_ended = SubscriptionTerm.plan_version_id, SubscriptionTerm.end_at.is_(None)
    rows = session.execute(select(version, func.count()).where(open_ended).group_by(version))
    return {row[0]: row[1] for row in rows}
