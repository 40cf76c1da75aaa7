"""The annex of an invoice: what was used on each day of the billed window, in the customer's time zone."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy.orm import Session

from core import rendering
from core.invoicing.document import UsageTable
from core.invoicing.models import Invoice, InvoiceLine, LineKind
from core.metering import queries as metering
from core.periods import local_date, midnight

METRICS_MAX = 6
DAYS_MAX = 31


def daily_usage(session: Session, invoice: Invoice) -> UsageTable | None:
    """Days down, metrics across, for the usage charged on the invoice; None without usage or when it does not fit on a page.

    The last row shows the quantities billed. A metric that is not a sum (a maximum, a count of distinct values) need not add up to it.
    """
    lines = [line for line in invoice.lines if line.metric_id is not None and line.kind == LineKind.CHARGE][:METRICS_MAX]
    if not lines:
        return None
    start, end = min(_start(line) for line in lines), max(_end(line) for line in lines)
    days = _days(start, end, invoice.timezone)
    if len(days) > DAYS_MAX:
        return None
    wanted = {(line.id, day): _part(invoice.organization_id, line, day, invoice.timezone) for line in lines for day in days}
    asked = {question for question in wanted.values() if question is not None}
    found = metering.usage_sums(session, asked) if asked else {}
    rows = tuple(
        (rendering.date(day), *(_quantity(found.get(question)) if (question := wanted[line.id, day]) else "" for line in lines))
        for day in days
    )
    heads = (f"Day, {invoice.timezone}", *(f"{line.name}, {line.unit}" if line.unit else line.name for line in lines))
    return UsageTable(heads, rows, ("Billed", *(rendering.quantity(line.quantity) for line in lines)))


def _part(
    organization_id: uuid.UUID, line: InvoiceLine, day: date, timezone: str
) -> tuple[uuid.UUID | str, uuid.UUID | str, datetime, datetime] | None:
    """The usage question for the part of the day inside the line's window."""
    start = max(_start(line), midnight(day, timezone))
    end = min(_end(line), midnight(day + timedelta(days=1), timezone))
    return (organization_id, line.metric_id, start, end) if line.metric_id is not None and start < end else None


def _days(start: datetime, end: datetime, timezone: str) -> list[date]:
    first, last = local_date(start, timezone), local_date(end - timedelta(microseconds=1), timezone)
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]


def _quantity(quantity: Decimal | None) -> str:
    return rendering.quantity(quantity or Decimal(0))


def _start(line: InvoiceLine) -> datetime:
    if line.window_start is None:
        raise ValueError(f"usage line {line.id} has no window")
    return line.window_start


def _end(line: InvoiceLine) -> datetime:
    if line.window_end is None:
        raise ValueError(f"usage line {line.id} has no window")
    return line.window_end
