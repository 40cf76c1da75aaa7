"""What can be attached to a subscription, in which quantity, and from when: the rules beside add-ons and coupons."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy.orm import Session

from core.catalog import queries as catalog
from core.catalog.conditions import fits
from core.catalog.models import PlanKind, PlanVersion
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.money import parse_decimal
from core.periods import Interval
from core.subscriptions import quantities as licensed
from core.subscriptions import timeline
from core.subscriptions.models import Subscription
from core.subscriptions.spans import Span

ITEMS_MAX = 100
NONE = Decimal(0)
"""The quantity of an item that is taken away."""


def offered(session: Session, plan: str | uuid.UUID, subscription: Subscription) -> PlanVersion:
    """The version on offer that `plan` names, if the subscription can hold it; Invalid with the pointer /plan."""
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


def check(subscription: Subscription, version: PlanVersion, start: datetime, span: Span) -> None:
    """Nothing is granted or billed twice, and the add-on's period fits the plan's."""
    same = [other for other in _held(subscription, start) if other.plan_id == version.plan_id]
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
    others = [span.version, *_held(subscription, start)]
    billed = {rule.metric_id: rule.metric.name for other in others for rule in other.rules if rule.metric}
    twice = sorted(billed[rule.metric_id] for rule in version.rules if rule.metric_id in billed)
    if twice:
        raise Conflict(f"{', '.join(twice)} is billed by the subscription already.", code="already_billed")


def check_plan(subscription: Subscription, version: PlanVersion, at: datetime) -> None:
    """Conflict when an add-on held from `at` on bills a metric of the plan `version`: the same usage would be billed twice."""
    metrics = {rule.metric_id for rule in version.rules if rule.metric_id}
    twice = {
        (held.plan.name, rule.metric.name)
        for held in _held(subscription, at)
        for rule in held.rules
        if rule.metric_id in metrics and rule.metric
    }
    if twice:
        add_on, metric = min(twice)
        message = f"{metric} is billed by the add-on {add_on} already; end that first."
        raise Conflict(message, code="already_billed")


def on_offer(session: Session, subscription: Subscription, *, at: datetime) -> list[PlanVersion]:
    """The add-ons customers may choose themselves that the subscription could hold from `at` on, by name."""
    spans = timeline.spans(subscription)
    if not any(not span.is_trial and (span.end is None or span.end > at) for span in spans):
        return []
    span, found = billed_span(spans, at), []
    for version in catalog.attachable(session, subscription.currency):
        if version.plan.kind == PlanKind.ADD_ON and version.plan.is_public:
            try:
                check(subscription, version, at, span)
            except (Conflict, Invalid):
                continue
            found.append(version)
    return found


def _held(subscription: Subscription, at: datetime) -> list[PlanVersion]:
    """The versions of what is attached at `at` or will be."""
    return [item.plan_version for item in subscription.items if item.end_at is None or item.end_at > at]


def check_bounds(version: PlanVersion, quantity: Decimal) -> None:
    """Invalid with the pointer /quantity for more or fewer of an add-on than its prices allow; none at all is always possible."""
    bound = licensed.bounds(version).get(licensed.OWN)
    fault = bound.fault(quantity) if bound is not None and quantity else None
    if fault is not None:
        raise Invalid("The quantity cannot be taken.", errors=(FieldError("/quantity", fault),))


def billed_span(spans: Sequence[Span], at: datetime) -> Span:
    """The span that bills at `at`: after a trial, the one that follows it."""
    for span in spans:
        if not span.is_trial and (span.end is None or span.end > at):
            return span
    raise Conflict("The subscription does not run at that time.", code="not_running")


def whole_cycles(spans: Sequence[Span], span: Span, at: datetime, count: int | None) -> tuple[datetime, datetime | None]:
    """`count` cycles of `span` from the one at `at` on, which it may have entered late: what was billed in other cycles is left alone."""
    first = span.anchor.index(at)
    entered = min(other.start for other in spans if other.anchor == span.anchor and not other.is_trial)
    return max(span.anchor.boundary(first), entered), None if count is None else span.anchor.boundary(first + count)


def some(quantity: Decimal | str | int) -> Decimal:
    """The quantity as a number above 0; Invalid with the pointer /quantity."""
    try:
        found = parse_decimal(str(quantity), digits=9, places=6)
    except ValueError as error:
        raise Invalid("The quantity cannot be taken.", errors=(FieldError("/quantity", str(error)),)) from None
    if not found:
        raise Invalid("The quantity cannot be taken.", errors=(FieldError("/quantity", "must be more than 0; take the item away instead"),))
    return found
