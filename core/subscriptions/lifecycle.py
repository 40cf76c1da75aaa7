"""Starting, cancelling, pausing and resuming a subscription, and bringing it back. Billing follows from the changed timeline.

Each act locks the subscription, asks the status table whether it is possible, changes the timeline, and records what was done.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy.orm import Session

from core import audit, jobs
from core.audit import SYSTEM, Actor
from core.errors import Conflict, FieldError, Invalid
from core.pricing.timeline import current_cycle
from core.subscriptions import agreement, opening, timeline
from core.subscriptions import spans as timelines
from core.subscriptions.agreement import Contract, Phase
from core.subscriptions.models import AnchorMode, Subscription, SubscriptionStatus, SuspensionCause
from core.subscriptions.opening import AHEAD_DAYS_MAX
from core.subscriptions.queries import locked
from core.subscriptions.spans import Span, hanging
from core.subscriptions.status import Act, bill_from, catch_up, move, require, resumes_at, show

Status = SubscriptionStatus


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
    billing_day: int | None = None,
    trial_end_without_method: str | None = None,
    quantities: Mapping[str, Decimal | str | int] | None = None,
    phases: Sequence[Phase] = (),
    contract: Contract | None = None,
) -> Subscription:
    """Subscribe the organization to `plan` (the code or id of a plan, or the id of a version) from the local day of `start_at`.

    `trial_period_days` and `trial_end_without_method` override the plan's; `billing_day` (1 to 31) is the day of the month on which
    periods begin, in place of `anchor`; `quantities` are the licensed quantities with names of their own. Invalid with pointers for
    wrong input, NotFound for an unknown organization, Conflict when the account is closed or another subscription already bills the
    plan or one of its metrics. The caller checks `payment_method_id`.
    """
    organization = opening.buyer(session, organization_id)
    version = opening.offered(session, plan, organization)
    begins = start_at or at
    days = version.trial_period_days if trial_period_days is None else trial_period_days
    wish = opening.checked(
        anchor=anchor,
        trial_days=days,
        quantity=quantity,
        quantities=quantities,
        metadata=metadata,
        external_id=external_id,
        begins=begins,
        at=at,
        billing_day=billing_day,
        trial_end_without_method=trial_end_without_method,
        version=version,
    )
    planned = timelines.opening(
        version,
        start=begins,
        timezone=organization.timezone,
        mode=wish.hanging,
        quantity=wish.quantity,
        trial_days=wish.trial_days,
        not_before=opening.ended_before(session, organization_id, version, begins),
        quantities=wish.quantities,
    )
    opening.check_phases(phases, version, organization)
    planned = agreement.ramped(planned, phases, wish.hanging)
    subscription = opening.row(organization_id, version, wish, planned)
    if contract is not None:
        agreement.bind(subscription, contract, start=planned[0].start, timezone=organization.timezone)
        if not contract.renews and subscription.contract_ends_at is not None:
            subscription.ends_at, subscription.cancel_at_period_end = subscription.contract_ends_at, True
            planned = timelines.ended(planned, subscription.contract_ends_at)
    subscription.payment_method_id, subscription.currency = payment_method_id, organization.currency
    session.add(subscription)
    timeline.store(session, subscription, planned)
    show(subscription, timeline.spans(subscription), as_of=max(at, planned[0].start))
    sold = {"code": version.plan.code, "version": version.version, "quantity": wish.quantity, **_named(wish.quantities)}
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
    break_contract: bool = False,
) -> Subscription:
    """End the subscription `now`, at `period_end` (of a trial: its end) or at an instant; an earlier plan to end it is replaced.

    Unused time billed in advance is credited as the plan's credit policy says. One that has not begun, or is paused, ends at once.
    While a contract binds, `period_end` is the end of its term and sooner is a Conflict, unless the contract is broken.
    Invalid with the pointer /when.
    """
    subscription = _held(session, subscription, Act.CANCEL, at)
    planned = timeline.spans(subscription)
    if subscription.ends_at is not None:
        planned = timelines.reopened(planned, hanging(subscription))
    bound = None if break_contract else agreement.bound_until(subscription, planned, at)
    ends = bound if bound is not None and when == "period_end" else _end(planned, when, at)
    if bound is not None and ends < bound:
        raise Conflict(f"The contract binds until {bound.date()}; the subscription can end then.", code="under_contract")
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


def undo_cancel(session: Session, subscription: Subscription, *, at: datetime, actor: Actor, reason: str | None = None) -> Subscription:
    """Take a planned cancellation back before it has come to pass; Conflict when there is none."""
    subscription = _held(session, subscription, Act.UNDO_CANCEL, at)
    if subscription.ends_at is None:
        raise Conflict("No cancellation is planned.", code="no_cancellation")
    planned = timelines.reopened(timeline.spans(subscription), hanging(subscription))
    timeline.store(session, subscription, planned)
    subscription.cancel_at_period_end, subscription.canceled_at, subscription.ends_at = False, None, None
    _settle(session, subscription, changed_at=None, at=at)
    audit.record(session, actor, "subscription.cancellation_undone", subscription, at=at, reason=reason)
    return subscription


def pause(
    session: Session, subscription: Subscription, *, at: datetime, actor: Actor, reason: str | None = None, until: datetime | None = None
) -> Subscription:
    """Nothing is owed from `at` until `resume`, or until the instant `until`, when it goes on by itself.

    Conflict before the start, or while a change or an end is planned; Invalid with the pointer /until.
    """
    subscription = _held(session, subscription, Act.PAUSE, at)
    planned = timeline.spans(subscription)
    running = next((span for span in planned if span.contains(at)), None)
    if running is None or running.is_trial or running.end is not None:
        raise Conflict("Only a running subscription without a trial, a planned change or a planned end can be paused.", code="not_pausable")
    if running.start == at:
        raise Conflict("The current term began this very instant; pause a moment later.", code="not_pausable")
    paused = timelines.ended(planned, at)
    if until is not None:
        paused = timelines.resumed(paused, _ahead(until, at, "/until"), hanging(subscription))
    timeline.store(session, subscription, paused)
    move(session, subscription, Status.PAUSED, at=at, actor=actor, reason=reason)
    if until is not None:
        audit.record(session, actor, "subscription.resumption_scheduled", subscription, at=at, resumes_at=until)
    _settle(session, subscription, changed_at=at, at=at)
    return subscription


def resume(
    session: Session, subscription: Subscription, *, at: datetime, actor: Actor, reason: str | None = None, when: datetime | None = None
) -> Subscription:
    """Go on after a pause with the same version, quantity and cycles: now, or by itself at `when`. A return planned before gives way.

    Invalid with the pointer /when.
    """
    subscription = _held(session, subscription, Act.RESUME, at)
    starts = at if when is None else _ahead(when, at, "/when")
    paused = timelines.ended(timeline.spans(subscription), at)
    timeline.store(session, subscription, timelines.resumed(paused, starts, hanging(subscription)))
    if starts == at:
        move(session, subscription, Status.ACTIVE, at=at, actor=actor, reason=reason)
    else:
        audit.record(session, actor, "subscription.resumption_scheduled", subscription, at=at, reason=reason, resumes_at=starts)
    _settle(session, subscription, changed_at=starts if starts == at else None, at=at)
    return subscription


def undo_resume(session: Session, subscription: Subscription, *, at: datetime, actor: Actor, reason: str | None = None) -> Subscription:
    """Take a planned return back: it stays paused until somebody resumes it. Conflict when none is planned."""
    subscription = _held(session, subscription, Act.RESUME, at)
    if resumes_at(subscription, at) is None:
        raise Conflict("No return is planned.", code="no_resumption")
    timeline.store(session, subscription, timelines.ended(timeline.spans(subscription), at))
    _settle(session, subscription, changed_at=None, at=at)
    audit.record(session, actor, "subscription.resumption_undone", subscription, at=at, reason=reason)
    return subscription


def suspend(
    session: Session,
    subscription: Subscription,
    *,
    at: datetime,
    actor: Actor,
    cause: SuspensionCause = SuspensionCause.OPERATOR,
    reason: str | None = None,
) -> Subscription:
    """Take access away until `reinstate`. The agreement stands: what the timeline owes goes on being billed."""
    subscription = _held(session, subscription, Act.SUSPEND, at)
    subscription.suspended_at, subscription.suspension_cause = at, cause
    move(session, subscription, Status.SUSPENDED, at=at, actor=actor, reason=reason)
    return subscription


def reinstate(
    session: Session, subscription: Subscription, *, at: datetime, actor: Actor, reason: str | None = None, past_due: bool = False
) -> Subscription:
    """Give access back: to what is left of a trial, to a subscription still `past_due`, or to an active one."""
    subscription = _held(session, subscription, Act.REINSTATE, at)
    in_trial = subscription.trial_end is not None and at < subscription.trial_end
    to = Status.TRIALING if in_trial else Status.PAST_DUE if past_due else Status.ACTIVE
    move(session, subscription, to, at=at, actor=actor, reason=reason)
    return subscription


def reactivate(session: Session, subscription: Subscription, *, at: datetime, actor: Actor, reason: str | None = None) -> Subscription:
    """Bring a subscription that has ended back, with the version and quantity it ended with; there is no second trial.

    Conflict when it never began, the account is closed, or another subscription bills the plan or one of its metrics by now.
    """
    subscription = _held(session, subscription, Act.REACTIVATE, at)
    opening.buyer(session, subscription.organization_id)
    planned = timeline.spans(subscription)
    if not planned:
        raise Conflict("The subscription ended before it began; start a new one.", code="never_began")
    again = timelines.reactivated(planned, at, hanging(subscription))
    opening.ended_before(session, subscription.organization_id, planned[-1].version, again[-1].start, but=subscription.id)
    timeline.store(session, subscription, again)
    if subscription.ends_at is not None and subscription.status != Status.CANCELED:  # no billing has written the end down yet
        move(session, subscription, Status.CANCELED, at=subscription.ends_at, actor=SYSTEM, reason="the subscription has ended")
    subscription.cancel_at_period_end, subscription.canceled_at, subscription.ends_at = False, None, None
    move(session, subscription, Status.ACTIVE, at=at, actor=actor, reason=reason)
    _settle(session, subscription, changed_at=at, at=at)
    return subscription


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


def _held(session: Session, subscription: Subscription, act: Act, at: datetime) -> Subscription:
    """The subscription, locked, once the status table allows the act."""
    subscription = locked(session, subscription)
    require(subscription, act, at)
    catch_up(session, subscription, at=at)
    return subscription


def _ahead(when: datetime, at: datetime, pointer: str) -> datetime:
    if when.tzinfo is None or not at < when <= at + timedelta(days=AHEAD_DAYS_MAX):
        detail = f"must be an instant with a time zone within the next {AHEAD_DAYS_MAX} days"
        raise Invalid("The subscription cannot go on then.", errors=(FieldError(pointer, detail),))
    return when


def _settle(session: Session, subscription: Subscription, *, changed_at: datetime | None, at: datetime) -> None:
    planned = timeline.spans(subscription)
    show(subscription, planned, as_of=at)
    bill_from(subscription, planned, changed_at=changed_at, at=at)
    jobs.enqueue(session, "bill_subscription", subscription.id)


def _named(quantities: Mapping[str, Decimal]) -> dict[str, dict[str, Decimal]]:
    return {"quantities": dict(quantities)} if quantities else {}
