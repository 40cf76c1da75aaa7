"""Finding out what became of a charge whose answer was lost: by looking it up, never by sending it again.

Safe at any age of the attempt: a request sent again with its key might, once the provider has forgotten the key, charge twice.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from core.db import retrying, transaction
from core.identity import queries as identity
from core.payments.attempts import Attempt, attempt_of
from core.payments.gateways.base import ChargeOutcome, ChargeStatus
from core.payments.models import LIVE, BillingTransaction, PaymentMethod, TransactionStatus, TransactionType
from core.payments.outcomes import CONTRADICTION, NOT_RECEIVED, record
from core.payments.provider import gateway

REQUEST_TIME_MAX = timedelta(seconds=60)
"""A request older than this is not on its way any more: the gateway gives up after 35 seconds."""
ACTION_TIME_MAX = timedelta(hours=23)
"""How long the cardholder has to confirm; the provider itself gives up after 24 hours."""


def resolve(transaction_id: uuid.UUID, *, now: datetime) -> TransactionStatus | None:
    """Settle one open charge if it can be settled. Call it outside of a transaction; `now` is the machine's time.

    Returns its status, None when nothing was open. ProviderUnavailable when nobody answers: try again later.
    """
    with transaction() as session:
        attempt = open_attempt(session, transaction_id, now=now)
        at = time_of(session, attempt.organization_id, now=now) if attempt is not None else now
        note_look_up(session, transaction_id)
    if attempt is None:
        return None
    outcome = look_up(attempt, now=now)
    if outcome is None:
        return attempt.status

    def record_it() -> TransactionStatus:
        with transaction() as session:
            return TransactionStatus(record(session, attempt.id, outcome, at=at).status)

    return retrying(record_it)


def open_attempt(session: Session, transaction_id: uuid.UUID, *, now: datetime) -> Attempt | None:
    """The charge, if its outcome is open and nobody can still be waiting for the answer."""
    row = session.get(BillingTransaction, transaction_id, populate_existing=True)
    if row is None or row.type != TransactionType.CHARGE or row.status not in LIVE or row.failure_code == CONTRADICTION:
        return None
    method = session.get(PaymentMethod, row.payment_method_id) if row.payment_method_id else None
    if method is None:
        return None
    attempt = attempt_of(row, method, description="")
    return None if attempt.status is TransactionStatus.PENDING and _in_flight(attempt, now) else attempt


def look_up(attempt: Attempt, *, now: datetime) -> ChargeOutcome | None:
    """What the provider knows; None: nothing certain yet. A cardholder who has not confirmed for a day is waited for no longer."""
    provider = gateway(attempt.provider)
    if attempt.provider_id is not None:
        found: ChargeOutcome | None = provider.retrieve_charge(attempt.provider_id)
    else:
        found = provider.find_charge(str(attempt.id), customer=attempt.customer, since=attempt.made_at)
    if found is None:
        if _in_flight(attempt, now):
            return None
        message = "The payment provider never received the request; it is sent anew."
        return ChargeOutcome(ChargeStatus.DECLINED, attempt_id=str(attempt.id), decline_code=NOT_RECEIVED, message=message)
    idle = found.status in (ChargeStatus.REQUIRES_ACTION, ChargeStatus.UNKNOWN)
    if idle and found.provider_id is not None and now - attempt.made_at > ACTION_TIME_MAX:
        return provider.cancel_charge(found.provider_id, idempotency_key=f"{attempt.id}-cancel")
    return found


def time_of(session: Session, organization_id: uuid.UUID, *, now: datetime) -> datetime:
    """The organization's time when the machine's is `now`: its test clock's, if it has one."""
    return identity.organization(session, organization_id).frozen_time or now


def note_look_up(session: Session, transaction_id: uuid.UUID) -> None:
    """Remember that the transaction is being looked up, before it is: the next look-up waits, also when nobody answers this one."""
    touched = update(BillingTransaction).where(BillingTransaction.id == transaction_id, BillingTransaction.status.in_(LIVE))
    session.execute(touched.values(updated_at=func.clock_timestamp()))


def _in_flight(attempt: Attempt, now: datetime) -> bool:
    return now - attempt.made_at < REQUEST_TIME_MAX
