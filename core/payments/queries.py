"""Reading payments: methods, transactions, and what waits to be done."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.identity.models import Organization
from core.invoicing.models import Invoice, InvoiceStatus
from core.payments.models import LIVE, BillingTransaction, InboundEvent, PaymentMethod, TransactionStatus, TransactionType
from core.payments.outcomes import CONTRADICTION
from core.payments.resolve import REQUEST_TIME_MAX

PAGE_SIZE_MAX = 200


def methods(session: Session, organization_id: uuid.UUID) -> Sequence[PaymentMethod]:
    """The organization's saved methods, the default first, then the newest."""
    return session.scalars(
        select(PaymentMethod)
        .where(PaymentMethod.organization_id == organization_id, PaymentMethod.removed_at.is_(None))
        .order_by(PaymentMethod.is_default.desc(), PaymentMethod.id.desc())
    ).all()


def method(session: Session, organization_id: uuid.UUID, method_id: uuid.UUID) -> PaymentMethod:
    """One saved method; NotFound also for a stranger's and for a removed one."""
    found = session.scalars(
        select(PaymentMethod).where(
            PaymentMethod.organization_id == organization_id, PaymentMethod.id == method_id, PaymentMethod.removed_at.is_(None)
        )
    ).one_or_none()
    if found is None:
        raise NotFound("There is no such payment method.")
    return found


def default_method(session: Session, organization_id: uuid.UUID) -> PaymentMethod | None:
    """The method that is charged unless another is agreed."""
    return session.scalars(
        select(PaymentMethod).where(
            PaymentMethod.organization_id == organization_id, PaymentMethod.is_default, PaymentMethod.removed_at.is_(None)
        )
    ).one_or_none()


def transaction(session: Session, organization_id: uuid.UUID, transaction_id: uuid.UUID) -> BillingTransaction:
    """One movement of money; NotFound also for a stranger's."""
    found = session.scalars(
        select(BillingTransaction).where(BillingTransaction.organization_id == organization_id, BillingTransaction.id == transaction_id)
    ).one_or_none()
    if found is None:
        raise NotFound("There is no such transaction.")
    return found


