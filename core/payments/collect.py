"""Charging an invoice: begin (committed row), charge (provider, outside of any transaction), record (what came of it).

A worker may die at any line and every message may arrive twice: the row says how far it came, its id is the provider's idempotency key,
and as long as its outcome is open no second attempt begins.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from core import audit, jobs
from core.audit import SYSTEM, Actor
from core.db import new_id, retrying, transaction
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.identity.models import Organization
from core.invoicing.models import Invoice, InvoiceStatus
from core.payments import dunning
from core.payments.attempts import Attempt, attempt_of, live_charge, locked_invoice
from core.payments.gateways.base import ChargeOutcome
from core.payments.models import LIVE, BillingTransaction, PaymentMethod, TransactionStatus, TransactionType
from core.payments.outcomes import ON_DEMAND, record
from core.payments.provider import gateway
from core.subscriptions.models import Subscription

__all__ = ["Attempt", "begin", "charge", "collect", "record"]


def begin(
    session: Session,
    invoice_id: uuid.UUID,
    *,
    at: datetime,
    actor: Actor = SYSTEM,
    payment_method_id: uuid.UUID | None = None,
    on_demand: bool = False,
    return_url: str | None = None,
) -> Attempt | None:
    """Claim the amount due of an open invoice; None when there is nothing to charge now.

    Nothing is charged while an earlier attempt is open, and, unless `on_demand` (a person asked for it), before `next_collect_at`.
    On demand, Conflict and Invalid say why not. Commit before `charge`.
    """
    invoice = locked_invoice(session, invoice_id)
    if invoice.status != InvoiceStatus.OPEN or invoice.amount_due_minor <= 0 or live_charge(session, invoice_id) is not None:
        return None
    scheduled = invoice.next_collect_at is not None and invoice.next_collect_at <= at
    if not scheduled and not on_demand:
        return None
    if scheduled:
        invoice.next_collect_at = None
    if not on_demand and dunning.exhausted(_tries(session, invoice_id, at)):
        audit.record(session, actor, "payment.retries_exhausted", invoice, at=at)
        return None
    method = _method(session, invoice, payment_method_id)
    if method is None:
        if on_demand:
            raise Conflict("There is no payment method to charge. Save one first.", code="no_payment_method")
        audit.record(session, actor, "payment.method_missing", invoice, at=at, invoice_number=invoice.invoice_number)
        return None
    row = BillingTransaction(
        id=new_id(),
        organization_id=invoice.organization_id,
        invoice_id=invoice.id,
        payment_method_id=method.id,
        type=TransactionType.CHARGE,
        status=TransactionStatus.PENDING,
        amount_minor=invoice.amount_due_minor,
        currency=invoice.currency,
        provider=method.provider,
        extra={} if scheduled else {ON_DEMAND: True},
        created_at=at,
    )
    session.add(row)
    invoice.collect_attempts += scheduled
    session.flush()
    audit.record(session, actor, "payment.started", row, at=at, invoice_id=invoice.id, amount_minor=row.amount_minor, currency=row.currency)
    return attempt_of(row, method, description=f"Invoice {invoice.invoice_number}", return_url=return_url)


def charge(attempt: Attempt) -> ChargeOutcome:
    """Ask the provider to move the money, once per attempt. Opens no transaction and raises nothing that a provider can cause."""
    return gateway(attempt.provider).charge(
        customer=attempt.customer,
        payment_method=attempt.payment_method,
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        attempt_id=str(attempt.id),
        description=attempt.description,
        metadata={"invoice_id": str(attempt.invoice_id), "organization_id": str(attempt.organization_id)},
        idempotency_key=str(attempt.id),
        off_session=attempt.return_url is None,
        return_url=attempt.return_url,
    )


def collect(
    invoice_id: uuid.UUID,
    *,
    at: datetime,
    actor: Actor = SYSTEM,
    payment_method_id: uuid.UUID | None = None,
    on_demand: bool = False,
    return_url: str | None = None,
) -> uuid.UUID | None:
    """The whole of it. Call it outside of a transaction: it opens its own. Returns the id of the attempt it made, if it made one."""

    def begin_it() -> Attempt | None:
        with transaction() as session:
            return begin(
                session, invoice_id, at=at, actor=actor, payment_method_id=payment_method_id, on_demand=on_demand, return_url=return_url
            )

    attempt = retrying(begin_it)
    if attempt is None:
        return None
    outcome = charge(attempt)

    def record_it() -> None:
        with transaction() as session:
            record(session, attempt.id, outcome, at=at, actor=actor)

    retrying(record_it)
    return attempt.id


def pay(
    organization_id: uuid.UUID,
    invoice_id: uuid.UUID,
    *,
    at: datetime,
    actor: Actor,
    payment_method_id: uuid.UUID | None = None,
    return_url: str | None = None,
) -> BillingTransaction:
    """Somebody pays the invoice now. Call it outside of a transaction.

    A second click, another tab or the scheduled try at the same moment all get the one attempt that is open or has paid it.
    With `return_url` the cardholder is there and may be sent to the bank: `action_url` of the result. NotFound for a stranger's invoice,
    Conflict when it cannot be paid or there is no payment method.
    """
    with transaction() as session:
        invoice = session.get(Invoice, invoice_id)
        if invoice is None or invoice.organization_id != organization_id:
            raise NotFound("There is no such invoice.")
    mine = collect(invoice_id, at=at, actor=actor, payment_method_id=payment_method_id, on_demand=True, return_url=return_url)
    with transaction() as session:
        latest = session.scalars(
            select(BillingTransaction)
            .where(BillingTransaction.invoice_id == invoice_id, BillingTransaction.type == TransactionType.CHARGE)
            .order_by(BillingTransaction.id.desc())
            .limit(1)
        ).one_or_none()
        if latest is None or (mine is None and latest.status == TransactionStatus.FAILED):
            raise Conflict("This invoice has nothing to pay.", code="nothing_due")
    return latest


def rearm(session: Session, organization_id: uuid.UUID, *, at: datetime) -> None:
    """A new payment method is there: open invoices that wait for one, or were refused before, are tried now, with a fresh schedule."""
    automatic = session.scalar(select(Organization.auto_collect).where(Organization.id == organization_id))
    if not automatic:
        return
    waiting = session.scalars(
        select(Invoice)
        .where(
            Invoice.organization_id == organization_id,
            Invoice.status == InvoiceStatus.OPEN,
            Invoice.amount_due_minor > 0,
            or_(Invoice.next_collect_at.is_(None), Invoice.collect_attempts > 0),
            ~exists().where(BillingTransaction.invoice_id == Invoice.id, BillingTransaction.status.in_(LIVE)),
        )
        .order_by(Invoice.id)
        .with_for_update()
    ).all()
    for invoice in waiting:
        invoice.next_collect_at, invoice.collect_attempts = at, 0
        jobs.enqueue(session, "collect_invoice", invoice.id)


def _tries(session: Session, invoice_id: uuid.UUID, at: datetime) -> int:
    tries = session.scalar(
        select(func.count())
        .select_from(BillingTransaction)
        .where(
            BillingTransaction.invoice_id == invoice_id,
            BillingTransaction.type == TransactionType.CHARGE,
            BillingTransaction.created_at > at - dunning.WINDOW,
        )
    )
    return tries or 0


def _method(session: Session, invoice: Invoice, chosen: uuid.UUID | None) -> PaymentMethod | None:
    """The method asked for, else the invoice's, its subscription's, the default: the first that is still there."""
    agreed = session.scalar(select(Subscription.payment_method_id).where(Subscription.id == invoice.subscription_id))
    methods = {
        method.id: method
        for method in session.scalars(
            select(PaymentMethod).where(PaymentMethod.organization_id == invoice.organization_id, PaymentMethod.removed_at.is_(None))
        )
    }
    if chosen is not None:
        if chosen not in methods:
            errors = (FieldError("/payment_method_id", "there is no such payment method"),)
            raise Invalid("The invoice cannot be paid like this.", errors=errors)
        return methods[chosen]
    default = next((method.id for method in methods.values() if method.is_default), None)
    return next((methods[name] for name in (invoice.payment_method_id, agreed, default) if name in methods), None)
