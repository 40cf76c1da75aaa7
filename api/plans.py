"""Plans: price lists in immutable versions."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import Meta, field, to_builtins

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.reading import Exact
from api.values import FREE_PATTERN, Code, Currency, Metadata, Text
from core.catalog import drafts, publish, queries
from core.catalog.models import PlanVersion, PricingRule, SubscriptionPlan, VersionStatus
from core.errors import Forbidden, NotFound
from core.identity.permissions import Scope

TAG = "Plans"
Period = Literal[
    "day", "week", "month", "quarter", "half_year", "year",
    "daily", "weekly", "monthly", "quarterly", "half_yearly", "semiannual", "yearly", "annual",
]  # fmt: skip
Mode = Literal["in_advance", "in_arrears"]
AfterTrial = Literal["convert", "cancel", "pause"]
PriceDocument = Annotated[
    dict[str, Any],
    Meta(
        description=(
            "One price: `metric` (code; left out for a recurring fee), `code`, `name`, `billing_mode`, and `model` with exactly the keys "
            "of that model and of modifiers (such as `minimum_amount`, `unit_conversion`, `bucket`). "
            "If wanted `licensed` (the named quantity it is priced by), `included` (units that cost nothing), "
            "`quantity_min` and `quantity_max` (bounds of that quantity), "
            "`billing_period` and `interval_count` (a cycle of its own), `proration`; for the models `discount` and `commitment` also "
            "`covers` and `overage_factor`. See the documentation of pricing models and of plans."
        ),
        examples=[{"metric": "requests", "model": "package", "package_size": "1000", "package_price": "0.40"}],
        extra_json_schema={"required": ["model"], "properties": {"model": {"type": "string"}, "metric": {"type": ["string", "null"]}}},
    ),
]


class PlanLimit(Output, forbid_unknown_fields=True):
    """A limit on a metric that every customer of the plan has."""

    value: Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=r"^[0-9]{1,14}(\.[0-9]{1,12})?$")]
    period: Literal["daily", "monthly", "total"] = "monthly"
    action: Literal["block", "allow_overage", "notify"] = "block"


class PlanIn(Input):
    """A plan's next version."""

    code: Code
    name: Text
    currency: Currency
    billing_period: Period = "month"
    interval_count: Annotated[int, Meta(ge=1, le=120)] = 1
    base_price: Annotated[Exact, Meta(description="Per billing period, in major units.")] = field(default_factory=lambda: Exact("0"))
    billing_mode: Annotated[Mode, Meta(description="When the base price is billed.")] = "in_advance"
    trial_period_days: Annotated[int, Meta(ge=0, le=730)] = 0
    trial_end_without_method: Annotated[
        AfterTrial, Meta(description="What follows a trial that ends while the account has no payment method.")
    ] = "convert"
    prices: Annotated[list[PriceDocument], Meta(max_length=100)] = field(default_factory=list)
    proration: Annotated[
        Literal["seconds", "days", "fixed_30", "none"], Meta(description="How a part of a billing period is measured.")
    ] = "seconds"
    credit_policy: Annotated[
        Literal["credit", "next_invoice", "none"],
        Meta(description="Unused time billed in advance is credited at once, with the next invoice, or not."),
    ] = "credit"
    currencies: Annotated[
        dict[str, dict[str, Any]],
        Meta(
            description="Further currencies the plan is sold in, each with its own `base_price` and `prices`.",
            examples=[{"USD": {"base_price": "109.00", "prices": []}}],
            max_length=50,
        ),
    ] = field(default_factory=dict)
    kind: Annotated[Literal["plan", "add_on", "coupon"], Meta(description="What a subscription does with it.")] = "plan"
    duration_cycles: Annotated[int, Meta(ge=1, le=120, description="Of a coupon: periods it holds for; left out: for good.")] | None = None
    description: Annotated[str, Meta(max_length=2000, pattern=FREE_PATTERN)] = ""
    is_public: Annotated[bool, Meta(description="Whether customers may choose it themselves.")] = True
    customers_may_pause: Annotated[bool, Meta(description="Whether customers may pause it themselves.")] = True
    features: Metadata = field(default_factory=dict)
    limits: Annotated[
        dict[str, bool | int | str | PlanLimit | None],
        Meta(description="By metric code: a number refuses usage past it in a month. Other names are numbers your product compares."),
    ] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=dict)


class PlanList(Listing):
    """Filters of the list."""

    active: bool | None = True


