"""Metrics: how usage events become a quantity that can be priced."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, field

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.values import FREE_PATTERN, Code, Text
from core.identity.permissions import Scope
from core.metering import metrics
from core.metering.models import Metric

TAG = "Metrics"
EXPRESSION = (
    "Arithmetic over event properties in place of one property: + - * / ( ), numbers, property names, quantity, min, max, abs, ceil, "
    "floor, round. An event without one of the properties does not count; one that divides by zero is refused."
)
Expression = Annotated[str, Meta(max_length=500, examples=["input_tokens + 4 * output_tokens"])]
Property = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,99}$", max_length=100, examples=["tokens"])]


class Condition(Output, forbid_unknown_fields=True):
    """Events whose property has one of these values are counted."""

    property: Property
    values: Annotated[list[Annotated[str, Meta(max_length=255)]], Meta(min_length=1, max_length=100)] = field(name="in")


class Bucket(Output, forbid_unknown_fields=True):
    """Each local hour, day, week or month is aggregated alone; the buckets that have events become the quantity."""

    size: Literal["hour", "day", "week", "month"]
    total: Literal["sum", "max", "min", "avg"]


class Rounding(Output, forbid_unknown_fields=True):
    """What is done to the quantity of a period, once. A negative precision rounds to tens, hundreds and so on."""

    function: Literal["up", "down", "half_up"]
    precision: Annotated[int, Meta(ge=-12, le=12)] = 0


class Counting(Output):
    """Whether events that were there before the metric are counted: `counting` ones before `counted_through`, or all of them."""

    status: Literal["counted", "counting", "waiting"]
    counted_through: datetime | None


class Late(Output, forbid_unknown_fields=True):
    """What becomes of late usage: `adjust` bills it as an adjustment on the next invoice; `ignore` counts and shows it, but leaves a
    cycle that was billed as it is; `reject` refuses an event that is older than `after_hours` when it comes.
    """

    policy: Literal["adjust", "ignore", "reject"] = "adjust"
    after_hours: Annotated[int, Meta(ge=1, le=840)] | None = None


class MetricIn(Input):
    """A new metric."""

    code: Code
    name: Text
    aggregation: Literal["count", "sum", "max", "min", "avg", "latest", "unique_count", "weighted_sum", "percentile"]
    unit: Annotated[str, Meta(max_length=50, pattern=FREE_PATTERN, examples=["token"])] = ""
    property: Annotated[Property | None, Meta(description="Event property that is aggregated; left out: the event's quantity.")] = None
    event_name: Annotated[Code | None, Meta(description="Events with this name are read; left out: the metric's code.")] = None
    filters: Annotated[list[Condition], Meta(max_length=20)] = field(default_factory=list)
    group_by: Annotated[list[Property], Meta(max_length=5, description="Properties usage can be broken down by.")] = field(
        default_factory=list
    )
    expression: Annotated[Expression | None, Meta(description=EXPRESSION)] = None
    operation_property: Annotated[
        Property | None,
        Meta(description='Property of a unique_count that is "remove" when the value goes away; anything else adds it.'),
    ] = None
    percentile: Annotated[Decimal | None, Meta(description="Of a percentile: which, by nearest rank.", examples=["95"])] = None
    recurring: Annotated[bool, Meta(description="The value carries into the next period.")] = False
    bucket: Bucket | None = None
    rounding: Rounding | None = None
    late: Late | None = None


class MetricOut(Output):
    """A metric."""

    id: uuid.UUID
    code: str
    name: str
    unit: str
    aggregation: str
    property: str | None
    event_name: str
    filters: list[Condition]
    group_by: list[str]
    expression: str | None
    operation_property: str | None
    percentile: Decimal | None
    recurring: bool
    bucket: Bucket | None
    rounding: Rounding | None
    late: Late
    version: int
    created_at: datetime
    past: Counting


@endpoint("POST", "/billing/metrics", scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def create_metric(call: Call, body: MetricIn) -> MetricOut:
    """Create a metric. Needs a platform key. Several metrics may read the same event; events already counted are read too."""
    call.require_platform()
    metric = metrics.create(
        call.session,
        code=body.code,
        name=body.name,
        unit=body.unit,
        aggregation=body.aggregation,
        property=body.property,
        event_name=body.event_name,
        filters=[{"property": condition.property, "in": condition.values} for condition in body.filters],
        group_by=body.group_by,
        expression=body.expression,
        operation_property=body.operation_property,
        percentile=body.percentile,
        recurring=body.recurring,
        bucket_size=body.bucket.size if body.bucket else None,
        bucket_total=body.bucket.total if body.bucket else None,
        rounding=body.rounding.function if body.rounding else None,
        rounding_precision=body.rounding.precision if body.rounding else 0,
        late_policy=body.late.policy if body.late else "adjust",
        late_after_hours=body.late.after_hours if body.late else None,
        actor=call.actor,
        at=call.now(),
    )
    return metric_out(metric)


@endpoint("GET", "/billing/metrics", scope=Scope.BILLING_READ, tag=TAG)
def list_metrics(call: Call, query: Listing) -> Page[MetricOut]:
    """List metrics by code."""
    rows = metrics.page(call.session, after=query.cursor or "", limit=query.limit + 1)
    return page_of(rows, query.limit, metric_out, lambda row: row.code)


@endpoint("GET", "/billing/metrics/<metric>", scope=Scope.BILLING_READ, tag=TAG)
def get_metric(call: Call, metric: str) -> MetricOut:
    """Read a metric by its code or id."""
    return metric_out(metrics.find(call.session, metric))


def metric_out(row: Metric) -> MetricOut:
    """A metric as the API tells it."""
    return MetricOut(
        id=row.id,
        code=row.code,
        name=row.name,
        unit=row.unit,
        aggregation=row.aggregation,
        property=row.property,
        event_name=row.event_name,
        filters=[Condition(property=item["property"], values=item["in"]) for item in row.filters],
        group_by=list(row.group_by),
        expression=row.expression,
        operation_property=row.operation_property,
        percentile=row.percentile,
        recurring=row.recurring,
        bucket=Bucket(size=row.bucket_size, total=row.bucket_total) if row.bucket_size and row.bucket_total else None,  # type: ignore[arg-type]
        rounding=Rounding(function=row.rounding, precision=row.rounding_precision) if row.rounding else None,  # type: ignore[arg-type]
        late=Late(policy=row.late_policy, after_hours=row.late_after_hours),  # type: ignore[arg-type]
        version=row.version,
        created_at=row.created_at,
        past=counting(row.counted_at, row.counted_through),
    )


def counting(counted_at: datetime | None, counted_through: datetime | None) -> Counting:
    """How far the past is counted."""
    if counted_at is not None:
        return Counting(status="counted", counted_through=None)
    return Counting(status="counting" if counted_through else "waiting", counted_through=counted_through)
