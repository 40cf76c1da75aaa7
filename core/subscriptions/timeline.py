"""Stored terms as the values pricing works on (core.pricing.terms), one subscription or a thousand at a time."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BindParameter, Uuid, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, joinedload, selectinload

from core.catalog.models import CreditPolicy, PlanKind, PlanVersion
from core.db import new_id
from core.metering.answers import measure
from core.money import plain
from core.periods import Anchor, Interval, Period
from core.pricing.models import parse
from core.pricing.proration import Proration
from core.pricing.terms import Kind, Measure, Rule, Term, Timing
from core.subscriptions.attached import Attached
from core.subscriptions.models import Subscription, SubscriptionItem, SubscriptionTerm
from core.subscriptions.spans import Span

FOREVER = datetime.max.replace(tzinfo=UTC)


def load(session: Session, subscription_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, tuple[Term, ...]]:
    """The timelines of many subscriptions with four statements; one without terms (cancelled before it began) has ()."""
    ids = literal(list(subscription_ids), ARRAY(Uuid))
    rows = session.execute(
        select(SubscriptionTerm.__table__, Subscription.currency)
        .join(Subscription, Subscription.id == SubscriptionTerm.subscription_id)
        .where(SubscriptionTerm.subscription_id == any_(ids))
        .order_by(SubscriptionTerm.subscription_id, SubscriptionTerm.start_at)
    ).all()
    items = _items(session, ids)
    wanted = {row.plan_version_id for row in rows} | {item.plan_version_id for found in items.values() for item in found}
    versions = {
        version.id: version
        for version in session.scalars(
            select(PlanVersion)
            .where(PlanVersion.id == any_(literal(list(wanted), ARRAY(Uuid))))
            .options(joinedload(PlanVersion.plan), selectinload(PlanVersion.rules))
        )
    }
    priced: dict[tuple[uuid.UUID, str], tuple[Rule, ...]] = {}
    loaded: dict[uuid.UUID, list[Term]] = {subscription_id: [] for subscription_id in subscription_ids}
    for row in rows:
        version, key = versions[row.plan_version_id], (row.plan_version_id, row.currency)
        charged = priced.get(key) or priced.setdefault(key, rules(version, row.currency))
        attached = tuple(_attached(versions[item.plan_version_id], item) for item in items.get(row.subscription_id, ()))
        loaded[row.subscription_id].append(_term(_span(row, version, attached, row.currency), charged))
    return {subscription_id: tuple(found) for subscription_id, found in loaded.items()}


def _items(session: Session, ids: BindParameter[Any]) -> dict[uuid.UUID, list[Any]]:
    """What is attached to each subscription, in order of time."""
    found: dict[uuid.UUID, list[Any]] = {}
    table = SubscriptionItem.__table__
    for row in session.execute(select(table).where(SubscriptionItem.subscription_id == any_(ids)).order_by(table.c.start_at, table.c.id)):
        found.setdefault(row.subscription_id, []).append(row)
    return found


def rules(version: PlanVersion, currency: str | None = None) -> tuple[Rule, ...]:
    """The pricing rules of a version in a currency; in the plan's own where it has no prices in the one asked for."""
    prorate = Proration(version.proration)
    return tuple(
        Rule(
            id=str(row.id),
            code=row.code,
            kind=Kind(row.kind),
            timing=Timing(row.billing_mode),
            model=parse(row.rules),
            metric_id=str(row.metric_id) if row.metric_id else None,
            prorate=prorate if row.proration is None else Proration(row.proration),
            licensed=row.licensed,
            cycle=None if row.interval is None else (Interval(row.interval), row.interval_count or 1),
            included=row.included,
            covers=None if row.covers is None else frozenset(row.covers),
            overage_factor=row.overage_factor,
            measure=measure(row.metric) if row.metric is not None else Measure.FLOW,
        )
        for row in version.rules_in(currency)
    )


def terms(spans: Iterable[Span]) -> tuple[Term, ...]:
    """The timeline of spans, stored or only proposed."""
    return tuple(_term(item, rules(item.version, item.currency)) for item in spans)


def _term(item: Span, charged: tuple[Rule, ...]) -> Term:
    return Term(
        id=str(item.id or new_id()),
        start=item.start,
        end=item.end,
        rules=() if item.is_trial else charged + _attached_rules(item),
        quantity=item.quantity,
        anchor=item.anchor,
        credit_unused=item.version.credit_policy != CreditPolicy.NONE,
        quantities=item.quantities,
        is_trial=item.is_trial,
    )


def _attached_rules(item: Span) -> tuple[Rule, ...]:
    """The prices of what is attached, for the time it is: an add-on in its own quantity and cycles, a coupon on whole cycles."""
    found: list[Rule] = []
    for attached in item.items:
        during = Period(attached.start, attached.end or FOREVER)
        if during.overlap(Period(item.start, item.end or FOREVER)) is None:
            continue
        is_coupon = attached.version.plan.kind == PlanKind.COUPON
        own = (Interval(attached.version.billing_period), attached.version.interval_count)
        cycle = None if is_coupon or own == (item.anchor.interval, item.anchor.count) else own
        for rule in rules(attached.version, item.currency):
            if is_coupon:
                found.append(replace(rule, during=during, prorate=Proration.NONE))
            else:
                quantity = attached.quantity if rule.licensed is None else None
                found.append(replace(rule, during=during, quantity=quantity, cycle=rule.cycle or cycle))
    return tuple(found)


def spans(subscription: Subscription) -> tuple[Span, ...]:
    """The whole timeline of a subscription, as the values that changes are worked out on."""
    items = attached(subscription)
    return tuple(_span(row, row.plan_version, items, subscription.currency) for row in subscription.terms)


def attached(subscription: Subscription) -> tuple[Attached, ...]:
    """All that is beside the plan, whenever it holds."""
    return tuple(_attached(item.plan_version, item) for item in subscription.items)


def _attached(version: PlanVersion, row: Any) -> Attached:
    return Attached(version, row.quantity, row.start_at, row.end_at, row.id)


def _span(row: Any, version: PlanVersion, items: tuple[Attached, ...], currency: str) -> Span:
    return Span(
        start=row.start_at,
        end=row.end_at,
        version=version,
        quantity=row.quantity,
        is_trial=row.is_trial,
        anchor=Anchor(Interval(row.interval), row.interval_count, row.anchor_day, row.timezone),
        id=row.id,
        quantities=_held(row.quantities),
        items=items,
        currency=currency,
    )


def _held(quantities: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: Decimal(quantity) for name, quantity in quantities.items()}


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
        quantities={name: plain(quantity) for name, quantity in item.quantities.items()},
        is_trial=item.is_trial,
        anchor_day=item.anchor.day,
        interval=item.anchor.interval,
        interval_count=item.anchor.count,
        timezone=item.anchor.timezone,
    )
