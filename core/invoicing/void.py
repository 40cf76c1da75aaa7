"""Voiding: an open invoice is taken back whole. Its number stays, its lines no longer count as billed, the books are reversed."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, InvalidTransition, NotFound
from core.invoicing import account_credits
from core.invoicing.models import TRANSITIONS, Invoice, InvoiceStatus
from core.ledger import post
from core.ledger.models import AccountCode

# Payments stand above invoicing, so their table is asked by name: an invoice whose charge is on its way cannot be taken back.
_LIVE_CHARGE = text(
    "SELECT 1 FROM billing_transactions WHERE invoice_id = :invoice_id"
    " AND status IN ('pending', 'processing', 'requires_action', 'unknown') LIMIT 1"
)

_BILL_ONCE_MORE = text("UPDATE subscriptions SET next_bill_at = :at WHERE id = :id AND next_bill_at IS NULL")


def move(invoice: Invoice, to: InvoiceStatus) -> None:
    """Change the status of a locked invoice; InvalidTransition where TRANSITIONS has no such move."""
    if to not in TRANSITIONS[InvoiceStatus(invoice.status)]:
        raise InvalidTransition(f"An invoice that is {invoice.status} cannot become {to}.")
    invoice.status = to.value


def lock(session: Session, invoice_id: uuid.UUID) -> Invoice:
    """The invoice as committed last, locked until the transaction ends; NotFound."""
    session.flush()
    invoice = session.scalars(
        select(Invoice).where(Invoice.id == invoice_id).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()
    if invoice is None:
        raise NotFound("There is no such invoice.")
    return invoice


def refuse_while_charged(session: Session, invoice_id: uuid.UUID) -> None:
    """Conflict when a charge of the locked invoice is on its way."""
    if session.execute(_LIVE_CHARGE, {"invoice_id": invoice_id}).first():
        raise Conflict("A payment of this invoice is on its way; try again when it is settled.", code="payment_in_progress")


def void_invoice(session: Session, invoice_id: uuid.UUID, *, at: datetime, actor: Actor, reason: str | None = None) -> Invoice:
    """Void an open or uncollectible invoice on which nothing was paid; voiding it again changes nothing. Credits it used are given back.

    What it billed is owed still, however old, and will be on the subscription's next invoice; a subscription that has ended is billed
    once more. InvalidTransition for drafts and paid invoices,
    Conflict when something was paid on it or a charge is on its way.
    """
    invoice = lock(session, invoice_id)
    if invoice.status == InvoiceStatus.VOID:
        return invoice
    if invoice.status == InvoiceStatus.DRAFT:
        raise InvalidTransition("A draft is discarded, not voided: it has no number yet.")
    if invoice.amount_paid_minor:
        raise Conflict("Something was paid on this invoice; refund it first.", code="invoice_paid_in_part")
    refuse_while_charged(session, invoice_id)
    reversal = _reversal(invoice, at)
    move(invoice, InvoiceStatus.VOID)
    invoice.voided_at, invoice.next_collect_at = at, None
    session.execute(_BILL_ONCE_MORE, {"id": invoice.subscription_id, "at": at})
    account_credits.give_back(session, invoice.organization_id, invoice.id, at=at)
    post.post_all(session, reversal)
    audit.record(
        session, actor, "invoice.voided", invoice, at=at, reason=reason, number=invoice.invoice_number, total_minor=invoice.total_minor
    )
    return invoice


def _reversal(invoice: Invoice, at: datetime) -> list[post.Fact]:
    used = invoice.credit_applied_minor
    entries = [
        (AccountCode.RECEIVABLE, -invoice.total_minor),
        (AccountCode.REVENUE, invoice.subtotal_minor),
        (AccountCode.TAX_PAYABLE, invoice.tax_minor),
    ]
    returned = [(AccountCode.RECEIVABLE, used), (AccountCode.CUSTOMER_CREDIT, -used)]
    given_up = invoice.amount_due_minor if invoice.status == InvoiceStatus.UNCOLLECTIBLE else 0
    claimed = [(AccountCode.RECEIVABLE, given_up), (AccountCode.WRITE_OFF, -given_up)]
    words = f"of void invoice {invoice.invoice_number}"
    common = ("invoices", invoice.id)
    return [
        post.Fact(invoice.organization_id, "invoice_void", *common, entries, invoice.currency, at, f"Reversal {words}"),
        post.Fact(invoice.organization_id, "recovery", *common, claimed, invoice.currency, at, f"Write-off taken back {words}"),
        post.Fact(invoice.organization_id, "credit_returned", *common, returned, invoice.currency, at, f"Credit {words}"),
    ]
