"""What money does to an invoice: paid in part, paid, or owed again. The payment itself is booked by whoever received it."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, Invalid
from core.invoicing.models import Invoice, InvoiceStatus
from core.invoicing.void import lock, move

PAYABLE = (InvoiceStatus.OPEN, InvoiceStatus.UNCOLLECTIBLE)


def apply_payment(session: Session, invoice: Invoice | uuid.UUID, *, amount_minor: int, at: datetime, actor: Actor) -> Invoice:
    """Count `amount_minor` as paid on the invoice, which is locked; when nothing is due any more it is paid.

    Call it once per payment, in the transaction that records the payment. Conflict when the invoice cannot be paid, Invalid when more
    than is due would be paid.
    """
    locked = lock(session, invoice.id if isinstance(invoice, Invoice) else invoice)
    if locked.status not in PAYABLE:
        raise Conflict(f"The invoice is {locked.status}: it cannot be paid.", code="invoice_not_payable")
    if not 0 < amount_minor <= locked.amount_due_minor:
        raise Invalid(f"A payment must be between 1 and the {locked.amount_due_minor} minor units that are due.")
    locked.amount_paid_minor += amount_minor
    locked.amount_due_minor -= amount_minor
    paid = locked.amount_due_minor == 0
    if paid:
        move(locked, InvoiceStatus.PAID)
        locked.paid_at, locked.next_collect_at = at, None
    _record(session, locked, "invoice.paid" if paid else "invoice.partially_paid", amount_minor, at, actor)
    return locked


def reverse(
    session: Session, invoice: Invoice | uuid.UUID, *, amount_minor: int, at: datetime, actor: Actor, reopen: bool = False
) -> Invoice:
    """Take back `amount_minor` of what was paid. A refund leaves a paid invoice paid; with `reopen` (a returned debit) it is owed again.

    Invalid when less than that was paid.
    """
    locked = lock(session, invoice.id if isinstance(invoice, Invoice) else invoice)
    if not 0 < amount_minor <= locked.amount_paid_minor:
        raise Invalid(f"At most {locked.amount_paid_minor} minor units were paid on this invoice.")
    locked.amount_paid_minor -= amount_minor
    locked.amount_due_minor += amount_minor
    if reopen and locked.status == InvoiceStatus.PAID:
        move(locked, InvoiceStatus.OPEN)
        locked.paid_at = None
    _record(session, locked, "invoice.payment_reversed", amount_minor, at, actor)
    return locked


def _record(session: Session, invoice: Invoice, kind: str, amount_minor: int, at: datetime, actor: Actor) -> None:
    session.flush()
    audit.record(
        session,
        actor,
        kind,
        invoice,
        at=at,
        number=invoice.invoice_number,
        currency=invoice.currency,
        amount_minor=amount_minor,
        amount_paid_minor=invoice.amount_paid_minor,
        amount_due_minor=invoice.amount_due_minor,
    )
