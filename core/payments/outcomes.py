"""What the provider said about a charge becomes invoice, ledger, next try and subscription: one transaction, any number of times."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core import audit, jobs
from core.audit import SYSTEM, Actor
from core.invoicing import settle, write_off
from core.invoicing.models import Invoice, InvoiceStatus
from core.ledger import post
from core.ledger.models import AccountCode
from core.payments import dunning, standing
from core.payments.attempts import locked_transaction, move
from core.payments.declines import decline
from core.payments.excess import keep as keep_excess
from core.payments.gateways.base import ChargeOutcome, ChargeStatus
from core.payments.models import BillingTransaction, TransactionStatus
from core.subscriptions import status as subscription_status
from core.subscriptions.models import Subscription, SubscriptionStatus

Status = TransactionStatus
NOT_RECEIVED = "not_received"
"""Our own failure code: the provider never got the request, so nothing was tried."""
CONTRADICTION = "contradiction"
"""Our own failure code: the provider speaks of another amount, currency or attempt. A person has to look."""
ON_DEMAND = "on_demand"
"""Key in a row's `extra`: somebody asked for the try, so that it leaves the schedule of automatic ones alone."""
_STATUS = {
    ChargeStatus.SUCCEEDED: Status.SUCCEEDED,
    ChargeStatus.PROCESSING: Status.PROCESSING,
    ChargeStatus.REQUIRES_ACTION: Status.REQUIRES_ACTION,
    ChargeStatus.DECLINED: Status.FAILED,
    ChargeStatus.UNKNOWN: Status.UNKNOWN,
}
PAYABLE = (InvoiceStatus.OPEN, InvoiceStatus.UNCOLLECTIBLE)


def record(
    session: Session, transaction_id: uuid.UUID, outcome: ChargeOutcome, *, at: datetime, actor: Actor = SYSTEM
) -> BillingTransaction:
    """Write down how the charge stands. Said twice, or in another order, it changes nothing more.

    Success settles the invoice and posts the books; a decline sets the next try; what is still open keeps the invoice from being
    charged again. A final row is only changed by news that money moved after all.
    """
    row, invoice, subscription = locked_transaction(session, transaction_id)
    to = _STATUS[outcome.status]
    settled = row.status in (Status.SUCCEEDED, Status.FAILED)
    if (settled and to is not Status.SUCCEEDED) or row.status == Status.SUCCEEDED:
        return row
    if to is Status.UNKNOWN and row.status != Status.PENDING:
        return row
    row.provider_transaction_id = outcome.provider_id or row.provider_transaction_id
    row.action_url = outcome.next_action_url
    wrong = _contradiction(row, outcome)
    if wrong:
        return _hold(session, row, wrong, at=at)
    changed = move(row, to)
    if to is Status.UNKNOWN:
        jobs.enqueue(session, "resolve_transaction", row.id)
    if to is Status.SUCCEEDED:
        _succeeded(session, row, invoice, subscription, at=at, actor=actor)
    elif to is Status.FAILED:
        _failed(session, row, invoice, subscription, outcome, at=at, actor=actor)
    elif to is Status.REQUIRES_ACTION and changed:
        audit.record(session, actor, "payment.requires_action", row, at=at, **_about(row, invoice))
    session.flush()
    return row


def _contradiction(row: BillingTransaction, outcome: ChargeOutcome) -> str:
    if outcome.status is not ChargeStatus.SUCCEEDED:
        return ""
    if outcome.attempt_id not in (None, str(row.id)):
        return f"the provider calls it attempt {outcome.attempt_id}"
    moved = (outcome.amount_minor if outcome.amount_minor is not None else row.amount_minor, outcome.currency or row.currency)
    if moved != (row.amount_minor, row.currency):
        return f"the provider moved {moved[0]} minor units of {moved[1]}, not {row.amount_minor} of {row.currency}"
    return ""


def _hold(session: Session, row: BillingTransaction, wrong: str, *, at: datetime) -> BillingTransaction:
    """Nothing is settled and nothing new is charged until a person has looked."""
    if row.failure_code != CONTRADICTION:
        if row.status != Status.FAILED:
            move(row, Status.UNKNOWN)
        row.failure_code, row.failure_reason = CONTRADICTION, wrong
        audit.record(session, SYSTEM, "payment.contradiction", row, at=at, reason=wrong)
    return row


