"""Stored terms as the values pricing works on (core.pricing.terms), one subscription or a thousand at a time."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import Uuid, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, raiseload, selectinload

from core.catalog.models import CreditPolicy, PlanVersion, PricingRule
from core.db import new_id
from core.periods import Anchor, Interval
from core.pricing.proration import Proration
from core.pricing.rules import parse_model
from core.pricing.terms import Kind, Rule, Term, Timing
from core.subscriptions.models import Subscription, SubscriptionTerm
from core.subscriptions.spans import Span


def load(session: Session, subscription_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, tuple[Term, ...]]:
    """The timelines of many subscriptions with three statements; one without terms (cancelled before it began) has ()."""
    ids = literal(list(subscription_ids), ARRAY(Uuid))
    rows = session.execute(
        select(SubscriptionTerm.__table__)
        .where(SubscriptionTerm.subscription_id == any_(ids))
        .order_by(SubscriptionTerm.subscription_id, SubscriptionTerm.start_at)
    ).all()
    versions = session.scalars(
        select(PlanVersion)
        .where(PlanVersion.id == any_(literal(list({row.plan_version_id for row in rows}), ARRAY(Uuid))))
        .options(raiseload(PlanVersion.plan), selectinload(PlanVersion.rules).raiseload(PricingRule.metric))
    ).all()
    priced = {version.id: (rules(version), version.credit_policy != CreditPolicy.NONE) for version in versions}
    loaded: dict[uuid.UUID, list[Term]] = {subscription_id: [] for subscription_id in subscription_ids}
    for row in rows:
        charged, credit_unused = priced[row.plan_version_id]
        loaded[row.subscription_id].append(
            Term(
                id=str(row.id),
                start=row.start_at,
                end=row.end_at,
                rules=() if row.is_trial else charged,
                quantity=row.quantity,
                anchor=Anchor(Interval(row.interval), row.interval_count, row.anchor_day, row.timezone),
                credit_unused=credit_unused,
            )
        )
    return {subscription_id: tuple(found) for subscription_id, found in loaded.items()}


def rules(version: PlanVersion) -> tuple[Rule, ...]:
    """The pricing rules of a version."""
    prorate = Proration(version.proration)
    return tuple(
        Rule(
            id=str(row.id),
            code=row.code,
            kind=Kind(row.kind),
            timing=Timing(row.billing_mode),
            model=parse_model(row.rules),
            metric_id=str(row.metric_id) if row.metric_id else None,
            prorate=prorate,
        )
        for row in version.rules
    )


def term(row: SubscriptionTerm) -> Term:
    """One stored term, its plan version loaded."""
    return _term(span(row))


def terms(spans: Iterable[Span]) -> tuple[Term, ...]:
    """The timeline of spans, stored or only proposed."""
    return tuple(_term(item) for item in spans)


def _term(item: Span) -> Term:
    return Term(
        id=str(item.id or new_id()),
        start=item.start,
        end=item.end,
        rules=() if item.is_trial else rules(item.version),
        quantity=item.quantity,
        anchor=item.anchor,
        credit_unused=item.version.credit_policy != CreditPolicy.NONE,
    )


def span(row: SubscriptionTerm) -> Span:
    """A stored term as the value that changes are worked out on."""
    anchor = Anchor(Interval(row.interval), row.interval_count, row.anchor_day, row.timezone)
    return Span(row.start_at, row.end_at, row.plan_version, row.quantity, row.is_trial, anchor, row.id)


def spans(subscription: Subscription) -> tuple[Span, ...]:
    """The whole timeline of a subscription."""
    return tuple(span(row) for row in subscription.terms)


def store(session: Session, subscription: Subscription, wanted: Sequence[Span]) -> None:
    """Make the stored terms equal to `wanted`; a term that only ends at another time keeps its row. The caller holds the lock."""
    kept = {span.id: span for span in wanted if span.id is not None}
    for row in list(subscription.terms):
        if row.id not in kept or row.start_at != kept[row.id].start:
            subscription.terms.remove(row)
            session.delete(row)
        elif _sooner(kept[row.id].end, row.end_at):
            row.end_at = kept[row.id].end
    session.flush()  # terms may not overlap at any moment: first make room, then lengthen, then add
    for row in subscription.terms:
        row.end_at = kept[row.id].end
    session.flush()
    subscription.terms.extend(_row(subscription, item) for item in wanted if item.id is None)
    session.flush()


def _sooner(end: datetime | None, than: datetime | None) -> bool:
    return end is not None and (than is None or end < than)


def _row(subscription: Subscription, item: Span) -> SubscriptionTerm:
    return SubscriptionTerm(
        id=new_id(),
        organization_id=subscription.organization_id,
        plan_version=item.version,
        start_at=item.start,
        end_at=item.end,
        quantity=item.quantity,
        is_trial=item.is_trial,
        anchor_day=item.anchor.day,
        interval=item.anchor.interval,
        interval_count=item.anchor.count,
        timezone=item.anchor.timezone,
    )
