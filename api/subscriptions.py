"""Subscriptions: starting, changing, pausing and ending an agreement."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, field

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.reading import Exact
from api.values import FREE_PATTERN, Metadata, Reference, Text, cursor_id, instant
from core.errors import FieldError, Invalid
from core.identity.models import Organization
from core.identity.permissions import Scope
from core.payments import queries as payments
from core.subscriptions import lifecycle, plan_change, queries
from core.subscriptions.models import Subscription, SubscriptionStatus

TAG = "Subscriptions"
WHEN = "`now`, `period_end`, a day of the billing time zone, or a time with its offset."
When = Annotated[
    str,
    Meta(
        pattern=r"^(now|period_end|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-](0[0-9]|1[0-4]):[0-5][0-9]))?)$",
        description=WHEN,
    ),
]


class SubscriptionIn(Input):
    """A new subscription; `plan` is a plan's code, its id, or the id of a version."""

    plan: Text | None = None
    plan_id: Annotated[Text | None, Meta(description="The same as `plan`.")] = None
    organization_id: Reference | None = None
    start_at: Annotated[datetime, Meta(tz=True, description="Left out: now.")] | None = None
    billing_anchor: Annotated[
        Literal["anniversary", "calendar"], Meta(description="Whether periods begin on the day of the start or on calendar boundaries.")
    ] = "anniversary"
    quantity: Annotated[Exact, Meta(description="Seats.")] = field(default_factory=lambda: Exact("1"))
    trial_period_days: Annotated[int, Meta(ge=0, le=730, description="Overrides the plan's.")] | None = None
    payment_method_id: uuid.UUID | None = None
    external_id: Text | None = None
    metadata: Metadata = field(default_factory=dict)


class SubscriptionList(Listing):
    """Filters of the list."""

    organization_id: Reference | None = None
    status: Literal["trialing", "active", "past_due", "paused", "suspended", "canceled"] | None = None


class Cancellation(Input):
    """When and why it ends."""

    when: When = "period_end"
    reason: Annotated[str, Meta(max_length=500, pattern=FREE_PATTERN)] | None = None


class Sold(Output):
    """The plan version a subscription runs on."""

    id: uuid.UUID
    code: str
    name: str
    version: int
    version_id: uuid.UUID


class Scheduled(Output):
    """A change that has not come to pass yet."""

    effective_at: datetime
    plan: str
    version: int
    quantity: Decimal


class SubscriptionOut(Output):
    """A subscription."""

    id: uuid.UUID
    organization_id: uuid.UUID
    external_id: str | None
    plan: Sold
    plan_id: uuid.UUID
    quantity: Decimal
    status: str
    currency: str
    billing_anchor: str
    started_at: datetime
    trial_end: datetime | None
    current_period_start: datetime | None
    current_period_end: datetime | None
    next_bill_at: datetime | None
    cancel_at_period_end: bool
    canceled_at: datetime | None
    ends_at: datetime | None
    scheduled_change: Scheduled | None
    payment_method_id: uuid.UUID | None
    metadata: Metadata
    created_at: datetime


