"""What a subscription's row says about its timeline: status, plan, current period, when it is looked at next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy.orm import Session

from core import audit, config
from core.audit import SYSTEM, Actor
from core.catalog.models import AfterTrial
from core.errors import InvalidTransition
from core.pricing.segments import late_look
from core.pricing.terms import Term
from core.pricing.timeline import current_cycle, next_due
from core.subscriptions import timeline
from core.subscriptions.models import TRANSITIONS, Subscription, SubscriptionStatus
from core.subscriptions.spans import Span

Status = SubscriptionStatus


class Act(StrEnum):
    """What a person or the dunning does to a subscription."""

    CHANGE_PLAN = "change_plan"
    PAUSE = "pause"
    RESUME = "resume"
    SUSPEND = "suspend"
    REINSTATE = "reinstate"
    CANCEL = "cancel"
    UNDO_CANCEL = "undo_cancel"
    REACTIVATE = "reactivate"


_RUNNING = frozenset({Status.TRIALING, Status.ACTIVE, Status.PAST_DUE})
ACTS: dict[Act, frozenset[SubscriptionStatus]] = {
    Act.CHANGE_PLAN: _RUNNING,
    Act.PAUSE: frozenset({Status.ACTIVE}),
    Act.RESUME: frozenset({Status.PAUSED}),
    Act.SUSPEND: _RUNNING,
    Act.REINSTATE: frozenset({Status.SUSPENDED}),
    Act.CANCEL: _RUNNING | {Status.PAUSED, Status.SUSPENDED},
    Act.UNDO_CANCEL: _RUNNING | {Status.SUSPENDED},
    Act.REACTIVATE: frozenset({Status.CANCELED}),
}
"""In which status each act is possible. The status an act leads to is one TRANSITIONS allows."""


def present(subscription: Subscription, at: datetime) -> SubscriptionStatus:
    """The status at `at`, also where the end, that of a trial or a planned return has come to pass and no billing has written it down yet.

    Whether a trial goes on that needs a payment method for it, billing finds out: until then it is one.
    """
    if subscription.ends_at is not None and subscription.ends_at <= at:
        return Status.CANCELED
    status = Status(subscription.status)
    goes_on = status is Status.PAUSED and _back_since(subscription, at) is not None
    return Status.ACTIVE if goes_on or _converted(subscription, at) else status


def resumes_at(subscription: Subscription, at: datetime) -> datetime | None:
    """When a paused subscription goes on by itself; None when nobody has planned it, or it is not paused."""
    ahead = [term.start_at for term in subscription.terms if term.start_at > at]
    return min(ahead, default=None) if present(subscription, at) is Status.PAUSED else None


def customers_may_pause(subscription: Subscription, at: datetime) -> bool:
    """Whether the plan that holds at `at` lets customers pause it themselves."""
    held = (term for term in subscription.terms if term.start_at <= at and (term.end_at is None or at < term.end_at))
    return all(term.plan_version.customers_may_pause for term in held)


def catch_up(session: Session, subscription: Subscription, *, at: datetime) -> None:
    """Write down a planned return or the end of a trial that has come to pass: what is done next is done to a running subscription."""
    trial_over = _converted(subscription, at)
    audit.record_all(session, _move_by_time(subscription, at, SYSTEM) if trial_over else _returned(subscription, at, SYSTEM))


def possible(subscription: Subscription, at: datetime) -> tuple[Act, ...]:
    """The acts that the status allows, in the order of `Act`."""
    now, ends = present(subscription, at), subscription.ends_at is not None
    return tuple(act for act, statuses in ACTS.items() if now in statuses and (act is not Act.UNDO_CANCEL or ends))


def require(subscription: Subscription, act: Act, at: datetime) -> None:
    """InvalidTransition, naming what is possible instead, when the status at `at` does not allow the act."""
    now = present(subscription, at)
    if now not in ACTS[act]:
        others = ", ".join(possible(subscription, at))
        raise InvalidTransition(f"The subscription is {now}, so {act} is not possible. Possible now: {others}.")


def move(
    session: Session, subscription: Subscription, to: SubscriptionStatus, *, at: datetime, actor: Actor, reason: str | None = None
) -> None:
    """Change the status and record it; InvalidTransition where TRANSITIONS has no such move. Moving to the present status is nothing."""
    audit.record_all(session, _moved(subscription, to, at=at, actor=actor, reason=reason))


def advance(session: Session, subscriptions: Iterable[Subscription], *, as_of: datetime, actor: Actor = SYSTEM) -> None:
    """Let time pass: what the timelines say at `as_of` becomes status, plan, current period and the next instant to look at it.

    Billing calls it once everything due by `as_of` is on invoices. Rows are locked by the caller.
    """
    facts: list[dict[str, Any]] = []
    for subscription in subscriptions:
        spans = timeline.spans(subscription)
        facts += _move_by_time(subscription, as_of, actor)
        show(subscription, spans, as_of=as_of)
        subscription.next_bill_at = next_look(timeline.terms(spans), after=as_of)
    session.flush()
    audit.record_all(session, facts)


def show(subscription: Subscription, spans: tuple[Span, ...], *, as_of: datetime) -> None:
    """Set the snapshot columns from the timeline: plan, trial end, current period; where nothing runs, the plan that ran last."""
    running = next((span for span in spans if span.contains(as_of)), None)
    if running is None:
        began = [span for span in spans if span.start <= as_of] or list(spans[:1])
        if began:
            subscription.plan = began[-1].version.plan
        return
    subscription.plan = running.version.plan
    cycle = current_cycle(timeline.terms([running]), as_of=as_of)
    if cycle is not None:
        first = min(span.start for span in spans if not span.is_trial or span is running)
        end = subscription.ends_at
        subscription.current_period_start = max(cycle.start, first)
        subscription.current_period_end = cycle.end if end is None else min(cycle.end, end)


def next_look(terms: Sequence[Term], *, after: datetime) -> datetime | None:
    """When billing looks at the timeline again: as something falls due, or earlier, for what came late. None: never again.

    Usage of a quarter or a year that came late does not wait for the next one, and usage of the last cycle is billed when the last event
    that may still arrive has arrived.
    """
    settings, due = config.current(), next_due(terms, after=after)
    waits = [timedelta(days=days) for days in (settings.usage_window_past_days, settings.adjustment_days)]
    if due is not None and due - after <= min(waits):
        return due
    late = late_look(terms, after=after, waits=waits)
    return min(due, late) if due and late else due or late


def bill_from(subscription: Subscription, spans: tuple[Span, ...], *, changed_at: datetime | None, at: datetime) -> None:
    """Set when billing must look at the subscription again after a change that holds from `changed_at` (None: from later than `at`)."""
    waiting = subscription.next_bill_at
    if waiting is not None and waiting <= at:
        return
    past = changed_at is not None and changed_at <= at
    subscription.next_bill_at = at if past else next_look(timeline.terms(spans), after=at)


def _move_by_time(subscription: Subscription, as_of: datetime, actor: Actor) -> list[dict[str, Any]]:
    status = Status(subscription.status)
    if status is not Status.CANCELED and subscription.ends_at is not None and subscription.ends_at <= as_of:
        return _moved(subscription, Status.CANCELED, at=subscription.ends_at, actor=actor, reason="the subscription has ended")
    if status is Status.PAUSED:
        return _returned(subscription, as_of, actor)
    if status is Status.TRIALING and subscription.trial_end is not None and subscription.trial_end <= as_of:
        return _moved(subscription, Status.ACTIVE, at=subscription.trial_end, actor=actor, reason="the trial has ended")
    return []


def _converted(subscription: Subscription, at: datetime) -> bool:
    ended = subscription.trial_end is not None and subscription.trial_end <= at
    return ended and subscription.status == Status.TRIALING and subscription.trial_end_without_method == AfterTrial.CONVERT


def _returned(subscription: Subscription, at: datetime, actor: Actor) -> list[dict[str, Any]]:
    since = _back_since(subscription, at)
    if since is None or subscription.status != Status.PAUSED:
        return []
    return _moved(subscription, Status.ACTIVE, at=since, actor=actor, reason="the pause has ended as planned")


def _back_since(subscription: Subscription, at: datetime) -> datetime | None:
    """Since when a paused subscription runs again. A pause leaves no term open but the one it was planned to go on with.

    Billing may look late, as of an instant before the pause: what held then is no return.
    """
    return next((term.start_at for term in subscription.terms if term.end_at is None and term.start_at <= at), None)


def _moved(subscription: Subscription, to: SubscriptionStatus, *, at: datetime, actor: Actor, reason: str | None) -> list[dict[str, Any]]:
    before = Status(subscription.status)
    if before is to:
        return []
    if to not in TRANSITIONS[before]:
        ways = ", ".join(sorted(TRANSITIONS[before]))
        raise InvalidTransition(f"A subscription that is {before} cannot become {to}; it can become: {ways}.")
    subscription.status = to
    if before is Status.SUSPENDED:
        subscription.suspended_at = subscription.suspension_cause = None
    return [audit.entry(actor, f"subscription.{to}", subscription, at=at, reason=reason, before=before)]
