"""Reading usage: single events, and what became of a batch."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta

from api.call import Call
from api.contract import Listing, Output, Page, endpoint
from api.values import Reference, instant
from core.identity.permissions import Scope
from core.invoicing import late_usage
from core.invoicing.late_usage import Late
from core.metering import metrics, queries
from core.metering.queries import UsageEvent

TAG = "Usage"
EVENTS_WINDOW = timedelta(days=31)
MIDNIGHT = time()


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


class LateOut(Output):
    """A metric for which an invoice had billed the event's cycle before the event came; it was the first that did."""

    metric_name: str
    cycle_start: datetime
    cycle_end: datetime
    invoice_id: uuid.UUID
    invoice_number: str
    billed_at: datetime
    adjusts: Annotated[bool, Meta(description="Whether a later invoice settles the difference: unless the metric ignores late usage.")]


class EventOut(Output):
    """One counted event. `received_at` is when it came."""

    id: str
    event_name: str
    timestamp: datetime
    received_at: datetime
    quantity: Decimal
    idempotency_key: str
    properties: dict[str, Any]
    subscription_id: uuid.UUID | None
    unit: str | None
    late: Annotated[list[LateOut], Meta(description="By metric, why the event came late; empty when it came in time.")]


@endpoint("GET", "/billing/usage/batches/<batch_id>", scope=Scope.USAGE_WRITE, tag=TAG)
def get_usage_batch(call: Call, batch_id: str) -> BatchOut:
    """Read what became of a request: counted yet, which events were duplicates or conflicts."""
    found = queries.batch(call.session, call.organization_id, batch_id)
    return BatchOut(
        batch_id=found.id,
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
    late = late_usage.of_events(call.session, organization.id, page.rows)
    data = [_event(row, late.get(row.id, ())) for row in page.rows]
    return Page(data=data, has_more=page.next_cursor is not None, next_cursor=page.next_cursor)


def _event(row: UsageEvent, lateness: Sequence[Late]) -> EventOut:
    given = {name: getattr(row, name) for name in EventOut.__struct_fields__ if name != "late"}
    return EventOut(**given, late=[LateOut(**{name: getattr(one, name) for name in LateOut.__struct_fields__}) for one in lateness])