def _succeeded(
    session: Session, row: BillingTransaction, invoice: Invoice | None, subscription: Subscription | None, *, at: datetime, actor: Actor
) -> None:
    row.settled_at, row.failure_code, row.failure_reason, row.action_url = at, None, None, None
    payable = invoice is not None and invoice.status in PAYABLE
    applied = min(row.amount_minor, invoice.amount_due_minor) if invoice is not None and payable else 0
    excess = row.amount_minor - applied
    session.flush()
    if invoice is not None and applied:
        write_off.recover(session, invoice, row, amount_minor=applied, at=at)
        settle.apply_payment(session, invoice, amount_minor=applied, at=at, actor=actor)
        invoice.next_collect_at = None
    if invoice is not None and excess:
        keep_excess(session, row, invoice, excess_minor=excess, at=at)
        audit.record(session, actor, "payment.excess", row, at=at, excess_minor=excess, **_about(row, invoice))
    post.post(
        session,
        organization_id=row.organization_id,
        kind="payment",
        subject=row,
        entries=[(AccountCode.CASH_CLEARING, row.amount_minor), (AccountCode.RECEIVABLE, -applied), (AccountCode.CUSTOMER_CREDIT, -excess)],
        currency=row.currency,
        at=at,
        description=f"Payment of invoice {invoice.invoice_number}" if invoice is not None else "Payment",
    )
    audit.record(session, actor, "payment.succeeded", row, at=at, **_about(row, invoice))
    if subscription is not None:
        standing.recover(session, subscription, at=at, actor=actor)


def _failed(
    session: Session,
    row: BillingTransaction,
    invoice: Invoice | None,
    subscription: Subscription | None,
    outcome: ChargeOutcome,
    *,
    at: datetime,
    actor: Actor,
) -> None:
    refusal = decline(outcome.decline_code)
    never_tried = outcome.decline_code == NOT_RECEIVED
    row.settled_at, row.action_url = at, None
    row.failure_code = outcome.decline_code or refusal.code
    row.failure_reason = outcome.message if never_tried else refusal.reason
    if invoice is not None and invoice.status == InvoiceStatus.OPEN and not row.extra.get(ON_DEMAND):
        if never_tried:
            invoice.collect_attempts, invoice.next_collect_at = max(invoice.collect_attempts - 1, 0), at
            jobs.enqueue(session, "collect_invoice", invoice.id)
        else:
            _reschedule(session, row, invoice, subscription, hard=refusal.hard, at=at, actor=actor)
    if not never_tried:
        advice: dict[str, Any] = {"decline_code": row.failure_code, "hard": refusal.hard, "advice": refusal.sentence}
        next_try_at = invoice.next_collect_at if invoice is not None else None
        audit.record(session, actor, "payment.failed", row, at=at, next_try_at=next_try_at, **_about(row, invoice), **advice)


def _reschedule(
    session: Session,
    row: BillingTransaction,
    invoice: Invoice,
    subscription: Subscription | None,
    *,
    hard: bool,
    at: datetime,
    actor: Actor,
) -> None:
    """An automatic try failed: the next one, or none, and the subscription is past due."""
    invoice.next_collect_at = dunning.next_attempt(invoice.collect_attempts, at=at, hard=hard)
    if invoice.next_collect_at is None:
        audit.record(session, actor, "payment.retries_exhausted", row, at=at, **_about(row, invoice))
    if subscription is not None and subscription.status == SubscriptionStatus.ACTIVE:
        subscription_status.move(session, subscription, SubscriptionStatus.PAST_DUE, at=at, actor=actor, reason="a payment failed")


def _about(row: BillingTransaction, invoice: Invoice | None) -> dict[str, Any]:
    about: dict[str, Any] = {"amount_minor": row.amount_minor, "currency": row.currency, "payment_method_id": row.payment_method_id}
    if invoice is not None:
        about |= {"invoice_id": invoice.id, "invoice_number": invoice.invoice_number}
    return about
