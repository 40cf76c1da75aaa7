"""What issued invoices billed against what is counted now: the step of the proof behind core.metering.recount.

Each line of usage keeps what it was priced with. That is measured anew, part by part, for metrics whose quantities add up. While a cycle
can still change, a difference is late usage or a correction, and waits for its adjustment; after that it is a fault. A quantity that costs
what was billed, such as one in the same package, is no difference.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from core.identity.models import Organization
from core.invoicing.billed import UNBILLED
from core.invoicing.models import Invoice, InvoiceLine
from core.metering import answers
from core.metering.models import LatePolicy, Metric
from core.metering.queries import usage_sums
from core.metering.sampling import Told
from core.money import plain
from core.pricing import replay
from core.pricing.usage import Events, Grouped, Usage

LINES_MAX = 20_000
"""Compared at once; a day of more is compared for its first so many."""
Window = tuple[uuid.UUID, uuid.UUID, datetime, datetime]


@dataclass(frozen=True, slots=True)
class Compared:
    """`lines` of usage were compared, of which `waiting` differ and will be adjusted; `differences` will not. `left_out`: no sums."""

    lines: int
    waiting: int
    left_out: int
    differences: tuple[Told, ...]


def compare(
    session: Session,
    *,
    start: datetime,
    end: datetime,
    at: datetime,
    adjustment_days: int,
    organization_numbers: Collection[int] | None = None,
) -> Compared:
    """Compare the lines of issued invoices whose window touches [start, end), the newest of each price and cycle, in real time `at`."""
    found = _lines(session, start, end, organization_numbers)
    billed: list[tuple[Any, list[Window], Decimal]] = []
    left_out = 0
    for row in found:
        priced = _priced(row)
        billed += [] if priced is None else [(row, *priced)]
        left_out += priced is None
    counted = usage_sums(session, {window for _, windows, _ in billed for window in windows})
    differing = [
        (row, quantity, now)
        for row, windows, quantity in billed
        if (now := sum((counted[window] for window in windows), Decimal(0))) != quantity and not _costs_as_much(row.detail, now)
    ]
    closed = [entry for entry in differing if entry[0].cycle_end + timedelta(days=adjustment_days) <= at]
    told = tuple(
        Told(row.slug, row.metric, f"invoice {row.number}", row.code, f"{quantity:f} billed", f"{now:f} counted")
        for row, quantity, now in closed
    )
    return Compared(len(billed), len(differing) - len(closed), left_out, told)


def _lines(session: Session, start: datetime, end: datetime, numbers: Collection[int] | None) -> Sequence[Any]:
    line, o = InvoiceLine, Organization
    key = (line.subscription_id, line.pricing_rule_id, line.cycle_start)
    query = (
        select(
            *(line.organization_id, line.metric_id, line.code, line.cycle_end, line.detail),
            *(Invoice.invoice_number.label("number"), o.slug, Metric.code.label("metric"), Metric),
        )
        .join(Invoice, Invoice.id == line.invoice_id)
        .join(Metric, Metric.id == line.metric_id)
        .join(Organization, o.id == line.organization_id)
        .where(
            line.pricing_rule_id.is_not(None),
            line.window_start < end,
            line.window_end > start,
            Invoice.status.not_in(UNBILLED),
            Metric.late_policy != LatePolicy.IGNORE,
            o.test_clock_id.is_(None),
        )
        .ext(distinct_on(*key))
        .order_by(*key, Invoice.finalized_at.desc(), line.id.desc())
        .limit(LINES_MAX)
    )
    return session.execute(query if numbers is None else query.where(o.number.in_(numbers))).all()


def _priced(row: Any) -> tuple[list[Window], Decimal] | None:
    """The windows a line was priced from and the quantity they had together; None when it is not one that adds up."""
    if not answers.adds_up(row.Metric) or row.detail.get("measure", "flow") != "flow" or "parts" not in row.detail:
        return None
    windows: list[Window] = []
    total = Decimal(0)
    try:
        for periods, usage in replay.usages(row.detail):
            quantity = _quantity(usage)
            if quantity is None:
                return None
            windows += [(row.organization_id, row.metric_id, period.start, period.end) for period in periods]
            total += quantity
    except (ValueError, KeyError):  # more events than a line keeps
        return None
    return windows, total


def _costs_as_much(detail: Mapping[str, Any], counted: Decimal) -> bool:
    """Whether the line, priced with what is counted now, comes to the same: then nothing was or will be adjusted."""
    if len(detail["parts"]) != 1 or "usage" in detail:
        return False
    stored = detail["parts"][0]
    billable = max(counted - Decimal(stored.get("included", "0")), Decimal(0))
    found = [replay.again({**detail, "parts": [part]}, detail["currency"]) for part in (stored, {**stored, "quantity": plain(billable)})]
    return len({entry.minor for entry in found if entry is not None}) == 1


def _quantity(usage: Usage) -> Decimal | None:
    match usage:
        case Decimal():
            return usage
        case Grouped():
            return sum(usage.quantities.values(), Decimal(0))
        case Events():
            return sum(usage.amounts, Decimal(0))
    return None
