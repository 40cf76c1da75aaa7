"""Subscriptions: starting, changing, pausing and ending an agreement."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, field

from api import agreements
from api.agreements import ContractIn, ContractOut, OverridesIn, PhaseIn, Quantities
from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.reading import Exact
from api.values import Metadata, Reference, Text, cursor_id
from core.errors import FieldError, Invalid
from core.identity.models import Organization
from core.identity.permissions import Scope
from core.payments import queries as payments
from core.subscriptions import lifecycle, plan_change, queries, status
from core.subscriptions.models import Subscription, SubscriptionItem, SubscriptionStatus

TAG = "Subscriptions"
AfterTrial = Literal["convert", "cancel", "pause"]
WHEN = "`now`, `period_end`, a day of the billing time zone, or a time with its offset."
When = Annotated[
    str,
    Meta(
        pattern=r"^(now|period_end|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-](0[0-9]|1[0-4]):[0-5][0-9]))?)$",
        description=WHEN,
    ),
]


_DAY = r"20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
DayOrTime = Annotated[
    str,
    Meta(
        pattern=rf"^{_DAY}(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-](0[0-9]|1[0-4]):[0-5][0-9]))?$",
        description="A day of the billing time zone, or a time with its offset.",
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
    billing_day: (
        Annotated[
            int,
            Meta(
                ge=1, le=31, description="Day of the month on which periods begin, in place of `billing_anchor`; the first one is a part."
            ),
        ]
        | None
    ) = None
    quantity: Annotated[Exact, Meta(description="What prices without a quantity of their own are multiplied by.")] = field(
        default_factory=lambda: Exact("1")
    )
    quantities: Quantities = field(default_factory=dict)
    overrides: OverridesIn | None = None
    phases: Annotated[list[PhaseIn], Meta(max_length=24, description="What holds later on, in order of time.")] = field(
        default_factory=list
    )
    contract: ContractIn | None = None
    trial_period_days: Annotated[int, Meta(ge=0, le=730, description="Overrides the plan's.")] | None = None
    trial_end_without_method: Annotated[AfterTrial, Meta(description="Overrides the plan's.")] | None = None
    payment_method_id: uuid.UUID | None = None
    external_id: Text | None = None
    metadata: Metadata = field(default_factory=dict)


class SubscriptionList(Listing):
    """Filters of the list."""

    organization_id: Reference | None = None
    status: Literal["trialing", "active", "past_due", "paused", "suspended", "canceled"] | None = None


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
    quantities: dict[str, Decimal]


class ItemOut(Output):
    """An add-on or coupon of a subscription, from `start_at` up to `end_at`."""

    id: uuid.UUID
    kind: str
    plan: str
    name: str
    version: int
    quantity: Decimal
    start_at: datetime
    end_at: datetime | None


class SubscriptionOut(Output):
    """A subscription."""

    id: uuid.UUID
    organization_id: uuid.UUID
    external_id: str | None
    plan: Sold
    plan_id: uuid.UUID
    quantity: Decimal
    quantities: dict[str, Decimal]
    items: list[ItemOut]
    contract: ContractOut | None
    status: str
    currency: str
    billing_anchor: str
    billing_day: int | None
    started_at: datetime
    trial_end: datetime | None
    trial_end_without_method: str
    current_period_start: datetime | None
    current_period_end: datetime | None
    next_bill_at: datetime | None
    cancel_at_period_end: bool
    canceled_at: datetime | None
    ends_at: datetime | None
    suspended_at: datetime | None
    suspension_cause: str | None
    resumes_at: Annotated[datetime | None, Meta(description="When it goes on by itself, while it is paused.")]
    possible_acts: Annotated[list[str], Meta(description="What the status allows now.")]
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
    runs_on: str | uuid.UUID = plan
    if body.overrides is not None:
        runs_on = agreements.agreed_version(call, organization, plan, body.overrides, "/overrides").id
    subscription = lifecycle.start(
        call.session,
        organization.id,
        plan=runs_on,
        at=call.now(organization),
        actor=call.actor,
        start_at=body.start_at,
        anchor=body.billing_anchor,
        billing_day=body.billing_day,
        trial_end_without_method=body.trial_end_without_method,
        quantity=body.quantity,
        trial_period_days=body.trial_period_days,
        payment_method_id=body.payment_method_id,
        quantities=body.quantities,
        phases=agreements.phases(call, organization, plan, body.phases),
        contract=agreements.contract(body.contract),
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


def load(call: Call, subscription_id: uuid.UUID) -> tuple[Organization, Subscription]:
    """The subscription and its organization, if the key may see them."""
    organization = call.owning_organization("subscriptions", subscription_id)
    return organization, queries.subscription(call.session, organization.id, subscription_id)


def item_out(row: SubscriptionItem) -> ItemOut:
    """An attached item as the API shows it."""
    version = row.plan_version
    return ItemOut(
        id=row.id,
        kind=version.plan.kind,
        plan=version.plan.code,
        name=version.plan.name,
        version=version.version,
        quantity=row.quantity,
        start_at=row.start_at,
        end_at=row.end_at,
    )


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
        quantities={name: Decimal(held) for name, held in term.quantities.items()},
        contract=agreements.contract_out(row),
        items=[item_out(item) for item in row.items if item.end_at is None or item.end_at > at],
        status=row.status,
        currency=row.currency,
        billing_anchor=row.anchor_mode,
        billing_day=row.billing_day,
        started_at=row.started_at,
        trial_end=row.trial_end,
        trial_end_without_method=row.trial_end_without_method,
        current_period_start=row.current_period_start,
        current_period_end=row.current_period_end,
        next_bill_at=row.next_bill_at,
        cancel_at_period_end=row.cancel_at_period_end,
        canceled_at=row.canceled_at,
        ends_at=row.ends_at,
        suspended_at=row.suspended_at,
        suspension_cause=row.suspension_cause,
        resumes_at=status.resumes_at(row, at),
        possible_acts=[act.value for act in status.possible(row, at)],
        scheduled_change=None
        if change is None
        else Scheduled(
            effective_at=change.effective_at,
            plan=change.version.plan.code,
            version=change.version.version,
            quantity=change.quantity,
            quantities=dict(change.quantities),
        ),
        payment_method_id=row.payment_method_id,
        metadata=row.extra,
        created_at=row.created_at,
    )
