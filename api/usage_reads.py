"""Reading usage: sums per metric and period, single events, what became of a batch, what was refused and why."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint
from api.values import Reference, instant
from core import clock
from core.identity.models import Organization
from core.identity.permissions import Scope
from core.metering import metrics, queries, summary
from core.metering.summary import Bucket, MetricSummary

TAG = "Usage"
EVENTS_WINDOW = timedelta(days=31)


class SummaryQuery(Input):
    """Which usage. The range begins with `start_date` and includes the whole day `end_date`; left out, it is the running month."""

    organization_id: Reference | None = None
    start_date: str | None = None
    end_date: str | None = None
    metric_name: Annotated[str, Meta(description="Code of one metric.", max_length=100)] | None = None
    granularity: Literal["hour", "day", "week", "month"] | None = None
    group_by: Annotated[str, Meta(max_length=100)] | None = None


class BucketOut(Output):
    """Usage of one piece of the range."""

    start: datetime
    end: datetime
    quantity: Decimal
    events: int
    groups: dict[str, Decimal]


class MetricUsage(Output):
    """Usage of one metric."""

    metric: str
    name: str
    unit: str
    aggregation: str
    quantity: Decimal
    events: int
    groups: dict[str, Decimal]
    buckets: list[BucketOut]


class FreshnessOut(Output):
    """Everything received before `counted_up_to` is in the sums; `backlog` events wait."""

    counted_up_to: datetime
    behind_seconds: Decimal
    backlog: int


class SummaryOut(Output):
    """Usage of a range, `end` excluded."""

    organization_id: uuid.UUID
    start: datetime
    end: datetime
    timezone: str
    metrics: list[MetricUsage]
    freshness: FreshnessOut


class BatchOut(Output):
    """What became of one request; `duplicates` and `conflicts` are positions in it."""

    batch_id: str
    status: str
    received_at: datetime
    accepted: int
    rejected: int
    counted: int
    duplicates: list[int]
    conflicts: list[int]


class EventsQuery(Listing):
    """Which events: those of the last 31 days unless a range is given."""

    organization_id: Reference | None = None
    start_date: str | None = None
    end_date: str | None = None
    metric_name: Annotated[str, Meta(max_length=100)] | None = None
    idempotency_key: Annotated[str, Meta(max_length=255)] | None = None


class EventOut(Output):
    """One counted event."""

    id: str
    event_name: str
    timestamp: datetime
    received_at: datetime
    quantity: Decimal
    idempotency_key: str
    properties: dict[str, Any]
    subscription_id: uuid.UUID | None
    unit: str | None


class RejectionsQuery(Listing):
    """Which refused events."""

    organization_id: Reference | None = None
    code: Annotated[str, Meta(max_length=64)] | None = None


class RejectionOut(Output):
    """One refused event; `event` is the JSON as it was sent, cut at 8 KiB."""

    id: str
    received_at: datetime
    batch_id: str | None
    index: int
    code: str
    pointer: str
    detail: str
    event: str


@endpoint("GET", "/billing/usage/summary", scope=Scope.BILLING_READ, tag=TAG)
def usage_summary(call: Call, query: SummaryQuery) -> SummaryOut:
    """Summarize usage per metric, from the sums an invoice reads."""
    organization = call.organization(query.organization_id)
    start, end = _range(query.start_date, query.end_date, organization, call.now(organization))
    found = summary.summary(
        call.session,
        organization.id,
        start=start,
        end=end,
        timezone=organization.timezone,
        granularity=query.granularity,
        metric_codes=[query.metric_name] if query.metric_name else None,
        group_by=query.group_by,
    )
    fresh = queries.freshness(call.session, organization.id, at=clock.now())
    return SummaryOut(
        organization_id=organization.id,
        start=start.astimezone(ZoneInfo("UTC")),
        end=end.astimezone(ZoneInfo("UTC")),
        timezone=organization.timezone,
        metrics=[_usage(item) for item in found],
        freshness=FreshnessOut(
            counted_up_to=fresh.counted_up_to, behind_seconds=round(Decimal(fresh.behind_seconds), 3), backlog=fresh.backlog
        ),
    )


@endpoint("GET", "/billing/usage/batches/<int:batch_id>", scope=Scope.USAGE_WRITE, tag=TAG)
def get_usage_batch(call: Call, batch_id: int) -> BatchOut:
    """Read what became of a request: counted yet, which events were duplicates or conflicts."""
    found = queries.batch(call.session, call.organization_id, min(batch_id, 2**63 - 1))
    return BatchOut(
        batch_id=str(found.id),
        status=found.status,
        received_at=found.received_at,
        accepted=found.accepted,
        rejected=found.rejected,
        counted=found.counted,
        duplicates=list(found.duplicates),
        conflicts=list(found.conflicts),
    )


@endpoint("GET", "/billing/usage/events", scope=Scope.BILLING_READ, tag=TAG)
def list_usage_events(call: Call, query: EventsQuery) -> Page[EventOut]:
    """List counted events, newest first."""
    organization = call.organization(query.organization_id)
    now = call.now(organization)
    start = instant(query.start_date, organization, "/start_date") if query.start_date else now - EVENTS_WINDOW
    end = instant(query.end_date, organization, "/end_date", day_end=True) if query.end_date else now + timedelta(days=1)
    page = queries.events_page(
        call.session,
        organization.id,
        start=start,
        end=end,
        metric_id=metrics.find(call.session, query.metric_name).id if query.metric_name else None,
        idempotency_key=query.idempotency_key,
        cursor=query.cursor,
        limit=query.limit,
    )
    data = [EventOut(**{name: getattr(row, name) for name in EventOut.__struct_fields__}) for row in page.rows]
    return Page(data=data, has_more=page.next_cursor is not None, next_cursor=page.next_cursor)


@endpoint("GET", "/billing/usage/rejections", scope=Scope.BILLING_READ, tag=TAG)
def list_usage_rejections(call: Call, query: RejectionsQuery) -> Page[RejectionOut]:
    """List refused events with the reason, newest first."""
    page = queries.rejections_page(
        call.session, call.filter(query.organization_id), code=query.code, cursor=query.cursor, limit=query.limit
    )
    data = [
        RejectionOut(
            id=str(row.id),
            received_at=row.received_at,
            batch_id=str(row.batch_id) if row.batch_id is not None else None,
            index=row.index,
            code=row.code,
            pointer=row.pointer,
            detail=row.detail,
            event=row.event,
        )
        for row in page.rows
    ]
    return Page(data=data, has_more=page.next_cursor is not None, next_cursor=page.next_cursor)


def _range(start: str | None, end: str | None, organization: Organization, now: datetime) -> tuple[datetime, datetime]:
    local = now.astimezone(ZoneInfo(organization.timezone))
    month = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    begins = instant(start, organization, "/start_date") if start else month
    ends = instant(end, organization, "/end_date", day_end=True) if end else max(now, begins) + timedelta(days=1)
    return begins, ends


def _usage(item: MetricSummary) -> MetricUsage:
    return MetricUsage(
        metric=item.metric.code,
        name=item.metric.name,
        unit=item.metric.unit,
        aggregation=item.metric.aggregation,
        quantity=item.total,
        events=item.events,
        groups=dict(item.groups),
        buckets=[_bucket(bucket) for bucket in item.buckets],
    )


def _bucket(item: Bucket) -> BucketOut:
    return BucketOut(start=item.start, end=item.end, quantity=item.quantity, events=item.events, groups=dict(item.groups))
