"""What is done to a subscription: cancelling, pausing, suspending, each with its way back; and what an act would cost, asked before."""

from __future__ import annotations

import uuid
from typing import Annotated, Literal

from msgspec import Meta

from api.call import Call
from api.contract import Input, Output, endpoint
from api.plan_changes import QuoteLine, QuoteTax, quote_line, quote_tax
from api.subscriptions import TAG, DayOrTime, SubscriptionOut, When, load, subscription_out
from api.values import FREE_PATTERN, amount, instant
from core.identity.permissions import Scope
from core.invoicing import figure
from core.subscriptions import lifecycle, status
from core.subscriptions.status import Act

Why = Annotated[str, Meta(max_length=500, pattern=FREE_PATTERN, description="Kept in the audit trail.")]


class Cancellation(Input):
    """When and why it ends."""

    when: When = "period_end"
    reason: Why | None = None
    break_contract: Annotated[bool, Meta(description="End it although a contract still binds. Needs a platform key.")] = False


class Because(Input):
    """Why it is done."""

    reason: Why | None = None


class Pause(Input):
    """Why it is paused, and when it goes on by itself."""

    reason: Why | None = None
    until: Annotated[DayOrTime | None, Meta(description="Left out: until somebody resumes it.")] = None


class Resumption(Input):
    """When it goes on."""

    when: Annotated[DayOrTime | None, Meta(description="Left out: now. A return planned before gives way.")] = None


class ActQuery(Input):
    """Which act; a cancellation is the one with immediate effect."""

    act: Literal["cancel", "pause", "resume", "reactivate"]


class ActPreview(Output):
    """The lines billing would make of the act now. A negative total becomes credit on the account. Nothing is locked: it is no quote."""

    act: str
    currency: str
    subtotal: str
    tax: str
    total: str
    lines: list[QuoteLine]
    taxes: list[QuoteTax]


@endpoint("POST", "/billing/subscriptions/<uuid:subscription_id>/cancellation", scope=Scope.BILLING_WRITE, tag=TAG)
def cancel_subscription(call: Call, subscription_id: uuid.UUID, body: Cancellation) -> SubscriptionOut:
    """Cancel a subscription. Unused time billed in advance is credited as the plan's credit policy says.

    While a contract binds, `period_end` is the end of its term; anything sooner is refused.
    """
    if body.break_contract:
        call.require_platform()
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    when = body.when if body.when in ("now", "period_end") else instant(body.when, organization, "/when")
    ended = lifecycle.cancel(
        call.session, subscription, at=at, actor=call.actor, when=when, reason=body.reason, break_contract=body.break_contract
    )
    return subscription_out(ended, at)


@endpoint("DELETE", "/billing/subscriptions/<uuid:subscription_id>/cancellation", scope=Scope.BILLING_WRITE, tag=TAG)
def undo_cancellation(call: Call, subscription_id: uuid.UUID) -> SubscriptionOut:
    """Take a planned cancellation back."""
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    return subscription_out(lifecycle.undo_cancel(call.session, subscription, at=at, actor=call.actor), at)


@endpoint("POST", "/billing/subscriptions/<uuid:subscription_id>/pause", scope=Scope.BILLING_WRITE, tag=TAG)
def pause_subscription(call: Call, subscription_id: uuid.UUID, body: Pause) -> SubscriptionOut:
    """Pause a subscription: from now on nothing is owed, until it is resumed or its day comes.

    Where the plan does not let customers pause (`customers_may_pause`), it needs a platform key.
    """
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    if not status.customers_may_pause(subscription, at):
        call.require_platform()
    until = None if body.until is None else instant(body.until, organization, "/until")
    paused = lifecycle.pause(call.session, subscription, at=at, actor=call.actor, reason=body.reason, until=until)
    return subscription_out(paused, at)


@endpoint("DELETE", "/billing/subscriptions/<uuid:subscription_id>/pause", scope=Scope.BILLING_WRITE, tag=TAG)
def resume_subscription(call: Call, subscription_id: uuid.UUID, query: Resumption) -> SubscriptionOut:
    """Resume a paused subscription with the same plan, quantity and periods: now, or on a later day."""
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    when = None if query.when is None else instant(query.when, organization, "/when")
    return subscription_out(lifecycle.resume(call.session, subscription, at=at, actor=call.actor, when=when), at)


@endpoint("DELETE", "/billing/subscriptions/<uuid:subscription_id>/planned-resumption", scope=Scope.BILLING_WRITE, tag=TAG)
def undo_resumption(call: Call, subscription_id: uuid.UUID) -> SubscriptionOut:
    """Take a planned return from a pause back: it stays paused until it is resumed."""
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    return subscription_out(lifecycle.undo_resume(call.session, subscription, at=at, actor=call.actor), at)


@endpoint("POST", "/billing/subscriptions/<uuid:subscription_id>/suspension", scope=Scope.BILLING_WRITE, tag=TAG)
def suspend_subscription(call: Call, subscription_id: uuid.UUID, body: Because) -> SubscriptionOut:
    """Take access away; what the plan owes goes on being billed. Needs a platform key."""
    call.require_platform()
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    return subscription_out(lifecycle.suspend(call.session, subscription, at=at, actor=call.actor, reason=body.reason), at)


@endpoint("DELETE", "/billing/subscriptions/<uuid:subscription_id>/suspension", scope=Scope.BILLING_WRITE, tag=TAG)
def reinstate_subscription(call: Call, subscription_id: uuid.UUID) -> SubscriptionOut:
    """Give access back. Needs a platform key; what was suspended for non-payment also comes back with the payment."""
    call.require_platform()
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    return subscription_out(lifecycle.reinstate(call.session, subscription, at=at, actor=call.actor), at)


@endpoint("POST", "/billing/subscriptions/<uuid:subscription_id>/reactivation", scope=Scope.BILLING_WRITE, tag=TAG)
def reactivate_subscription(call: Call, subscription_id: uuid.UUID, body: Because) -> SubscriptionOut:
    """Bring back a subscription that has ended, with the version and quantity it ended with.

    Within the period in which it ended the periods go on as they were; later they begin anew with the day of the return.
    """
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    return subscription_out(lifecycle.reactivate(call.session, subscription, at=at, actor=call.actor, reason=body.reason), at)


@endpoint("GET", "/billing/subscriptions/<uuid:subscription_id>/act-preview", scope=Scope.BILLING_READ, tag=TAG)
def preview_act(call: Call, subscription_id: uuid.UUID, query: ActQuery) -> ActPreview:
    """Ask what an act would cost or give back if it were done now; nothing changes."""
    organization, subscription = load(call, subscription_id)
    found = figure.of_act(call.session, subscription, Act(query.act), at=call.now(organization))
    currency = subscription.currency
    return ActPreview(
        act=query.act,
        currency=currency,
        subtotal=amount(found.net, currency),
        tax=amount(found.tax, currency),
        total=amount(found.total, currency),
        lines=[quote_line(entry, currency) for entry in found.lines],
        taxes=[quote_tax(entry, currency) for entry in found.taxes],
    )
