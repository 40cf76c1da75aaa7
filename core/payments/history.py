"""What an organization pays with and what it has paid: methods in their order of use, attempts behind invoices."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.payments.models import BillingTransaction, PaymentMethod


def methods(session: Session, organization_id: uuid.UUID) -> Sequence[PaymentMethod]:
    """The saved methods, the default first, then newest first; removed ones are left out."""
    return session.scalars(
        select(PaymentMethod)
        .where(PaymentMethod.organization_id == organization_id, PaymentMethod.removed_at.is_(None))
        .order_by(PaymentMethod.is_default.desc(), PaymentMethod.id.desc())
    ).all()


def method_names(session: Session, organization_id: uuid.UUID, method_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, PaymentMethod]:
    """The methods by id, removed ones too, so that an old payment still says what it was made with."""
    rows = session.scalars(select(PaymentMethod).where(PaymentMethod.organization_id == organization_id, PaymentMethod.id.in_(method_ids)))
    return {row.id: row for row in rows}


def transactions(session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID) -> Sequence[BillingTransaction]:
    """Every movement of money and attempt at one for an invoice, newest first."""
    return session.scalars(
        select(BillingTransaction)
        .where(BillingTransaction.organization_id == organization_id, BillingTransaction.invoice_id == invoice_id)
        .order_by(BillingTransaction.id.desc())
    ).all()


def latest_charges(session: Session, organization_id: uuid.UUID, invoice_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, BillingTransaction]:
    """The newest attempt to charge each of the invoices, by invoice; one query."""
    rows = session.scalars(
        select(BillingTransaction)
        .where(
            BillingTransaction.organization_id == organization_id,
            BillingTransaction.invoice_id.in_(invoice_ids),
            BillingTransaction.type == "charge",
        )
        .order_by(BillingTransaction.invoice_id, BillingTransaction.id)
    )
    return {row.invoice_id: row for row in rows if row.invoice_id is not None}


def last_use(session: Session, organization_id: uuid.UUID) -> dict[uuid.UUID, BillingTransaction]:
    """The newest charge with each payment method, by method; one query."""
    rows = session.scalars(
        select(BillingTransaction)
        .where(BillingTransaction.organization_id == organization_id, BillingTransaction.payment_method_id.is_not(None))
        .distinct(BillingTransaction.payment_method_id)
        .order_by(BillingTransaction.payment_method_id, BillingTransaction.id.desc())
    )
    return {row.payment_method_id: row for row in rows if row.payment_method_id is not None}
