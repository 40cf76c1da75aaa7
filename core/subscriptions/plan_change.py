"""Changing plan or quantity: the timeline it would make, and making it so. Billing the difference follows from the timeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from core import audit, config, jobs
from core.audit import Actor
from core.catalog.models import CreditPolicy, PlanKind, PlanVersion
from core.catalog.reader import Reader
from core.errors import Conflict, FieldError, Invalid
from core.pricing.terms import Term
from core.pricing.timeline import current_cycle
from core.subscriptions import attachable, timeline
from core.subscriptions import quantities as licensed
from core.subscriptions import spans as timelines
from core.subscriptions.models import Subscription
from core.subscriptions.opening import AHEAD_DAYS_MAX
from core.subscriptions.queries import locked
from core.subscriptions.spans import Span, hanging
from core.subscriptions.status import Act, bill_from, catch_up, require, show


@dataclass(frozen=True, slots=True)
class ScheduledChange:
    """A plan change that has not come to pass yet."""

    effective_at: datetime
    version: PlanVersion
    quantity: Decimal
    quantities: Mapping[str, Decimal] = field(default_factory=dict)


def effective_at(subscription: Subscription, when: str | datetime, *, at: datetime, backdate: bool = False) -> datetime:
    """The instant `when` (now, period_end, or an instant ahead) means for this subscription; Invalid with the pointer /when.

    With `backdate` an instant behind is taken too, as far back as cycles are open (ADJUSTMENT_DAYS).
    """
    if when == "now":
        return at
    if when == "period_end":
        cycle = current_cycle(timeline.terms(timeline.spans(subscription)), as_of=at)
        return at if cycle is None else cycle.end
    earliest = _earliest(at) if backdate else at
    if isinstance(when, datetime) and when.tzinfo is not None and earliest <= when <= at + timedelta(days=AHEAD_DAYS_MAX):
        return when
    back = f"the last {config.current().adjustment_days} or " if backdate else ""
    detail = f"must be now, period_end or an instant with a time zone within {back}the next {AHEAD_DAYS_MAX} days"
    raise Invalid("The plan cannot change then.", errors=(FieldError("/when", detail),))


def proposed_terms(
    subscription: Subscription,
    to_version: PlanVersion,
    quantity: Decimal | None,
    effective_at: datetime,
    quantities: Mapping[str, Decimal] | None = None,
    *,
    at: datetime,
) -> tuple[Term, ...]:
    """The timeline as the change made at `at` would leave it; nothing is saved. Quantities not given stay as they are until then.

    Errors as `apply`.
    """
    require(subscription, Act.CHANGE_PLAN, at)
    return timeline.terms(_changed(subscription, to_version, quantity, quantities, effective_at, at))


def apply(
    session: Session,
    subscription: Subscription,
    *,
    to: PlanVersion,
    at: datetime,
    actor: Actor,
    quantity: Decimal | None = None,
    quantities: Mapping[str, Decimal] | None = None,
    effective_at: datetime | None = None,
) -> Subscription:
    """Let `to`, `quantity` and the named `quantities` hold from `effective_at` (default `at`; it may lie behind).

    What was planned to begin then or later gives way, with its quantities.
    Invalid when nothing would change, the currency differs or the cycle is closed, Conflict when the subscription was changed after
    `effective_at` or an add-on bills a metric of `to`, InvalidTransition when its status allows no change.
    """
    subscription = locked(session, subscription)
    require(subscription, Act.CHANGE_PLAN, at)
    catch_up(session, subscription, at=at)
    effective = effective_at or at
    if effective < _earliest(at):
        raise Invalid("The plan cannot change then.", errors=(FieldError("/when", "that period is closed"),))
    before = holding(subscription, effective, at=at)
    if any(effective < span.start <= at for span in timeline.spans(subscription)):
        raise Conflict("The subscription was changed in the meantime.", code="changed_meanwhile")
    timeline.store(session, subscription, _changed(subscription, to, quantity, quantities, effective, at))
    planned = timeline.spans(subscription)
    show(subscription, planned, as_of=at)
    bill_from(subscription, planned, changed_at=None if waits(before.version) else effective, at=at)
    audit.record(
        session,
        actor,
        "subscription.plan_changed" if effective <= at else "subscription.plan_change_scheduled",
        subscription,
        at=at,
        before=_sold(before),
        after=_sold(_running(planned, effective)),
        effective_at=effective,
    )
    jobs.enqueue(session, "bill_subscription", subscription.id)
    return subscription


def waits(version: PlanVersion) -> bool:
    """Whether what a change away from this version makes up is left to the next invoice."""
    return version.credit_policy == CreditPolicy.NEXT_INVOICE


def holding(subscription: Subscription, effective: datetime, *, at: datetime) -> Span:
    """What a change made at `at` that holds from `effective` takes the place of; Conflict when nothing runs then."""
    return _running(timelines.withdrawn(timeline.spans(subscription), effective, at, hanging(subscription)), effective)


def version_at(subscription: Subscription, at: datetime) -> PlanVersion:
    """The version that holds at the instant; Conflict when nothing runs then."""
    return _running(timeline.spans(subscription), at).version


def scheduled_change(subscription: Subscription, *, at: datetime) -> ScheduledChange | None:
    """The next planned change of plan or quantity."""
    span = timelines.scheduled(timeline.spans(subscription), at)
    return None if span is None else ScheduledChange(span.start, span.version, span.quantity, span.quantities)


def undo_scheduled(session: Session, subscription: Subscription, *, at: datetime, actor: Actor, reason: str | None = None) -> Subscription:
    """Take the planned change back; Conflict when there is none, or when an add-on was attached to follow it that bills the same."""
    subscription = locked(session, subscription)
    planned = timeline.spans(subscription)
    change = timelines.scheduled(planned, at)
    if change is None:
        raise Conflict("No plan change is planned.", code="no_scheduled_change")
    kept = timelines.unscheduled(planned, at, hanging(subscription))
    attachable.check_plan(subscription, kept[-1].version, change.start)
    timeline.store(session, subscription, kept)
    planned = timeline.spans(subscription)
    show(subscription, planned, as_of=at)
    bill_from(subscription, planned, changed_at=None, at=at)
    undone: dict[str, Any] = {"plan": change.version.plan.code, "effective_at": change.start}
    audit.record(session, actor, "subscription.plan_change_undone", subscription, at=at, reason=reason, **undone)
    return subscription


def _sold(span: Span) -> dict[str, Any]:
    version, named = span.version, {name: held for name, held in span.quantities.items() if held}
    sold = {"plan": version.plan.code, "version": version.version, "quantity": span.quantity}
    return {**sold, "quantities": named} if named else sold


def _changed(
    subscription: Subscription,
    to: PlanVersion,
    quantity: Decimal | None,
    quantities: Mapping[str, Decimal] | None,
    effective: datetime,
    at: datetime,
) -> tuple[Span, ...]:
    require(subscription, Act.CHANGE_PLAN, effective)
    if to.organization_id not in (None, subscription.organization_id):
        raise Invalid("The plan cannot change like this.", errors=(FieldError("/plan", "There is no such plan version."),))
    if to.plan.kind != PlanKind.PLAN:
        detail = f"{to.plan.name} is no plan: attach it to the subscription instead"
        raise Invalid("The plan cannot change like this.", errors=(FieldError("/plan", detail),))
    if not to.sells_in(subscription.currency):
        detail = f"the plan is in {to.plan.currency}, the subscription in {subscription.currency}"
        raise Invalid("The plan cannot change like this.", errors=(FieldError("/plan", detail),))
    spans = timeline.spans(subscription)
    held, stored = holding(subscription, effective, at=at), _running(spans, effective)
    if to.id != stored.version.id:
        attachable.check_plan(subscription, to, effective)
    wanted = held.quantity if quantity is None else quantity
    named = {**held.quantities, **_kept(held.quantities, quantities or {}, wanted, to)}
    wish = replace(held, version=to, quantity=wanted, quantities=named)
    if wish.sold == stored.sold and timelines.scheduled(spans, effective) is None:
        detail = f"the subscription is already on version {to.version} of {to.plan.name} with this quantity"
        raise Invalid("Nothing would change.", errors=(FieldError("/plan", detail),))
    mode = hanging(subscription)
    spans = timelines.withdrawn(spans, effective, at, mode)
    return timelines.changed(spans, version=to, quantity=wanted, quantities=quantities, at=effective, mode=mode)


def _kept(held: Mapping[str, Decimal], given: Mapping[str, Decimal], own: Decimal, to: PlanVersion) -> dict[str, Decimal]:
    """The named quantities given; Invalid with a pointer for one without a price, and for all that would not keep the version's bounds."""
    reader = Reader()
    found = licensed.read(reader, given, to)
    rest = {name: held.get(name, Decimal(0)) for name in licensed.bounds(to) if name and name not in given}
    licensed.check(reader, {licensed.OWN: own, **rest}, to)
    if reader.faults:
        raise Invalid("The quantities cannot change like this.", errors=tuple(reader.faults))
    return found


def _earliest(at: datetime) -> datetime:
    """Cycles that ended before this are closed: nothing in them is billed or credited any more."""
    return at - timedelta(days=config.current().adjustment_days)


def _running(spans: tuple[Span, ...], at: datetime) -> Span:
    running = next((span for span in spans if span.contains(at)), None)
    if running is None:
        raise Conflict("The subscription does not run at that time.", code="not_running")
    return running
