"""The usage summary: sums per metric, group and piece of local time, beside those of the range before."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta

from api.call import Call
from api.contract import Input, Output, endpoint
from api.values import Reference, instant
from core import clock
from core.errors import FieldError, Invalid
from core.identity.models import Organization
from core.identity.organizations import timezones
from core.identity.permissions import Scope
from core.metering import queries, reading, summary
from core.metering.models import Metric
from core.metering.summary import Bucket, MetricSummary

TAG = "Usage"
MIDNIGHT = time()


class SummaryQuery(Input):
    """Which usage. The range begins with `start_date` and includes the whole day `end_date`; left out, it is the running month."""

    organization_id: Reference | None = None
    start_date: str | None = None
    end_date: str | None = None
    metric_name: Annotated[str, Meta(description="Code of one metric.", max_length=100)] | None = None
    granularity: Literal["minute", "hour", "day", "week", "month"] | None = None
    group_by: Annotated[str, Meta(max_length=100)] | None = None
    filters: (
        Annotated[
            str,
            Meta(
                description="Values of the metrics' dimensions, name=value; a name given again allows that value too.",
                max_length=1000,
                examples=["region=eu,region=us,model=a"],
            ),
        ]
        | None
    ) = None
    timezone: (
        Annotated[str, Meta(description="Zone of the days and buckets (IANA); left out: the billing time zone.", max_length=64)] | None
    ) = None
    compare: Annotated[Literal["previous"], Meta(description="Also the range of the same length just before.")] | None = None


class BucketOut(Output):
    """Usage of one piece of the range."""

    start: datetime
    end: datetime
    quantity: Decimal
    events: int
    groups: dict[str, Decimal]


class Previous(Output):
    """Usage of the range of the same length just before; `change_percent` is null where there was none."""

    start: datetime
    end: datetime
    quantity: Decimal
    events: int
    change_percent: Decimal | None


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
    previous: Previous | None


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


@endpoint("GET", "/billing/usage/summary", scope=Scope.BILLING_READ, tag=TAG)
def usage_summary(call: Call, query: SummaryQuery) -> SummaryOut:
    """Summarize usage per metric, from the sums an invoice reads."""
    organization = call.organization(query.organization_id)
    zone = _zone(query.timezone, organization)
    start, end = _range(query.start_date, query.end_date, organization, call.now(organization), zone)
    chosen = summary.metrics_named(call.session, [query.metric_name] if query.metric_name else None)
    filters = _filters(query.filters)
    _check_dimensions(chosen, query, filters)
    given: dict[str, Any] = {"timezone": zone, "group_by": query.group_by, "filters": filters}
    asked = summary.summarized(chosen, organization.id, start=start, end=end, granularity=query.granularity, **given)
    before = _before(start, end, zone) if query.compare else (start, end)
    earlier = summary.summarized(chosen, organization.id, start=before[0], end=before[1], **given)
    measured = reading.read(call.session, asked, *([earlier] if query.compare else []))
    found = asked.answer(measured)
    previous = {item.metric.id: item for item in earlier.answer(measured)} if query.compare else {}
    fresh = queries.freshness(call.session, organization.id, at=clock.now())
    return SummaryOut(
        organization_id=organization.id,
        start=start.astimezone(ZoneInfo("UTC")),
        end=end.astimezone(ZoneInfo("UTC")),
        timezone=zone,
        metrics=[_usage(item, previous.get(item.metric.id), before) for item in found],
        freshness=FreshnessOut(
            counted_up_to=fresh.counted_up_to, behind_seconds=round(Decimal(fresh.behind_seconds), 3), backlog=fresh.backlog
        ),
    )


def _zone(asked: str | None, organization: Organization) -> str:
    if asked is not None and asked not in timezones():
        errors = (FieldError("/timezone", "Name a time zone such as Europe/Berlin."),)
        raise Invalid("There is no such time zone.", errors=errors)
    return asked or organization.timezone


def _range(start: str | None, end: str | None, organization: Organization, now: datetime, zone: str) -> tuple[datetime, datetime]:
    local = now.astimezone(ZoneInfo(zone))
    month = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    begins = instant(start, organization, "/start_date", timezone=zone) if start else month
    ends = instant(end, organization, "/end_date", day_end=True, timezone=zone) if end else max(now, begins) + timedelta(days=1)
    return begins, ends


def _before(start: datetime, end: datetime, zone: str) -> tuple[datetime, datetime]:
    """The range of the same length just before: as many local days where the range is whole days."""
    first, last = (at.astimezone(ZoneInfo(zone)) for at in (start, end))
    if first.time() == last.time() == MIDNIGHT:
        return first - (last.date() - first.date()), start
    return start - (end - start), start


def _filters(text: str | None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in text.split(",") if text else ():
        name, given, value = pair.partition("=")
        if not given or not name:
            errors = (FieldError("/filters", "Write name=value, separated by commas: region=eu,model=a."),)
            raise Invalid("The filters cannot be read.", errors=errors)
        found.setdefault(name, []).append(value)
    return found


def _check_dimensions(chosen: Sequence[Metric], query: SummaryQuery, filters: Mapping[str, Sequence[str]]) -> None:
    """A dimension that none of the metrics has is a mistake; metrics without it are left out beside others that have it."""
    known = {name for metric in chosen for name in metric.group_by}
    wrong = [("/group_by", query.group_by)] if query.group_by else []
    wrong += [("/filters", name) for name in filters]
    errors = tuple(
        FieldError(pointer, f"{name} is no dimension here; there are {', '.join(sorted(known)) or 'none'}.")
        for pointer, name in wrong
        if name not in known
    )
    if errors and chosen:
        raise Invalid("Usage cannot be broken down like that.", errors=errors)


def _usage(item: MetricSummary, earlier: MetricSummary | None, before: tuple[datetime, datetime]) -> MetricUsage:
    return MetricUsage(
        metric=item.metric.code,
        name=item.metric.name,
        unit=item.metric.unit,
        aggregation=item.metric.aggregation,
        quantity=item.total,
        events=item.events,
        groups=dict(item.groups),
        buckets=[_bucket(bucket) for bucket in item.buckets],
        previous=_previous(item, earlier, before) if earlier else None,
    )


def _previous(item: MetricSummary, earlier: MetricSummary, before: tuple[datetime, datetime]) -> Previous:
    start, end = (at.astimezone(UTC) for at in before)
    change = round((item.total - earlier.total) * 100 / earlier.total, 2) if earlier.total else None
    return Previous(start=start, end=end, quantity=earlier.total, events=earlier.events, change_percent=change)


def _bucket(item: Bucket) -> BucketOut:
    return BucketOut(
        start=item.start.astimezone(UTC), end=item.end.astimezone(UTC), quantity=item.quantity, events=item.events, groups=dict(item.groups)
    )
