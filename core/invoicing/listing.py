"""An organization's invoices as its own people look for them: filtered, in pages, with what is due now and overdue."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from core.identity.models import Organization
from core.invoicing.models import Invoice, InvoiceDocument, InvoiceLine, InvoiceStatus

OVERDUE = "overdue"
"""Not a status of its own: an open invoice past its due date, on the customer's calendar."""


@dataclass(frozen=True, slots=True)
class Dues:
    """What is open in one currency, minor units; `overdue_minor` is part of `due_minor`."""

    currency: str
    due_minor: int
    due_count: int
    overdue_minor: int
    overdue_count: int


def invoices(
    session: Session,
    organization_id: uuid.UUID,
    *,
    on: date,
    status: str | None = None,
    year: int | None = None,
    text: str = "",
    after: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[Invoice]:
    """Issued invoices, newest first, those behind the id `after`; drafts are not shown to customers.

    `status` is an InvoiceStatus or "overdue" as of the local day `on`; `text` is part of the number or the PO number.
    """
    wanted = select(Invoice).where(Invoice.organization_id == organization_id, Invoice.finalized_at.is_not(None))
    if status:
        wanted = wanted.where(_is_overdue(on) if status == OVERDUE else Invoice.status == status)
    if year:
        wanted = wanted.where(Invoice.issue_date >= date(year, 1, 1), Invoice.issue_date <= date(year, 12, 31))
    if text:
        wanted = wanted.where(
            or_(Invoice.invoice_number.icontains(text, autoescape=True), Invoice.po_number.icontains(text, autoescape=True))
        )
    if after:
        edge = select(Invoice.finalized_at).where(Invoice.organization_id == organization_id, Invoice.id == after).scalar_subquery()
        wanted = wanted.where(or_(Invoice.finalized_at < edge, and_(Invoice.finalized_at == edge, Invoice.id < after)))
    return session.scalars(wanted.order_by(Invoice.finalized_at.desc(), Invoice.id.desc()).limit(limit)).all()


def years(session: Session, organization_id: uuid.UUID) -> Sequence[int]:
    """The calendar years in which invoices were issued, newest first."""
    year = func.extract("year", Invoice.issue_date)
    wanted = select(year).where(Invoice.organization_id == organization_id, Invoice.issue_date.is_not(None)).distinct()
    return [int(found) for found in session.scalars(wanted.order_by(year.desc()))]


def dues(session: Session, organization_id: uuid.UUID, *, on: date) -> Sequence[Dues]:
    """What is due and overdue on the local day `on`, a row for each currency."""
    late = _is_overdue(on)
    rows = session.execute(
        select(
            Invoice.currency,
            func.sum(Invoice.amount_due_minor),
            func.count(),
            func.coalesce(func.sum(Invoice.amount_due_minor).filter(late), 0),
            func.count().filter(late),
        )
        .where(Invoice.organization_id == organization_id, Invoice.status == InvoiceStatus.OPEN)
        .group_by(Invoice.currency)
        .order_by(Invoice.currency)
    )
    return [Dues(currency, int(due), count, int(late_sum), late_count) for currency, due, count, late_sum, late_count in rows]


def lines_of_year(session: Session, organization_id: uuid.UUID, year: int) -> Sequence[tuple[Invoice, InvoiceLine]]:
    """Every line of the invoices issued in a calendar year, with its invoice, oldest first; void ones are left out."""
    wanted = (
        select(Invoice, InvoiceLine)
        .join(InvoiceLine, InvoiceLine.invoice_id == Invoice.id)
        .where(Invoice.organization_id == organization_id, Invoice.status != InvoiceStatus.VOID)
        .where(Invoice.issue_date >= date(year, 1, 1), Invoice.issue_date <= date(year, 12, 31))
        .order_by(Invoice.finalized_at, Invoice.id, InvoiceLine.position)
    )
    return [(invoice, line) for invoice, line in session.execute(wanted)]


def document_bytes(session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID) -> int | None:
    """The size of the invoice's PDF in bytes; None while it has not been printed."""
    mine = InvoiceDocument.organization_id == organization_id, InvoiceDocument.invoice_id == invoice_id
    return session.scalar(select(func.octet_length(InvoiceDocument.content)).where(*mine))


def open_invoices(session: Session, organization_id: uuid.UUID, *, limit: int = 5) -> Sequence[Invoice]:
    """What is still to be paid, the longest due first."""
    wanted = select(Invoice).where(Invoice.organization_id == organization_id, Invoice.status == InvoiceStatus.OPEN)
    return session.scalars(wanted.order_by(Invoice.due_date, Invoice.id).limit(limit)).all()


def overdue_count(session: Session, organization_id: uuid.UUID, *, on: date | datetime) -> int:
    """How many invoices are past their due date; an instant is read in the organization's timezone."""
    if isinstance(on, datetime):
        zone = session.get_one(Organization, organization_id).timezone
        on = on.astimezone(ZoneInfo(zone)).date()
    wanted = select(func.count()).select_from(Invoice).where(Invoice.organization_id == organization_id, _is_overdue(on))
    return session.scalar(wanted) or 0


def is_overdue(invoice: Invoice, *, on: date) -> bool:
    """Whether the invoice is open past its due date on the local day `on`."""
    return invoice.status == InvoiceStatus.OPEN and invoice.due_date is not None and invoice.due_date < on


def _is_overdue(on: date) -> ColumnElement[bool]:
    return and_(Invoice.status == InvoiceStatus.OPEN, Invoice.due_date < on)
