"""Money that arrived by itself: a bank transfer that an operator matches to an invoice by its reference."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.audit import Actor
from core.db import new_id
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.invoicing.models import Invoice
from core.payments.attempts import live_charge, locked_invoice
from core.payments.gateways.base import ChargeOutcome, ChargeStatus
from core.payments.models import BillingTransaction, TransactionStatus, TransactionType
from core.payments.outcomes import PAYABLE, record
from core.payments.provider import MANUAL

REFERENCE_LENGTH_MAX = 200


def record_external(
    session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID, *, amount_minor: int, reference: str, at: datetime, actor: Actor
) -> BillingTransaction:
    """Book a payment of `amount_minor` (minor units of the invoice's currency) that arrived under the bank's `reference`.

    The same reference again, for the same invoice and amount, is the same payment. NotFound for a stranger's invoice, Invalid with
    pointers, Conflict when the reference is used up, nothing can be paid, or a charge of the invoice is on its way.
    """
    if session.scalar(select(Invoice.organization_id).where(Invoice.id == invoice_id)) != organization_id:
        raise NotFound("There is no such invoice.")
    invoice = locked_invoice(session, invoice_id)
    name = _name(organization_id, reference)
    known = session.scalars(
        select(BillingTransaction).where(BillingTransaction.provider == MANUAL, BillingTransaction.provider_transaction_id == name)
    ).one_or_none()
    if known is not None:
        if (known.invoice_id, known.amount_minor) == (invoice_id, amount_minor):
            return known
        raise Conflict(f'The reference "{reference}" is booked already, for another amount or invoice.', code="reference_used")
    if invoice.status not in PAYABLE:
        raise Conflict(f"The invoice is {invoice.status}: it cannot be paid.", code="invoice_not_payable")
    if live_charge(session, invoice_id) is not None:
        raise Conflict("A charge of this invoice is on its way; book the transfer when it is settled.", code="payment_in_progress")
    if not 0 < amount_minor <= invoice.amount_due_minor:
        detail = f"must be more than 0 and at most the {invoice.amount_due_minor} minor units that are due"
        raise Invalid("The payment cannot be booked.", errors=(FieldError("/amount", detail),))
    row = BillingTransaction(
        id=new_id(),
        organization_id=organization_id,
        invoice_id=invoice_id,
        type=TransactionType.CHARGE,
        status=TransactionStatus.PENDING,
        amount_minor=amount_minor,
        currency=invoice.currency,
        provider=MANUAL,
        provider_transaction_id=name,
        reference=reference.strip(),
        created_at=at,
    )
    session.add(row)
    session.flush()
    arrived = ChargeOutcome(ChargeStatus.SUCCEEDED, provider_id=name, amount_minor=amount_minor, currency=invoice.currency)
    return record(session, row.id, arrived, at=at, actor=actor)


def _name(organization_id: uuid.UUID, reference: str) -> str:
    written = " ".join(reference.split())
    if not written or len(written) > REFERENCE_LENGTH_MAX or not written.isprintable():
        detail = f"must have 1 to {REFERENCE_LENGTH_MAX} printable characters"
        raise Invalid("The payment cannot be booked.", errors=(FieldError("/reference", detail),))
    return f"{organization_id}:{written}"
