"""Metrics: how usage events become a quantity that can be priced."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, field

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.values import FREE_PATTERN, Code, Text
from core.identity.permissions import Scope
from core.metering import metrics
from core.metering.models import Metric

TAG = "Metrics"
Property = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,99}$", max_length=100, examples=["tokens"])]


class Condition(Output, forbid_unknown_fields=True):
    """Events whose property has one of these values are counted."""

    property: Property
    values: Annotated[list[Annotated[str, Meta(max_length=255)]], Meta(min_length=1, max_length=100)] = field(name="in")


class MetricIn(Input):
    """A new metric."""

    code: Code
    name: Text
    aggregation: Literal["count", "sum", "max", "latest", "unique_count"]
    unit: Annotated[str, Meta(max_length=50, pattern=FREE_PATTERN, examples=["token"])] = ""
    property: Annotated[Property | None, Meta(description="Event property that is aggregated; left out: the event's quantity.")] = None
    event_name: Annotated[Code | None, Meta(description="Events with this name are read; left out: the metric's code.")] = None
    filters: Annotated[list[Condition], Meta(max_length=20)] = field(default_factory=list)
    group_by: Annotated[list[Property], Meta(max_length=5, description="Properties usage can be broken down by.")] = field(
        default_factory=list
    )


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
    created_at: datetime


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
        actor=call.actor,
        at=call.now(),
    )
    return _out(metric)


@endpoint("GET", "/billing/metrics", scope=Scope.BILLING_READ, tag=TAG)
def list_metrics(call: Call, query: Listing) -> Page[MetricOut]:
    """List metrics by code."""
    rows = metrics.page(call.session, after=query.cursor or "", limit=query.limit + 1)
    return page_of(rows, query.limit, _out, lambda row: row.code)


@endpoint("GET", "/billing/metrics/<metric>", scope=Scope.BILLING_READ, tag=TAG)
def get_metric(call: Call, metric: str) -> MetricOut:
    """Read a metric by its code or id."""
    return _out(metrics.find(call.session, metric))


def _out(row: Metric) -> MetricOut:
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
        created_at=row.created_at,
    )
