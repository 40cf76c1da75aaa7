"""Giving money back: begin (committed row, never more than was captured), send (provider), record (what came of it)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit, jobs
from core.audit import SYSTEM, Actor
from core.db import new_id, retrying, transaction
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.invoicing import settle, write_off
from core.invoicing.models import Invoice
from core.ledger import post
from core.ledger.models import AccountCode
from core.payments import excess
from core.payments.attempts import locked_transaction, made_at, move
from core.payments.gateways.base import RefundOutcome, RefundStatus
from core.payments.models import LIVE, BillingTransaction, TransactionStatus, TransactionType
from core.payments.outcomes import NOT_RECEIVED
from core.payments.provider import gateway
from core.payments.resolve import REQUEST_TIME_MAX, note_look_up, time_of

Status = TransactionStatus
REASON_LENGTH_MAX = 500
COUNTED = (*LIVE, Status.SUCCEEDED)
_STATUS = {
    RefundStatus.SUCCEEDED: Status.SUCCEEDED,
    RefundStatus.PENDING: Status.PROCESSING,
    RefundStatus.FAILED: Status.FAILED,
    RefundStatus.UNKNOWN: Status.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Refund:
    """What the provider is asked to give back, as plain values."""

    id: uuid.UUID
    organization_id: uuid.UUID
    provider: str
    charge_id: str
    amount_minor: int
    currency: str
    status: TransactionStatus
    made_at: datetime


def refund(
    organization_id: uuid.UUID, charge_id: uuid.UUID, *, reason: str, at: datetime, actor: Actor, amount_minor: int | None = None
) -> BillingTransaction:
    """Give `amount_minor` of a payment back (None: all that is left). Call it outside of a transaction. Errors as `begin`."""
    with transaction() as session:
        wanted = begin(session, organization_id, charge_id, reason=reason, at=at, actor=actor, amount_minor=amount_minor)
    outcome = send(wanted)

    def record_it() -> BillingTransaction:
        with transaction() as session:
            return record(session, wanted.id, outcome, at=at, actor=actor)

    return retrying(record_it)


def begin(
    session: Session,
    organization_id: uuid.UUID,
    charge_id: uuid.UUID,
    *,
    reason: str,
    at: datetime,
    actor: Actor,
    amount_minor: int | None = None,
) -> Refund:
    """Claim part of a payment under its lock. Commit before `send`.

    NotFound for a stranger's or unknown payment, Conflict for one that has not succeeded or holds nothing any more, Invalid with
    pointers for more than it holds.
    """
    found = session.scalar(select(BillingTransaction.organization_id).where(BillingTransaction.id == charge_id))
    if found != organization_id:
        raise NotFound("There is no such payment.")
    paid, _, _ = locked_transaction(session, charge_id)
    if paid.type != TransactionType.CHARGE or paid.status != Status.SUCCEEDED or paid.provider_transaction_id is None:
        raise Conflict("Only a payment that succeeded can be refunded.", code="not_refundable")
    left = paid.amount_minor - given_back(session, charge_id) - excess.used(session, paid)
    wanted = left if amount_minor is None else amount_minor
    _check(left, wanted, reason)
    row = _row(paid, wanted, reason=reason.strip(), at=at)
    session.add(row)
    session.flush()
    audit.record(session, actor, "refund.started", row, at=at, reason=row.extra["reason"], **_about(row))
    return _refund(row, paid)


def send(wanted: Refund) -> RefundOutcome:
    """Ask the provider, once per refund. Opens no transaction and raises nothing that a provider can cause."""
    return gateway(wanted.provider).refund(
        charge_id=wanted.charge_id,
        amount_minor=wanted.amount_minor,
        currency=wanted.currency,
        refund_id=str(wanted.id),
        metadata={"organization_id": str(wanted.organization_id)},
        idempotency_key=str(wanted.id),
    )


def record(session: Session, refund_id: uuid.UUID, outcome: RefundOutcome, *, at: datetime, actor: Actor = SYSTEM) -> BillingTransaction:
    """Write down how a refund stands; said twice it changes nothing more. Success is booked and taken off what the invoice was paid."""
    row, invoice, _ = locked_transaction(session, refund_id)
    to = _STATUS[outcome.status]
    if row.status in (Status.SUCCEEDED, Status.FAILED) or (to is Status.UNKNOWN and row.status != Status.PENDING):
        return row
    row.provider_transaction_id = outcome.provider_id or row.provider_transaction_id
    if not move(row, to):
        return row
    if to is Status.SUCCEEDED:
        _succeeded(session, row, invoice, at=at, actor=actor)
    elif to is Status.FAILED:
        row.settled_at, row.failure_code, row.failure_reason = at, outcome.code, outcome.message
        audit.record(session, actor, "refund.failed", row, at=at, code=outcome.code, message=outcome.message, **_about(row))
    elif to is Status.UNKNOWN:
        jobs.enqueue(session, "resolve_transaction", row.id)
    session.flush()
    return row


def resolve(refund_id: uuid.UUID, *, now: datetime) -> TransactionStatus | None:
    """Look up a refund whose answer was lost, and settle it. Call it outside of a transaction; `now` is the machine's time."""
    with transaction() as session:
        row = session.get(BillingTransaction, refund_id, populate_existing=True)
        if row is None or row.type != TransactionType.REFUND or row.status not in LIVE:
            return None
        paid = session.get_one(BillingTransaction, row.refunded_transaction_id)
        wanted, at = _refund(row, paid), time_of(session, row.organization_id, now=now)
        note_look_up(session, refund_id)
    waiting = now - wanted.made_at < REQUEST_TIME_MAX
    if wanted.status is Status.PENDING and waiting:
        return wanted.status
    outcome = gateway(wanted.provider).find_refund(str(wanted.id), charge_id=wanted.charge_id)
    if outcome is None and waiting:
        return wanted.status
    outcome = outcome or RefundOutcome(RefundStatus.FAILED, code=NOT_RECEIVED, message="The provider never received the request.")
    with transaction() as session:
        return Status(record(session, wanted.id, outcome, at=at).status)


