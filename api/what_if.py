"""What other plans would have cost: the last closed periods of a subscription, rated again on their real usage."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from msgspec import Meta

from api.call import Call
from api.contract import Input, Output, endpoint
from api.subscriptions import TAG, load
from api.values import FREE_PATTERN, amount
from core.catalog import queries as catalog
from core.catalog.models import PlanVersion
from core.errors import FieldError, Invalid, NotFound
from core.identity.permissions import Scope
from core.invoicing import whatif
from core.invoicing.whatif import Cost
from core.subscriptions.models import Subscription

PLANS_MAX = 10


class WhatIfQuery(Input):
    """Which plans to compare with."""

    plans: (
        Annotated[
            str,
            Meta(
                max_length=1000,
                pattern=FREE_PATTERN,
                description="Codes or ids, with commas between; left out: every public plan on offer.",
            ),
        ]
        | None
    ) = None


class PastPeriod(Output):
    """One closed billing period."""

    start: datetime
    end: datetime


class PastCost(Output):
    """What a plan would have cost, net of tax: for each period, on average, and against what was paid; and with tax."""

    plan: str | None
    version: int | None
    version_id: uuid.UUID | None
    amounts: list[str]
    average: str
    difference: str
    amounts_with_tax: list[str]
    average_with_tax: str


class WhatIf(Output):
    """The periods, oldest first; what the subscription cost in them, and what each plan would have."""

    currency: str
    tax_name: str
    tax_rate_percent: Annotated[Decimal, Meta(description="As an invoice would be taxed now.")]
    periods: list[PastPeriod]
    own: PastCost
    plans: list[PastCost]
    cheapest: Annotated[uuid.UUID | None, Meta(description="Version id of the plan with the lowest average.")]


@endpoint("GET", "/billing/subscriptions/<uuid:subscription_id>/what-if", scope=Scope.BILLING_READ, tag=TAG)
def what_if(call: Call, subscription_id: uuid.UUID, query: WhatIfQuery) -> WhatIf:
    """Rate the usage of the last three closed periods under other plans.

    Fewer periods for a young subscription. A fee billed in advance counts in the period it is for. Nothing changes.
    """
    organization, subscription = load(call, subscription_id)
    versions = _versions(call, subscription, query.plans)
    found = whatif.compare(call.session, organization.id, subscription_id, versions=versions, as_of=call.now(organization))
    named = {version.id: version for version in versions}
    return WhatIf(
        currency=found.currency,
        tax_name=found.tax.name,
        tax_rate_percent=found.tax.rate_percent,
        periods=[PastPeriod(start=period.start, end=period.end) for period in found.periods],
        own=_cost(found.own, None, found.currency),
        plans=[_cost(cost, named[cost.version_id], found.currency) for cost in found.plans if cost.version_id],
        cheapest=found.cheapest.version_id if found.cheapest and found.periods else None,
    )


def _versions(call: Call, subscription: Subscription, plans: str | None) -> list[PlanVersion]:
    if plans is None:
        return list(catalog.live_versions(call.session, currency=subscription.currency))[:PLANS_MAX]
    wanted = list(dict.fromkeys(name.strip() for name in plans.split(",") if name.strip()))
    if not 1 <= len(wanted) <= PLANS_MAX:
        raise Invalid("The plans cannot be compared.", errors=(FieldError("/plans", f"Name 1 to {PLANS_MAX} plans."),))
    found = {version.id: version for version in (_version(call, name, subscription) for name in wanted)}
    return list(found.values())


def _version(call: Call, name: str, subscription: Subscription) -> PlanVersion:
    try:
        version = catalog.offered_version(call.session, name)
    except NotFound as error:
        raise Invalid("The plans cannot be compared.", errors=(FieldError("/plans", error.message),)) from None
    if version.organization_id not in (None, subscription.organization_id):
        raise Invalid("The plans cannot be compared.", errors=(FieldError("/plans", f'There is no plan "{name[:100]}".'),))
    if not version.sells_in(subscription.currency):
        detail = f"{name} is not sold in {subscription.currency}"
        raise Invalid("The plans cannot be compared.", errors=(FieldError("/plans", detail),))
    return version


def _cost(cost: Cost, version: PlanVersion | None, currency: str) -> PastCost:
    return PastCost(
        plan=version.plan.code if version else None,
        version=version.version if version else None,
        version_id=version.id if version else None,
        amounts=[amount(minor, currency) for minor in cost.minor],
        average=amount(cost.average_minor, currency),
        difference=amount(cost.difference_minor, currency),
        amounts_with_tax=[amount(minor, currency) for minor in cost.with_tax],
        average_with_tax=amount(cost.average_with_tax_minor, currency),
    )
