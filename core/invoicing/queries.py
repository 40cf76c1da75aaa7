"""Reading invoices; everything a page or the API shows is loaded."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, selectinload

from core.errors import NotFound
from core.identity.models import Organization
from core.invoicing.credit_models import CreditApplication
from core.invoicing.models import Invoice, InvoiceDocument, InvoiceLine, InvoiceStatus
from core.subscriptions.models import Subscription

PAGE_SIZE_MAX = 200


def invoice(session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID) -> Invoice:
    """One invoice of the organization with lines and taxes; NotFound also for another's."""
    return _one(session, select(Invoice).where(Invoice.organization_id == organization_id, Invoice.id == invoice_id))


def invoice_by_number(session: Session, organization_id: uuid.UUID, number: str) -> Invoice:
    """The same by its number."""
    return _one(session, select(Invoice).where(Invoice.organization_id == organization_id, Invoice.invoice_number == number))


def any_invoice(session: Session, invoice_id: uuid.UUID) -> Invoice:
    """One invoice of any organization, with lines and taxes: for operators and workers only."""
    return _one(session, select(Invoice).where(Invoice.id == invoice_id))


def line(session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID, line_id: uuid.UUID) -> InvoiceLine:
    """One line of an invoice of the organization; NotFound."""
    found = session.scalars(
        select(InvoiceLine).where(
            InvoiceLine.organization_id == organization_id, InvoiceLine.invoice_id == invoice_id, InvoiceLine.id == line_id
        )
    ).one_or_none()
    if found is None:
        raise NotFound("There is no such line.")
    return found


def invoices(
    session: Session,
    organization_id: uuid.UUID,
    *,
    status: InvoiceStatus | None = None,
    subscription_id: uuid.UUID | None = None,
    before_id: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[Invoice]:
    """The organization's invoices, newest first, with lines and taxes; the page behind `before_id`."""
    wanted = select(Invoice).where(Invoice.organization_id == organization_id)
    if subscription_id is not None:
        wanted = wanted.where(Invoice.subscription_id == subscription_id)
    return _page(session, wanted, status, before_id, limit)


def all_invoices(
    session: Session, *, status: InvoiceStatus | None = None, before_id: uuid.UUID | None = None, limit: int = 50
) -> Sequence[Invoice]:
    """Invoices of every organization, newest first: for operators only."""
    return _page(session, select(Invoice), status, before_id, limit)


def document(session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID) -> InvoiceDocument:
    """The stored PDF of an invoice; NotFound while it has not been rendered."""
    found = session.scalars(
        select(InvoiceDocument).where(InvoiceDocument.organization_id == organization_id, InvoiceDocument.invoice_id == invoice_id)
    ).one_or_none()
    if found is None:
        raise NotFound("The document is not there yet.", code="document_not_ready")
    return found


def credits_used(session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID) -> Sequence[CreditApplication]:
    """The account credits that were set against the invoice."""
    return session.scalars(
        select(CreditApplication)
        .where(CreditApplication.organization_id == organization_id, CreditApplication.invoice_id == invoice_id)
        .order_by(CreditApplication.id)
    ).all()


def owner(session: Session, invoice_id: uuid.UUID) -> Organization:
    """The organization an invoice belongs to, in whose time it lives; NotFound."""
    return _owner(session, select(Organization).join(Invoice, Invoice.organization_id == Organization.id).where(Invoice.id == invoice_id))


def owner_names(session: Session, organization_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    """Names of organizations, for lists over many accounts: for operators only."""
    rows = session.execute(select(Organization.id, Organization.name).where(Organization.id.in_(organization_ids)))
    return {row[0]: row[1] for row in rows}


def lines_at(
    session: Session, organization_id: uuid.UUID, metric_ids: Collection[uuid.UUID], at: datetime
) -> dict[uuid.UUID, list[tuple[InvoiceLine, Invoice]]]:
    """The lines that bill the metrics' usage of the instant `at`, by metric, with their invoices; void ones are left out."""
    covers = InvoiceLine.window_start <= at, InvoiceLine.window_end > at
    rows = session.execute(
        select(InvoiceLine, Invoice)
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .where(InvoiceLine.organization_id == organization_id, InvoiceLine.metric_id.in_(metric_ids), *covers)
        .where(Invoice.status != InvoiceStatus.VOID)
        .order_by(Invoice.id)
    ).all()
    found: dict[uuid.UUID, list[tuple[InvoiceLine, Invoice]]] = {}
    for line_, invoice_ in rows:
        if line_.metric_id is not None:
            found.setdefault(line_.metric_id, []).append((line_, invoice_))
    return found


def previous(session: Session, of: Invoice) -> Invoice | None:
    """The subscription's issued invoice before `of`, with lines and taxes; None for the first one and for invoices by hand."""
    if of.subscription_id is None or of.billing_period_start is None:
        return None
    wanted = select(Invoice).where(
        Invoice.organization_id == of.organization_id,
        Invoice.subscription_id == of.subscription_id,
        Invoice.status.not_in((InvoiceStatus.DRAFT, InvoiceStatus.VOID)),
        Invoice.billing_period_start < of.billing_period_start,
    )
    loaded = wanted.options(selectinload(Invoice.lines), selectinload(Invoice.taxes))
    return session.scalars(loaded.order_by(Invoice.billing_period_start.desc(), Invoice.id.desc()).limit(1)).one_or_none()


def subscriber(session: Session, subscription_id: uuid.UUID) -> Organization:
    """The organization a subscription belongs to, in whose time it lives; NotFound."""
    of = select(Organization).join(Subscription, Subscription.organization_id == Organization.id)
    return _owner(session, of.where(Subscription.id == subscription_id))


def _one(session: Session, wanted: Select[Invoice]) -> Invoice:
    loaded = wanted.options(selectinload(Invoice.lines), selectinload(Invoice.taxes)).execution_options(populate_existing=True)
    found = session.scalars(loaded).one_or_none()
    if found is None:
        raise NotFound("There is no such invoice.")
    return found


def _page(
    session: Session, wanted: Select[Invoice], status: InvoiceStatus | None, before_id: uuid.UUID | None, limit: int
) -> Sequence[Invoice]:
    if status is not None:
        wanted = wanted.where(Invoice.status == status)
    if before_id is not None:
        wanted = wanted.where(Invoice.id < before_id)
    loaded = wanted.options(selectinload(Invoice.lines), selectinload(Invoice.taxes)).execution_options(populate_existing=True)
    return session.scalars(loaded.order_by(Invoice.id.desc()).limit(min(limit, PAGE_SIZE_MAX))).all()


def _owner(session: Session, wanted: Select[Organization]) -> Organization:
    found = session.scalars(wanted).one_or_none()
    if found is None:
        raise NotFound("There is no such organization.")
    return found