def transactions(
    session: Session,
    organization_id: uuid.UUID,
    *,
    invoice_ids: Collection[uuid.UUID] | None = None,
    before_id: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[BillingTransaction]:
    """Movements of money and attempts, newest first; of some invoices only, the page behind `before_id`."""
    wanted = select(BillingTransaction).where(BillingTransaction.organization_id == organization_id)
    if invoice_ids is not None:
        wanted = wanted.where(BillingTransaction.invoice_id.in_(invoice_ids))
    if before_id is not None:
        wanted = wanted.where(BillingTransaction.id < before_id)
    return session.scalars(wanted.order_by(BillingTransaction.id.desc()).limit(min(limit, PAGE_SIZE_MAX))).all()


def all_transactions(
    session: Session,
    *,
    status: Collection[TransactionStatus] | None = None,
    type_: TransactionType | None = None,
    organization_id: uuid.UUID | None = None,
    before_id: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[tuple[BillingTransaction, Organization, Invoice | None]]:
    """Everybody's (or one account's), newest first, with account and invoice: for operators only."""
    wanted = (
        select(BillingTransaction, Organization, Invoice)
        .join(Organization, Organization.id == BillingTransaction.organization_id)
        .outerjoin(Invoice, Invoice.id == BillingTransaction.invoice_id)
    )
    if status is not None:
        wanted = wanted.where(BillingTransaction.status.in_(status))
    if type_ is not None:
        wanted = wanted.where(BillingTransaction.type == type_)
    if organization_id is not None:
        wanted = wanted.where(BillingTransaction.organization_id == organization_id)
    if before_id is not None:
        wanted = wanted.where(BillingTransaction.id < before_id)
    rows = session.execute(wanted.order_by(BillingTransaction.id.desc()).limit(min(limit, PAGE_SIZE_MAX))).all()
    return [(row[0], row[1], row[2]) for row in rows]


def failures_by_reason(session: Session, *, since: datetime) -> Sequence[tuple[str, str, int, int]]:
    """Failed charges since then by (reason, currency): how many, and how much in minor units."""
    rows = session.execute(
        select(BillingTransaction.failure_reason, BillingTransaction.currency, func.count(), func.sum(BillingTransaction.amount_minor))
        .where(BillingTransaction.type == TransactionType.CHARGE, BillingTransaction.status == TransactionStatus.FAILED)
        .where(BillingTransaction.created_at >= since)
        .group_by(BillingTransaction.failure_reason, BillingTransaction.currency)
        .order_by(func.count().desc())
    ).all()
    return [(row[0] or "", row[1], int(row[2]), int(row[3])) for row in rows]


def due_invoice_ids(session: Session, *, as_of: datetime, limit: int = 500) -> Sequence[uuid.UUID]:
    """Open invoices of organizations in real time whose next try has come, the longest waiting first."""
    return session.scalars(
        select(Invoice.id)
        .join(Organization, Organization.id == Invoice.organization_id)
        .where(Invoice.status == InvoiceStatus.OPEN, Invoice.next_collect_at <= as_of, Organization.test_clock_id.is_(None))
        .order_by(Invoice.next_collect_at)
        .limit(limit)
    ).all()


def unresolved_ids(session: Session, *, now: datetime, older_than: timedelta = REQUEST_TIME_MAX, limit: int = 500) -> Sequence[uuid.UUID]:
    """Charges and refunds whose outcome has been open for a while (machine time), each to be looked up; `resolve` notes when it last was.

    The pause between two look-ups grows with the age, to a tenth of it: a bank debit of five days is asked for some seventy times.
    """
    looked_up = func.extract("epoch", BillingTransaction.updated_at)
    made = func.extract("epoch", func.uuid_extract_timestamp(BillingTransaction.id))
    return session.scalars(
        select(BillingTransaction.id)
        .where(
            BillingTransaction.status.in_(LIVE),
            BillingTransaction.updated_at < now - older_than,
            10 * (now.timestamp() - looked_up) >= now.timestamp() - made,
            or_(BillingTransaction.failure_code.is_(None), BillingTransaction.failure_code != CONTRADICTION),
        )
        .order_by(BillingTransaction.updated_at)
        .limit(limit)
    ).all()


def pending_inbound(session: Session, *, now: datetime, limit: int = 500) -> Sequence[int]:
    """Stored events that are to be handled now."""
    return session.scalars(
        select(InboundEvent.id)
        .where(InboundEvent.processed_at.is_(None), or_(InboundEvent.next_try_at.is_(None), InboundEvent.next_try_at <= now))
        .order_by(InboundEvent.id)
        .limit(limit)
    ).all()


def organization_of_invoice(session: Session, invoice_id: uuid.UUID) -> Organization:
    """Whose invoice it is, for the time they live in; NotFound."""
    found = session.scalars(
        select(Organization).join(Invoice, Invoice.organization_id == Organization.id).where(Invoice.id == invoice_id)
    ).one_or_none()
    if found is None:
        raise NotFound("There is no such invoice.")
    return found


def all_methods(session: Session, organization_id: uuid.UUID) -> dict[uuid.UUID, PaymentMethod]:
    """Every method by id, removed ones too, so that an old payment still says what it was made with."""
    return {row.id: row for row in session.scalars(select(PaymentMethod).where(PaymentMethod.organization_id == organization_id))}


def methods_by_id(session: Session, method_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, PaymentMethod]:
    """Methods of any account, removed ones too: for operators only."""
    return {row.id: row for row in session.scalars(select(PaymentMethod).where(PaymentMethod.id.in_(method_ids)))}


def last_use(session: Session, organization_id: uuid.UUID) -> dict[uuid.UUID, BillingTransaction]:
    """The newest charge with each payment method, by method; one query."""
    rows = session.scalars(
        select(BillingTransaction)
        .where(BillingTransaction.organization_id == organization_id, BillingTransaction.payment_method_id.is_not(None))
        .ext(distinct_on(BillingTransaction.payment_method_id))
        .order_by(BillingTransaction.payment_method_id, BillingTransaction.id.desc())
    )
    return {row.payment_method_id: row for row in rows if row.payment_method_id is not None}


def chargeable_drafts(session: Session, run_id: uuid.UUID) -> int:
    """How many drafts of an invoice run will be charged by themselves once they are finalized."""
    has_method = select(PaymentMethod.id).where(
        PaymentMethod.organization_id == Invoice.organization_id, PaymentMethod.is_default, PaymentMethod.removed_at.is_(None)
    )
    return (
        session.scalar(
            select(func.count())
            .select_from(Invoice)
            .join(Organization, Organization.id == Invoice.organization_id)
            .where(Invoice.run_id == run_id, Invoice.status == InvoiceStatus.DRAFT, Invoice.held_reason.is_(None), Invoice.total_minor > 0)
            .where(Organization.auto_collect, has_method.exists())
        )
        or 0
    )