def adopt(session: Session, charge_id: uuid.UUID, *, refunded_minor: int, at: datetime) -> BillingTransaction | None:
    """Book what was given back at the provider's own site: the part of `refunded_minor` that no refund of ours accounts for."""
    paid, _, _ = locked_transaction(session, charge_id)
    missing = refunded_minor - given_back(session, charge_id)
    if missing <= 0 or paid.status != Status.SUCCEEDED:
        return None
    row = _row(paid, missing, reason="refunded at the payment provider", at=at)
    session.add(row)
    session.flush()
    return record(session, row.id, RefundOutcome(RefundStatus.SUCCEEDED), at=at)


def given_back(session: Session, charge_id: uuid.UUID) -> int:
    """Minor units of a payment that were refunded or are being refunded."""
    total = session.scalar(
        select(func.coalesce(func.sum(BillingTransaction.amount_minor), 0)).where(
            BillingTransaction.refunded_transaction_id == charge_id, BillingTransaction.status.in_(COUNTED)
        )
    )
    return int(total or 0)


def _succeeded(session: Session, row: BillingTransaction, invoice: Invoice | None, *, at: datetime, actor: Actor) -> None:
    """Money that was paid in excess goes back first, from the account's credit; then what settled the invoice.

    The receivable is open again by as much, though the invoice stays paid: a credit note, or the customer, closes it.
    """
    row.settled_at, row.failure_code, row.failure_reason = at, None, None
    charge = session.get_one(BillingTransaction, row.refunded_transaction_id, with_for_update=True, populate_existing=True)
    session.flush()
    from_credit = excess.release(session, row, charge)
    settled = row.amount_minor - from_credit
    if invoice is not None and settled:
        write_off.recover(session, invoice, row, amount_minor=-settled, at=at)
        settle.reverse(session, invoice, amount_minor=settled, at=at, actor=actor)
    post.post(
        session,
        organization_id=row.organization_id,
        kind="refund",
        subject=row,
        entries=[
            (AccountCode.CASH_CLEARING, -row.amount_minor),
            (AccountCode.RECEIVABLE, settled),
            (AccountCode.CUSTOMER_CREDIT, from_credit),
        ],
        currency=row.currency,
        at=at,
        description=f"Refund on invoice {invoice.invoice_number}" if invoice is not None else "Refund",
    )
    audit.record(session, actor, "refund.succeeded", row, at=at, reason=row.extra.get("reason"), **_about(row))


def _check(left: int, wanted: int, reason: str) -> None:
    faults = []
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX or "\x00" in reason:
        faults.append(FieldError("/reason", f"must have 1 to {REASON_LENGTH_MAX} characters"))
    if left <= 0:
        raise Conflict("Everything that was paid has been refunded.", code="nothing_to_refund")
    if not 0 < wanted <= left:
        faults.append(FieldError("/amount", f"must be more than 0 and at most the {left} minor units that are left"))
    if faults:
        raise Invalid("The refund cannot be made.", errors=tuple(faults))


def _row(paid: BillingTransaction, amount_minor: int, *, reason: str, at: datetime) -> BillingTransaction:
    return BillingTransaction(
        id=new_id(),
        organization_id=paid.organization_id,
        invoice_id=paid.invoice_id,
        payment_method_id=paid.payment_method_id,
        refunded_transaction_id=paid.id,
        type=TransactionType.REFUND,
        status=Status.PENDING,
        amount_minor=amount_minor,
        currency=paid.currency,
        provider=paid.provider,
        extra={"reason": reason},
        created_at=at,
    )


def _refund(row: BillingTransaction, paid: BillingTransaction) -> Refund:
    return Refund(
        id=row.id,
        organization_id=row.organization_id,
        provider=row.provider,
        charge_id=paid.provider_transaction_id or "",
        amount_minor=row.amount_minor,
        currency=row.currency,
        status=Status(row.status),
        made_at=made_at(row.id),
    )


def _about(row: BillingTransaction) -> dict[str, Any]:
    return {
        "amount_minor": row.amount_minor,
        "currency": row.currency,
        "invoice_id": row.invoice_id,
        "refunds": row.refunded_transaction_id,
    }
