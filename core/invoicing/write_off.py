"""Writing off: an open invoice nobody expects to be paid becomes uncollectible; what is due moves from the receivable to bad debt.

The claim stands: money that arrives later is a recovery, which takes the write-off back by as much (IFRS 9 5.4.4).
"""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import InvalidTransition
from core.invoicing.models import Invoice, InvoiceStatus
from core.invoicing.void import lock, move, refuse_while_charged
from core.ledger import post
from core.ledger.models import AccountCode


def write_off(session: Session, invoice_id: uuid.UUID, *, at: datetime, actor: Actor, reason: str | None = None) -> Invoice:
    """Give up on what is due of an open invoice; asked again, nothing changes. Nobody tries to collect it any more.

    InvalidTransition for an invoice that is not open, Conflict while a charge is on its way.
    """
    invoice = lock(session, invoice_id)
    if invoice.status == InvoiceStatus.UNCOLLECTIBLE:
        return invoice
    if invoice.status != InvoiceStatus.OPEN:
        raise InvalidTransition(f"Only an open invoice can be written off; this one is {invoice.status}.")
    refuse_while_charged(session, invoice_id)
    move(invoice, InvoiceStatus.UNCOLLECTIBLE)
    invoice.next_collect_at = None
    _post(session, invoice, "write_off", invoice, -invoice.amount_due_minor, at)
    audit.record(
        session,
        actor,
        "invoice.written_off",
        invoice,
        at=at,
        reason=reason,
        number=invoice.invoice_number,
        amount_due_minor=invoice.amount_due_minor,
        currency=invoice.currency,
    )
    return invoice


def recover(session: Session, invoice: Invoice, subject: post.Subject, *, amount_minor: int, at: datetime) -> None:
    """Take the write-off back by `amount_minor`, which `subject` settled (negative: gave back). Nothing for other invoices.

    Call it before the payment changes the invoice's status, in the same transaction.
    """
    if invoice.status == InvoiceStatus.UNCOLLECTIBLE and amount_minor:
        _post(session, invoice, "recovery", subject, amount_minor, at)


def _post(session: Session, invoice: Invoice, kind: str, subject: post.Subject, amount_minor: int, at: datetime) -> None:
    post.post(
        session,
        organization_id=invoice.organization_id,
        kind=kind,
        subject=subject,
        entries=[(AccountCode.RECEIVABLE, amount_minor), (AccountCode.WRITE_OFF, -amount_minor)],
        currency=invoice.currency,
        at=at,
        description=f"{kind.replace('_', '-').capitalize()} of invoice {invoice.invoice_number}",
    )
