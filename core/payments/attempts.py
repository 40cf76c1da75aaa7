"""A charge on its way: the committed row, what the provider is told of it, and the locks and moves every step goes through."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import InvalidTransition, NotFound
from core.invoicing.models import Invoice
from core.payments.models import LIVE, TRANSITIONS, BillingTransaction, PaymentMethod, TransactionStatus, TransactionType
from core.subscriptions.models import Subscription

Status = TransactionStatus


@dataclass(frozen=True, slots=True)
class Attempt:
    """What `charge` and the resolver need; plain values, so that no database is in reach while the provider is asked."""

    id: uuid.UUID
    organization_id: uuid.UUID
    invoice_id: uuid.UUID
    provider: str
    provider_id: str | None
    customer: str
    payment_method: str
    amount_minor: int
    currency: str
    description: str
    status: TransactionStatus
    made_at: datetime
    """Machine time at which the row was made, whatever clock the organization lives by."""
    return_url: str | None = None
    """Set when the cardholder is there: where the bank's page sends them back to."""


def locked_transaction(session: Session, transaction_id: uuid.UUID) -> tuple[BillingTransaction, Invoice | None, Subscription | None]:
    """The transaction with its invoice and subscription, all locked, in the order billing takes them; NotFound."""
    found = session.execute(
        select(BillingTransaction.invoice_id, Invoice.subscription_id)
        .outerjoin(Invoice, Invoice.id == BillingTransaction.invoice_id)
        .where(BillingTransaction.id == transaction_id)
    ).one_or_none()
    if found is None:
        raise NotFound("There is no such transaction.")
    subscription = session.scalars(
        select(Subscription)
        .where(Subscription.id == found.subscription_id)
        .with_for_update(of=Subscription)
        .execution_options(populate_existing=True)
    ).one_or_none()
    invoice = locked_invoice(session, found.invoice_id) if found.invoice_id else None
    return session.get_one(BillingTransaction, transaction_id, with_for_update=True, populate_existing=True), invoice, subscription


def locked_invoice(session: Session, invoice_id: uuid.UUID) -> Invoice:
    """The invoice, locked and as committed; NotFound."""
    invoice = session.get(Invoice, invoice_id, with_for_update=True, populate_existing=True)
    if invoice is None:
        raise NotFound("There is no such invoice.")
    return invoice


def live_charge(session: Session, invoice_id: uuid.UUID) -> BillingTransaction | None:
    """The attempt whose outcome is still open; while there is one, no other may begin."""
    return session.scalars(
        select(BillingTransaction).where(
            BillingTransaction.invoice_id == invoice_id,
            BillingTransaction.type == TransactionType.CHARGE,
            BillingTransaction.status.in_(LIVE),
        )
    ).one_or_none()


def attempt_of(row: BillingTransaction, method: PaymentMethod, *, description: str, return_url: str | None = None) -> Attempt:
    """The attempt behind a charge's row."""
    if row.invoice_id is None or method.provider_customer_id is None:
        raise NotFound("There is no such charge.")
    return Attempt(
        id=row.id,
        organization_id=row.organization_id,
        invoice_id=row.invoice_id,
        provider=row.provider,
        provider_id=row.provider_transaction_id,
        customer=method.provider_customer_id,
        payment_method=method.provider_payment_method_id,
        amount_minor=row.amount_minor,
        currency=row.currency,
        description=description,
        status=Status(row.status),
        made_at=made_at(row.id),
        return_url=return_url,
    )


def made_at(row_id: uuid.UUID) -> datetime:
    """The machine time in a UUIDv7 (RFC 9562): when the row was made."""
    return datetime.fromtimestamp((row_id.int >> 80) / 1000, UTC)


def move(row: BillingTransaction, to: TransactionStatus) -> bool:
    """Change the status; False when it is there already, InvalidTransition where TRANSITIONS has no such move."""
    before = Status(row.status)
    if before is to:
        return False
    if to not in TRANSITIONS[before]:
        raise InvalidTransition(f"A transaction that is {before} cannot become {to}.")
    row.status = to
    return True
