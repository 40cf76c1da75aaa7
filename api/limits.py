"""Usage limits and spend caps of a customer: set, list with what is used, remove."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, field

from api.call import Call
from api.contract import Input, Output, endpoint
from api.reading import Exact
from api.values import Code, Reference, amount
from core import clock
from core.entitlements import limits, standing
from core.entitlements.models import CapAction
from core.entitlements.standing import Standing
from core.errors import FieldError, Invalid
from core.identity.models import Organization
from core.identity.permissions import Scope
from core.metering import metrics
from core.metering.models import LimitAction, LimitPeriod, LimitSource
from core.money import exponent

TAG = "Limits"
Thresholds = Annotated[
    list[Annotated[int, Meta(ge=1, le=limits.THRESHOLD_MAX)]],
    Meta(max_length=limits.THRESHOLDS_MAX, description="Percentages at which the customer is told, once a window."),
]


class LimitIn(Input):
    """A limit on one metric. The same metric and period again replaces it."""

    metric: Code
    limit: Exact
    period: Literal["daily", "monthly", "total"] = "monthly"
    action: Annotated[
        Literal["block", "allow_overage", "notify"], Meta(description="Past the limit: refuse usage, count and charge it, or only tell.")
    ] = "block"
    thresholds: Thresholds = field(default_factory=lambda: list(limits.USUAL))
    organization_id: Reference | None = None


class CapIn(Input):
    """What the customer wants to spend at most in a billing period, before tax."""

    amount: Exact
    action: Annotated[Literal["block", "notify"], Meta(description="Past it: refuse usage, or only tell.")] = "block"
    thresholds: Thresholds = field(default_factory=lambda: list(limits.USUAL))
    organization_id: Reference | None = None


class LimitOut(Output):
    """A limit as it stands now. `id` is null for one that the plan brings."""

    id: uuid.UUID | None
    metric: str
    limit: Decimal
    used: Decimal
    remaining: Decimal
    period: str
    action: str
    source: str
    thresholds: list[int]
    window_start: datetime
    resets_at: datetime | None
    reached: bool


class CapOut(Output):
    """A spend cap (block) or spend alert (notify) as it stands now."""

    id: uuid.UUID
    amount: str
    spent: str
    currency: str
    action: str
    thresholds: list[int]
    window_start: datetime
    resets_at: datetime | None
    reached: bool


class StandingOut(Output):
    """Everything that bounds a customer's usage now. Caps count while a subscription runs."""

    organization_id: uuid.UUID
    limits: list[LimitOut]
    caps: list[CapOut]


class Whose(Input):
    """Whose."""

    organization_id: Reference | None = None


@endpoint("GET", "/limits", scope=Scope.BILLING_READ, tag=TAG)
def list_limits(call: Call, query: Whose) -> StandingOut:
    """List a customer's limits and spend caps with what is used of them: the plan's, the operator's and its own."""
    return _out(call, call.organization(query.organization_id))


@endpoint("PUT", "/limits", scope=Scope.BILLING_WRITE, tag=TAG)
def set_limit(call: Call, body: LimitIn) -> StandingOut:
    """Set a limit on a metric; it counts what is used already and takes effect at once.

    With a platform key it is the operator's and takes the place of the plan's limit; with a customer's key it is its own, beside them.
    """
    organization = call.organization(body.organization_id)
    limits.set_limit(
        call.session,
        organization.id,
        metric=metrics.find(call.session, body.metric),
        value=_positive(body.limit, "/limit"),
        period=LimitPeriod(body.period),
        action=LimitAction(body.action),
        source=LimitSource.OPERATOR if call.platform else LimitSource.CUSTOMER,
        thresholds=body.thresholds,
        actor=call.actor,
        at=clock.now(),
        now=call.now(organization),
    )
    return _out(call, organization)


@endpoint("DELETE", "/limits/<uuid:limit_id>", scope=Scope.BILLING_WRITE, tag=TAG, status=204)
def remove_limit(call: Call, limit_id: uuid.UUID) -> None:
    """Remove a limit; a customer's key only one of its own."""
    organization = call.owning_organization("usage_limits", limit_id)
    source = None if call.platform else LimitSource.CUSTOMER
    limits.remove_limit(
        call.session, organization.id, limit_id, source=source, actor=call.actor, at=clock.now(), now=call.now(organization)
    )


@endpoint("PUT", "/spend-caps", scope=Scope.BILLING_WRITE, tag=TAG)
def set_spend_cap(call: Call, body: CapIn) -> StandingOut:
    """Set the spend cap or the spend alert of a customer, in its currency; an amount below what is spent takes effect at once."""
    organization = call.organization(body.organization_id)
    limits.set_cap(
        call.session,
        organization.id,
        amount_minor=_minor(_positive(body.amount, "/amount"), organization.currency),
        action=CapAction(body.action),
        thresholds=body.thresholds,
        actor=call.actor,
        at=clock.now(),
        now=call.now(organization),
    )
    return _out(call, organization)


@endpoint("DELETE", "/spend-caps/<uuid:cap_id>", scope=Scope.BILLING_WRITE, tag=TAG, status=204)
def remove_spend_cap(call: Call, cap_id: uuid.UUID) -> None:
    """Remove a spend cap or spend alert."""
    organization = call.owning_organization("spend_caps", cap_id)
    limits.remove_cap(call.session, organization.id, cap_id, actor=call.actor, at=clock.now(), now=call.now(organization))


def _positive(value: Decimal, pointer: str) -> Decimal:
    if value < 0:
        raise Invalid("The number is negative.", errors=(FieldError(pointer, "Give a number from 0."),))
    return Decimal(value)


def _minor(value: Decimal, currency: str) -> int:
    minor = value.scaleb(exponent(currency))
    if minor != int(minor):
        detail = f"{currency} has {exponent(currency)} decimals."
        raise Invalid("The amount has too many decimals.", code="amount_not_representable", errors=(FieldError("/amount", detail),))
    return int(minor)


def _out(call: Call, organization: Organization) -> StandingOut:
    [(_, standings)] = standing.standings(call.session, [organization.id], at=clock.now())
    return StandingOut(
        organization_id=organization.id,
        limits=[_limit(one) for one in standings if one.bound.metric is not None],
        caps=[_cap(one, organization.currency) for one in standings if one.bound.metric is None],
    )


def _limit(one: Standing) -> LimitOut:
    bound = one.bound
    return LimitOut(
        id=bound.id,
        metric=bound.metric.code if bound.metric else "",
        limit=bound.value,
        used=one.used,
        remaining=max(Decimal(0), bound.value - one.used),
        period=bound.period,
        action=bound.action.value,
        source=bound.source,
        thresholds=list(bound.thresholds),
        window_start=bound.window.start,
        resets_at=bound.window.end,
        reached=one.reached,
    )


def _cap(one: Standing, currency: str) -> CapOut:
    bound = one.bound
    return CapOut(
        id=bound.id or uuid.UUID(int=0),
        amount=amount(int(bound.value), currency),
        spent=amount(int(one.used), currency),
        currency=currency,
        action=bound.action.value,
        thresholds=list(bound.thresholds),
        window_start=bound.window.start,
        resets_at=bound.window.end,
        reached=one.reached,
    )
