"""What is agreed with one customer beyond a plan's list: prices, phases, a contract term. How it is written and read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from msgspec import Meta, field

from api.call import Call
from api.contract import Input, Output
from api.plans import Period, PriceDocument
from api.reading import Exact
from api.values import Text, instant
from core.catalog import queries as catalog
from core.catalog.conditions import PERIOD_ALIASES
from core.catalog.models import PlanVersion
from core.catalog.negotiated import negotiate
from core.errors import FieldError, Invalid, NotFound
from core.identity.models import Organization
from core.periods import Interval
from core.subscriptions.agreement import Contract, Phase
from core.subscriptions.models import Subscription

Quantities = Annotated[
    dict[str, Exact],
    Meta(
        max_length=100,
        description="Quantities held under names of their own, as the plan's prices call them with `licensed`, such as seats.",
        examples=[{"seats": "25"}],
    ),
]


class OverridesIn(Input):
    """Prices for this customer in place of the plan's with the same codes; one with a new code is added. Needs a platform key."""

    base_price: Exact | None = None
    prices: Annotated[list[PriceDocument], Meta(max_length=100)] = field(default_factory=list)


class PhaseIn(Input):
    """From `start_at` on; what is left out stays as in the phase before."""

    start_at: Annotated[str, Meta(max_length=40, description="A day of the billing time zone, or a time with its offset.")]
    plan: Text | None = None
    overrides: OverridesIn | None = None
    quantity: Exact | None = None
    quantities: Quantities = field(default_factory=dict)


class ContractIn(Input):
    """How long the agreement binds, from the start."""

    interval: Period = "year"
    count: Annotated[int, Meta(ge=1, le=120)] = 1
    renews: Annotated[bool, Meta(description="Whether another term follows; else the subscription ends.")] = True
    notice_days: Annotated[
        int, Meta(ge=0, le=366, description="A cancellation later than this before the end holds from the end of the next term.")
    ] = 0


class ContractOut(Output):
    """The contract; `ends_at` is the end of its first term."""

    ends_at: datetime
    interval: str
    count: int
    renews: bool
    notice_days: int


def agreed_version(call: Call, organization: Organization, plan: str, overrides: OverridesIn, pointer: str) -> PlanVersion:
    """A version negotiated from the plan on offer."""
    call.require_platform()
    listed = _offered(call, plan, "/plan")
    return negotiate(
        call.session,
        listed,
        organization_id=organization.id,
        currency=organization.currency,
        base_price=overrides.base_price,
        prices=overrides.prices,
        pointer=pointer,
        at=call.now(organization),
        actor=call.actor,
    )


def phases(call: Call, organization: Organization, plan: str, given: Sequence[PhaseIn]) -> list[Phase]:
    """The phases with their versions; one with overrides and no plan is negotiated from the plan of the phase before."""
    found: list[Phase] = []
    for i, phase in enumerate(given):
        version = None
        if phase.plan is not None or phase.overrides is not None:
            plan = phase.plan or plan
            if phase.overrides is None:
                version = _offered(call, plan, f"/phases/{i}/plan")
            else:
                version = agreed_version(call, organization, plan, phase.overrides, f"/phases/{i}/overrides")
        start = instant(phase.start_at, organization, f"/phases/{i}/start_at")
        found.append(Phase(start, version, phase.quantity, phase.quantities))
    return found


def contract(given: ContractIn | None) -> Contract | None:
    """The contract as the core takes it."""
    if given is None:
        return None
    interval = PERIOD_ALIASES.get(given.interval) or Interval(given.interval)
    return Contract(interval, given.count, given.renews, given.notice_days)


def contract_out(row: Subscription) -> ContractOut | None:
    """The contract of a subscription, if one binds."""
    if row.contract_ends_at is None or row.contract_interval is None or row.contract_count is None:
        return None
    return ContractOut(
        ends_at=row.contract_ends_at,
        interval=row.contract_interval,
        count=row.contract_count,
        renews=row.contract_renews,
        notice_days=row.notice_days,
    )


def _offered(call: Call, plan: str, pointer: str) -> PlanVersion:
    try:
        return catalog.offered_version(call.session, plan)
    except NotFound as error:
        raise Invalid("The subscription cannot start like this.", errors=(FieldError(pointer, error.message),)) from None