class PriceOut(Output):
    """One price of a version; `rules` are the keys of its model."""

    id: uuid.UUID
    code: str
    name: str
    kind: str
    metric: str | None
    model: str
    rules: dict[str, Any]
    billing_mode: str
    licensed: str | None
    included: Decimal
    billing_period: str | None
    interval_count: int | None
    proration: str | None
    covers: list[str] | None
    overage_factor: Decimal
    quantity_min: Decimal | None
    quantity_max: Decimal | None
    currency: str | None


class PlanVersionOut(Output):
    """One immutable version."""

    id: uuid.UUID
    version: int
    status: str
    base_price: Decimal
    billing_mode: str
    billing_period: str
    interval_count: int
    trial_period_days: int
    trial_end_without_method: str
    proration: str
    credit_policy: str
    prices: list[PriceOut]
    features: dict[str, Any]
    limits: dict[str, Any]
    duration_cycles: int | None
    customers_may_pause: bool
    published_at: datetime | None


class PlanOut(Output):
    """A plan with its versions, newest first. `version` is the number new subscriptions get."""

    id: uuid.UUID
    code: str
    kind: str
    name: str
    description: str
    currency: str
    is_active: bool
    is_public: bool
    version: int | None
    versions: list[PlanVersionOut]
    metadata: dict[str, Any]
    created_at: datetime


@endpoint("POST", "/billing/plans", scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def publish_plan(call: Call, body: PlanIn) -> PlanOut:
    """Create a plan, or the next version of one.

    Needs a platform key. The first post of a code publishes version 1, every further one the next version; running subscriptions
    keep the version they have. Where a second person is needed, versions are published from drafts only.
    """
    call.require_platform()
    if drafts.needs_second_person():
        raise Forbidden("Save a draft: somebody else has to publish it.", code="second_person_needed")
    values = {name: getattr(body, name) for name in body.__struct_fields__}
    values["limits"] = to_builtins(body.limits)
    version = publish.create_version(call.session, **values, actor=call.actor, at=call.now())
    return _out(queries.plan(call.session, str(version.plan_id)))


@endpoint("GET", "/billing/plans", scope=Scope.BILLING_READ, tag=TAG)
def list_plans(call: Call, query: PlanList) -> Page[PlanOut]:
    """List plans by code. A key bound to one organization sees the public ones."""
    public = None if call.platform else True
    rows = queries.plans(call.session, active=query.active, public=public, after=query.cursor or "", limit=query.limit + 1)
    return page_of(rows, query.limit, _out, lambda row: row.code)


@endpoint("GET", "/billing/plans/<plan>", scope=Scope.BILLING_READ, tag=TAG)
def get_plan(call: Call, plan: str) -> PlanOut:
    """Read a plan by its code or id."""
    found = queries.plan(call.session, plan)
    if not call.platform and not found.is_public:
        raise NotFound("There is no such plan.")
    return _out(found)


def _out(row: SubscriptionPlan) -> PlanOut:
    versions = sorted(row.versions, key=lambda version: -version.version)
    live = next((version.version for version in versions if version.status == VersionStatus.LIVE), None)
    return PlanOut(
        id=row.id,
        code=row.code,
        kind=row.kind,
        name=row.name,
        description=row.description,
        currency=row.currency,
        is_active=row.is_active,
        is_public=row.is_public,
        version=live,
        versions=[_version(version) for version in versions],
        metadata=row.extra,
        created_at=row.created_at,
    )


def _version(row: PlanVersion) -> PlanVersionOut:
    return PlanVersionOut(
        id=row.id,
        version=row.version,
        status=row.status,
        base_price=row.base_price,
        billing_mode=row.billing_mode,
        billing_period=row.billing_period,
        interval_count=row.interval_count,
        trial_period_days=row.trial_period_days,
        trial_end_without_method=row.trial_end_without_method,
        proration=row.proration,
        credit_policy=row.credit_policy,
        prices=[_price(rule) for rule in row.rules],
        features=row.features,
        limits=row.limits,
        duration_cycles=row.duration_cycles,
        customers_may_pause=row.customers_may_pause,
        published_at=row.published_at,
    )


def _price(rule: PricingRule) -> PriceOut:
    return PriceOut(
        id=rule.id,
        code=rule.code,
        name=rule.name,
        kind=rule.kind,
        metric=rule.metric.code if rule.metric else None,
        model=rule.model,
        rules=rule.rules,
        billing_mode=rule.billing_mode,
        licensed=rule.licensed,
        included=rule.included,
        billing_period=rule.interval,
        interval_count=rule.interval_count,
        proration=rule.proration,
        covers=rule.covers,
        overage_factor=rule.overage_factor,
        quantity_min=rule.quantity_min,
        quantity_max=rule.quantity_max,
        currency=rule.currency,
    )