@endpoint("POST", "/billing/subscriptions", scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def start_subscription(call: Call, body: SubscriptionIn) -> SubscriptionOut:
    """Start a subscription on the version of the plan that is on offer."""
    organization = call.organization(body.organization_id)
    plan = body.plan or body.plan_id
    if plan is None or (body.plan and body.plan_id):
        raise Invalid("One plan is needed.", errors=(FieldError("/plan", "Give the code or id of one plan."),))
    if body.payment_method_id is not None:
        payments.method(call.session, organization.id, body.payment_method_id)
    subscription = lifecycle.start(
        call.session,
        organization.id,
        plan=plan,
        at=call.now(organization),
        actor=call.actor,
        start_at=body.start_at,
        anchor=body.billing_anchor,
        quantity=body.quantity,
        trial_period_days=body.trial_period_days,
        payment_method_id=body.payment_method_id,
        external_id=body.external_id,
        metadata=body.metadata,
    )
    return subscription_out(subscription, call.now(organization))


@endpoint("GET", "/billing/subscriptions", scope=Scope.BILLING_READ, tag=TAG)
def list_subscriptions(call: Call, query: SubscriptionList) -> Page[SubscriptionOut]:
    """List subscriptions, newest first."""
    organization_id = call.filter(query.organization_id)
    status = SubscriptionStatus(query.status) if query.status else None
    before_id, limit = cursor_id(query), query.limit + 1
    if organization_id is None:
        rows = queries.all_subscriptions(call.session, status=status, before_id=before_id, limit=limit)
    else:
        rows = queries.subscriptions(call.session, organization_id, status=status, before_id=before_id, limit=limit)
    return page_of(rows, query.limit, lambda row: subscription_out(row, call.now()), lambda row: row.id)


@endpoint("GET", "/billing/subscriptions/<uuid:subscription_id>", scope=Scope.BILLING_READ, tag=TAG)
def get_subscription(call: Call, subscription_id: uuid.UUID) -> SubscriptionOut:
    """Read a subscription."""
    organization, subscription = load(call, subscription_id)
    return subscription_out(subscription, call.now(organization))


@endpoint("POST", "/billing/subscriptions/<uuid:subscription_id>/cancellation", scope=Scope.BILLING_WRITE, tag=TAG)
def cancel_subscription(call: Call, subscription_id: uuid.UUID, body: Cancellation) -> SubscriptionOut:
    """Cancel a subscription. Unused time billed in advance is credited as the plan's credit policy says."""
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    when = body.when if body.when in ("now", "period_end") else instant(body.when, organization, "/when")
    return subscription_out(lifecycle.cancel(call.session, subscription, at=at, actor=call.actor, when=when, reason=body.reason), at)


@endpoint("DELETE", "/billing/subscriptions/<uuid:subscription_id>/cancellation", scope=Scope.BILLING_WRITE, tag=TAG)
def undo_cancellation(call: Call, subscription_id: uuid.UUID) -> SubscriptionOut:
    """Take a planned cancellation back."""
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    return subscription_out(lifecycle.undo_cancel(call.session, subscription, at=at, actor=call.actor), at)


@endpoint("POST", "/billing/subscriptions/<uuid:subscription_id>/pause", scope=Scope.BILLING_WRITE, tag=TAG)
def pause_subscription(call: Call, subscription_id: uuid.UUID) -> SubscriptionOut:
    """Pause a subscription: from now on nothing is owed."""
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    return subscription_out(lifecycle.pause(call.session, subscription, at=at, actor=call.actor), at)


@endpoint("DELETE", "/billing/subscriptions/<uuid:subscription_id>/pause", scope=Scope.BILLING_WRITE, tag=TAG)
def resume_subscription(call: Call, subscription_id: uuid.UUID) -> SubscriptionOut:
    """Resume a paused subscription with the same plan, quantity and periods."""
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    return subscription_out(lifecycle.resume(call.session, subscription, at=at, actor=call.actor), at)


def load(call: Call, subscription_id: uuid.UUID) -> tuple[Organization, Subscription]:
    """The subscription and its organization, if the key may see them."""
    organization = call.owning_organization("subscriptions", subscription_id)
    return organization, queries.subscription(call.session, organization.id, subscription_id)


def subscription_out(row: Subscription, at: datetime) -> SubscriptionOut:
    """The row as the API shows it; the plan is the one that holds at `at`."""
    terms = list(row.terms)
    term = next((item for item in reversed(terms) if item.start_at <= at), terms[0])
    change = plan_change.scheduled_change(row, at=at)
    version = term.plan_version
    return SubscriptionOut(
        id=row.id,
        organization_id=row.organization_id,
        external_id=row.external_id,
        plan=Sold(id=version.plan_id, code=version.plan.code, name=version.plan.name, version=version.version, version_id=version.id),
        plan_id=version.plan_id,
        quantity=term.quantity,
        status=row.status,
        currency=row.currency,
        billing_anchor=row.anchor_mode,
        started_at=row.started_at,
        trial_end=row.trial_end,
        current_period_start=row.current_period_start,
        current_period_end=row.current_period_end,
        next_bill_at=row.next_bill_at,
        cancel_at_period_end=row.cancel_at_period_end,
        canceled_at=row.canceled_at,
        ends_at=row.ends_at,
        scheduled_change=None
        if change is None
        else Scheduled(
            effective_at=change.effective_at, plan=change.version.plan.code, version=change.version.version, quantity=change.quantity
        ),
        payment_method_id=row.payment_method_id,
        metadata=row.extra,
        created_at=row.created_at,
    )
