"""Entitlements: may this customer use that? What it may use at most, and what is held for it."""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta, field

from api.call import Call
from api.contract import Input, Output, endpoint
from api.reading import Exact
from api.values import Code, Reference
from core import clock
from core.entitlements import check, limits, reserve
from core.entitlements.check import Decision
from core.errors import FieldError, Invalid
from core.identity.permissions import Scope
from core.money import parse_decimal

FEATURE = re.compile("[A-Za-z0-9_.:-]+")
TAG = "Entitlements"
Feature = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[!-~]+$", examples=["sso"])]
Key = Annotated[
    str, Meta(min_length=1, max_length=255, pattern=r"^[!-~]{1,255}$", description="The idempotency key the usage event will carry.")
]


class CheckQuery(Input):
    """Name a `feature` or a `metric`."""

    organization_id: Reference | None = None
    feature: Feature | None = None
    metric: Annotated[Code | None, Meta(description="Code of a metric, or of a plan limit that no metric counts.")] = None
    quantity: Annotated[str, Meta(description="How much more; for what no metric counts, how much in all.")] = "1"


class DecisionOut(Output):
    """The decision. Figures are those of the limit with the least left; null where there is none."""

    allowed: bool
    reason: Annotated[
        str,
        Meta(
            description="included, not_included; within_limit, no_limit, over_limit (a soft limit is passed), limit_reached, "
            "spend_cap_reached; organization_not_active."
        ),
    ]
    limit: Decimal | None
    used: Decimal | None
    reserved: Decimal | None
    remaining: Decimal | None
    window: Annotated[str | None, Meta(description="daily, monthly, total, or billing_period for a spend cap.")]
    window_start: datetime | None
    resets_at: datetime | None
    action: Annotated[str | None, Meta(description="Past the limit: block, allow_overage or notify.")]
    source: Annotated[str | None, Meta(description="Who set the limit: plan, operator or customer.")]
    value: Annotated[bool | int | str | None, Meta(description="What the plan says of the feature.")]


class ConsumeIn(Input):
    """Hold a part of a metric's allowance for usage that is about to happen."""

    metric: Code
    key: Key
    organization_id: Reference | None = None
    quantity: Exact = field(default_factory=lambda: Exact(1))
    expires_in_seconds: Annotated[int, Meta(ge=1, le=reserve.SECONDS_MAX)] = 300


class ConsumedOut(DecisionOut):
    """The decision and, when it is allowed, until when the allowance is held. `replayed`: the key held it already."""

    key: str
    expires_at: datetime | None
    replayed: bool


class FeatureIn(Input):
    """What one customer has, whatever its plan says."""

    value: bool | int | Annotated[str, Meta(max_length=255)]
    organization_id: Reference | None = None


class FeatureOut(Output):
    """A feature agreed with one customer."""

    organization_id: uuid.UUID
    feature: str
    value: bool | int | str


class Whose(Input):
    """Whose."""

    organization_id: Reference | None = None


@endpoint("GET", "/entitlements/check", scope=Scope.BILLING_READ, tag=TAG, often=True)
def check_entitlement(call: Call, query: CheckQuery) -> DecisionOut:
    """Decide whether a customer may use a feature, or that much more of a metric.

    Answered from the counters invoices are rated from and what is held by `consume`. Nothing is written.
    """
    organization_id, quantity = _organization(call, query.organization_id), _quantity(query.quantity)
    if (query.feature is None) == (query.metric is None):
        raise Invalid("Ask for one thing.", errors=(FieldError("/feature", "Name either a feature or a metric."),))
    asked: dict[str, Any] = {"quantity": quantity, "at": clock.now()}
    if query.feature is not None:
        return DecisionOut(**_decision(check.check_feature(call.reads, organization_id, feature=query.feature, **asked)))
    return DecisionOut(**_decision(check.check_metric(call.reads, organization_id, metric=query.metric or "", **asked)))


@endpoint("POST", "/entitlements/consume", scope=Scope.USAGE_WRITE, tag=TAG)
def consume_entitlement(call: Call, body: ConsumeIn) -> ConsumedOut:
    """Hold allowance before the usage happens, exact under any number of requests at once. `allowed` says whether it is held.

    The usage event with the same idempotency key settles it, whatever its quantity; unused, it is free again when it expires.
    """
    organization_id = _organization(call, body.organization_id)
    found = reserve.consume(
        call.session,
        organization_id,
        metric=body.metric,
        quantity=_amount(body.quantity),
        key=body.key,
        expires_in=timedelta(seconds=body.expires_in_seconds),
        at=clock.now(),
    )
    return ConsumedOut(**_decision(found.decision), key=body.key, expires_at=found.expires_at, replayed=found.replayed)


@endpoint("DELETE", "/entitlements/reservations/<key>", scope=Scope.USAGE_WRITE, tag=TAG, status=204)
def release_entitlement(call: Call, key: str, query: Whose) -> None:
    """Give back what is held for a key, if its usage will not happen."""
    reserve.release(call.session, _organization(call, query.organization_id), key=key)


@endpoint("PUT", "/entitlements/features/<feature>", scope=Scope.BILLING_WRITE, tag=TAG)
def set_feature(call: Call, feature: str, body: FeatureIn) -> FeatureOut:
    """Agree on a feature with one customer, whatever its plan says. Needs a platform key."""
    call.require_platform()
    organization = call.organization(body.organization_id)
    if not FEATURE.fullmatch(feature):
        raise Invalid("The feature was not set.", errors=(FieldError("/feature", "Use letters, digits and _ . : - only."),))
    row = limits.set_feature(call.session, organization.id, feature=feature, value=body.value, actor=call.actor, now=call.now(organization))
    return FeatureOut(organization_id=organization.id, feature=row.feature, value=row.value)


@endpoint("DELETE", "/entitlements/features/<feature>", scope=Scope.BILLING_WRITE, tag=TAG, status=204)
def remove_feature(call: Call, feature: str, query: Whose) -> None:
    """Let the customer's plan decide about a feature again. Needs a platform key."""
    call.require_platform()
    organization = call.organization(query.organization_id)
    limits.remove_feature(call.session, organization.id, feature=feature, actor=call.actor, now=call.now(organization))


def _organization(call: Call, reference: str | None) -> uuid.UUID:
    """A bound key's own organization is not read for its id: this is asked before every request of a product."""
    return call.organization_id if reference is None and call.organization_id is not None else call.organization(reference).id


def _quantity(text: str) -> Decimal:
    try:
        return parse_decimal(text)
    except ValueError as error:
        raise Invalid("The quantity cannot be read.", errors=(FieldError("/quantity", f"It {error}."),)) from error


def _amount(value: Decimal) -> Decimal:
    if value < 0:
        raise Invalid("The quantity is negative.", errors=(FieldError("/quantity", "Give a number from 0."),))
    return Decimal(value)


def _decision(found: Decision) -> dict[str, Any]:
    return {
        "allowed": found.allowed,
        "reason": found.reason,
        "limit": found.limit,
        "used": found.used,
        "reserved": found.reserved,
        "remaining": found.remaining,
        "window": found.period,
        "window_start": found.window.start if found.window else None,
        "resets_at": found.window.end if found.window else None,
        "action": found.action,
        "source": found.source,
        "value": found.value,
    }
