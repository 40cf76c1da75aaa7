"""Usage that came late: when an invoice had billed the cycle it belongs to. The metric's policy decides what becomes of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row, case, func, select
from sqlalchemy.orm import Session

from core.identity.models import Organization
from core.invoicing.billed import UNBILLED
from core.invoicing.models import Invoice, InvoiceLine
from core.metering.instants import micros
from core.metering.meters import feeds, meter, properties
from core.metering.models import LatePolicy, Metric
from core.metering.queries import UsageEvent

BILLED_AT = case(
    (Organization.test_clock_id.is_(None), func.greatest(Invoice.finalized_at, Invoice.created_at)), else_=Invoice.created_at
).label("billed_at")
"""In real time, as arrival is: a customer on a test clock is billed in another, but its invoices are made in this one."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A counted event, as far as its lateness goes."""

    organization_id: uuid.UUID
    event_name: str
    timestamp: datetime
    received_at: datetime
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Late:
    """The first invoice that billed the event's cycle for a metric before the event came. `adjusts`: a later invoice settles it."""

    metric_name: str
    cycle_start: datetime
    cycle_end: datetime
    invoice_id: uuid.UUID
    invoice_number: str
    billed_at: datetime
    adjusts: bool


def find(session: Session, arrivals: Sequence[Arrival]) -> list[tuple[Late, ...]]:
    """For each arrival its lateness, by metric that it feeds; () for those in time. Two statements, one when none can be late."""
    rows = _billed(session, arrivals) if arrivals else []
    read: dict[str, list[Metric]] = {}
    if rows:
        for metric in session.scalars(select(Metric).where(Metric.id.in_({row.metric_id for row in rows})).order_by(Metric.code)):
            read.setdefault(metric.event_name, []).append(metric)
    return [tuple(_lateness(one, read.get(one.event_name, ()), rows)) for one in arrivals]


def of_events(session: Session, organization_id: uuid.UUID, events: Sequence[UsageEvent]) -> dict[str, tuple[Late, ...]]:
    """By id, the counted events of one organization that came late; see `find`."""
    arrivals = [Arrival(organization_id, one.event_name, one.timestamp, one.received_at, one.properties) for one in events]
    return {one.id: late for one, late in zip(events, find(session, arrivals), strict=True) if late}


def _lateness(arrival: Arrival, metrics: Sequence[Metric], rows: Sequence[Row[Any]]) -> Iterator[Late]:
    for metric in metrics:
        billed = next((row for row in rows if row.metric_id == metric.id and _came_after(row, arrival)), None)
        if billed is not None and _fed(metric, arrival):
            when = (billed.cycle_start, billed.cycle_end, billed.id, billed.invoice_number, billed.billed_at)
            yield Late(metric.code, *when, adjusts=metric.late_policy != LatePolicy.IGNORE)


def _came_after(row: Row[Any], arrival: Arrival) -> bool:
    of_cycle = row.organization_id == arrival.organization_id and row.cycle_start <= arrival.timestamp < row.cycle_end
    return bool(of_cycle and row.billed_at <= arrival.received_at)


def _fed(metric: Metric, arrival: Arrival) -> bool:
    return feeds(meter(metric).at(micros(arrival.timestamp)), properties(msgspec.json.encode(arrival.properties)))


def _billed(session: Session, arrivals: Sequence[Arrival]) -> Sequence[Row[Any]]:
    """The cycles that were over when they were billed, of these organizations and times, by metric; the first invoice first."""
    line, first, last = InvoiceLine, min(one.timestamp for one in arrivals), max(one.timestamp for one in arrivals)
    return session.execute(
        select(line.organization_id, line.metric_id, line.cycle_start, line.cycle_end, Invoice.id, Invoice.invoice_number, BILLED_AT)
        .join(Invoice, Invoice.id == line.invoice_id)
        .join(Organization, Organization.id == Invoice.organization_id)
        .where(
            Invoice.organization_id.in_({one.organization_id for one in arrivals}),
            Invoice.status.not_in(UNBILLED),
            Invoice.finalized_at > first,
            line.metric_id.is_not(None),
            line.cycle_start <= last,
            line.cycle_end > first,
            line.cycle_end <= Invoice.finalized_at,
        )
        .order_by(BILLED_AT, Invoice.id)
    ).all()
