"""The provider's events: verified and stored as they came, then handled by asking the provider how things stand now.

What an event says is never believed, only what it is about: duplicates, wrong order and old news all end in the same state. One that
speaks of something we do not know yet waits and is tried again, for three days.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import audit, jobs
from core.audit import SYSTEM
from core.db import retrying, transaction
from core.errors import BillingError, NotFound, ProviderUnavailable
from core.payments import methods, refund, setups
from core.payments.gateways.base import ChargeOutcome, ChargeStatus
from core.payments.gateways.base import InboundEvent as Told
from core.payments.models import BillingTransaction, InboundEvent, PaymentCustomer, PaymentMethod, TransactionType
from core.payments.outcomes import record
from core.payments.provider import gateway
from core.payments.resolve import time_of

log = logging.getLogger(__name__)

TRY_AGAIN_SECONDS = (5, 10, 30, 60, 300, 900, 1800, 3600)
GIVE_UP_AFTER = timedelta(days=3)
PAYLOAD_BYTES_MAX = 1024 * 1024


class NotYet(Exception):
    """Nothing here answers to the event so far."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A kept event as plain values, so that no row is in reach while the provider is asked."""

    provider: str
    event_id: str
    type: str
    object_id: str
    payload: bytes
    received_at: datetime


def store(session: Session, provider: str, raw_body: bytes, headers: Mapping[str, str], *, at: datetime) -> int | None:
    """Verify an event over its raw bytes and keep it, before anything is done with it; `at` is the machine's time.

    Returns its number, None for one we have already. InvalidSignature (400) when the provider did not sign it.
    """
    told = gateway(provider).parse_webhook(raw_body, headers, at=at)
    return _keep(session, provider, told, raw_body)


def backfill(*, provider: str, since: datetime) -> int:
    """Fetch events whose delivery was lost; returns how many were new. Call it outside of a transaction."""
    told = list(gateway(provider).list_events(since))
    with transaction() as session:
        kept = [_keep(session, provider, event, json.dumps(event.payload).encode()) for event in told]
    return sum(number is not None for number in kept)


def process(number: int, *, now: datetime) -> str | None:
    """Handle one stored event; returns what came of it, None when that is still open. Call it outside of a transaction.

    ProviderUnavailable is passed on after the next try is set.
    """
    with transaction() as session:
        event = session.get(InboundEvent, number, with_for_update=True, populate_existing=True)
        if event is None or event.processed_at is not None:
            return event.outcome if event is not None else None
        event.attempts += 1
        event.next_try_at = now + timedelta(seconds=TRY_AGAIN_SECONDS[min(event.attempts, len(TRY_AGAIN_SECONDS)) - 1])
        stored = Stored(event.provider, event.event_id, event.type, event.object_id, event.payload, event.received_at)
    try:
        outcome = _handle(stored, now)
    except NotYet as reason:
        if now - stored.received_at < GIVE_UP_AFTER:
            return None
        outcome = f"given up: {reason}"
        log.error("event %s of %s was given up: %s", stored.event_id, stored.provider, reason)
    except ProviderUnavailable:
        raise
    except BillingError as error:
        outcome = f"refused: {error.message}"
        log.error("event %s of %s was refused: %s", stored.event_id, stored.provider, error.message)
    with transaction() as session:
        done = session.get_one(InboundEvent, number, with_for_update=True, populate_existing=True)
        done.processed_at, done.outcome, done.next_try_at = now, outcome, None
    return outcome


def _keep(session: Session, provider: str, told: Told, raw_body: bytes) -> int | None:
    values = {"provider": provider, "event_id": told.id, "type": told.type, "object_id": told.object_id, "payload": raw_body}
    number = session.scalar(insert(InboundEvent).values(values).on_conflict_do_nothing().returning(InboundEvent.id))
    if number is not None:
        jobs.enqueue(session, "process_inbound", number)
    return number


def _handle(event: Stored, now: datetime) -> str:
    """By what the event is about. A charge's own events only repeat those of its payment intent, save for refunds and disputes."""
    about = _object(event)
    match event.type.split("."):
        case ["payment_intent", *_]:
            return _charge(event.provider, event.object_id, now)
        case ["charge", "refunded"]:
            return _charge(event.provider, str(about.get("payment_intent") or ""), now)
        case ["refund", *_] | ["charge", "refund", *_]:
            return _refund(event.provider, about, now)
        case ["charge", "dispute", *_]:
            return _dispute(event, about, now)
        case ["checkout", "session", *_]:
            return _setup(event.object_id, now)
        case ["payment_method", *_]:
            return _method(event.provider, event.object_id, now)
        case _:
            return "nothing to do"


def _charge(provider: str, provider_id: str, now: datetime) -> str:
    outcome = gateway(provider).retrieve_charge(provider_id)
    with transaction() as session:
        row = _row_of(session, provider, outcome)
        if row is None:
            return "not ours"
        transaction_id, at = row.id, time_of(session, row.organization_id, now=now)
    if outcome.status is ChargeStatus.UNKNOWN:
        return "nothing new"

    def record_it() -> str:
        with transaction() as session:
            row = record(session, transaction_id, outcome, at=at)
            if outcome.refunded_minor:
                refund.adopt(session, transaction_id, refunded_minor=outcome.refunded_minor, at=at)
            return f"charge is {row.status}"

    return retrying(record_it)


def _row_of(session: Session, provider: str, outcome: ChargeOutcome) -> BillingTransaction | None:
    """Our row for the provider's charge: by the provider's id, else by the attempt it names, if it is of the same customer.

    None: somebody else's charge on the same account. NotYet: it names an attempt of ours that we do not know.
    """
    rows = select(BillingTransaction).where(BillingTransaction.provider == provider, BillingTransaction.type == TransactionType.CHARGE)
    row = session.scalars(rows.where(BillingTransaction.provider_transaction_id == outcome.provider_id)).one_or_none()
    if row is not None:
        return row
    attempt_id = _uuid(outcome.attempt_id)
    if attempt_id is None:
        return None
    row = session.scalars(rows.where(BillingTransaction.id == attempt_id)).one_or_none()
    if row is None:
        raise NotYet(f"no attempt {attempt_id}")
    customer = session.scalar(select(PaymentMethod.provider_customer_id).where(PaymentMethod.id == row.payment_method_id))
    if customer != outcome.customer:
        raise NotFound(f"attempt {attempt_id} is another customer's")
    return row


def _refund(provider: str, about: Mapping[str, Any], now: datetime) -> str:
    charge_id = str(about.get("payment_intent") or "")
    refund_id = _uuid((about.get("metadata") or {}).get("refund_id"))
    if refund_id is None:
        return _charge(provider, charge_id, now) if charge_id else "not ours"
    with transaction() as session:
        row = session.get(BillingTransaction, refund_id)
        if row is None:
            raise NotYet(f"no refund {refund_id}")
        at = time_of(session, row.organization_id, now=now)
    outcome = gateway(provider).find_refund(str(refund_id), charge_id=charge_id)
    if outcome is None:
        return "nothing new"
    with transaction() as session:
        return f"refund is {refund.record(session, refund_id, outcome, at=at).status}"


def _dispute(event: Stored, about: Mapping[str, Any], now: datetime) -> str:
    """Put it before the people who answer disputes; what the bank takes is booked when it is decided."""
    with transaction() as session:
        row = session.scalars(
            select(BillingTransaction).where(
                BillingTransaction.provider == event.provider,
                BillingTransaction.provider_transaction_id == str(about.get("payment_intent")),
            )
        ).one_or_none()
        if row is None:
            raise NotYet(f"no charge {about.get('payment_intent')}")
        fact = {"dispute": about.get("id"), "status": about.get("status"), "reason_given": about.get("reason")}
        audit.record(session, SYSTEM, "payment.disputed", row, at=time_of(session, row.organization_id, now=now), **fact)
    return "recorded"


def _setup(session_id: str, now: datetime) -> str:
    try:
        method = setups.complete(session_id, at=now, actor=SYSTEM)
    except NotFound:
        return "not ours"
    return "nothing saved" if method is None else "payment method kept"


def _method(provider: str, provider_id: str, now: datetime) -> str:
    """A method saved for a customer of ours is kept, one that is saved for nobody is forgotten."""
    card = gateway(provider).retrieve_payment_method(provider_id)
    with transaction() as session:
        known = session.scalars(
            select(PaymentMethod).where(PaymentMethod.provider == provider, PaymentMethod.provider_payment_method_id == provider_id)
        ).one_or_none()
        if known is not None:
            known.exp_month, known.exp_year = card.exp_month, card.exp_year
            known.last_four, known.brand = card.last4 or known.last_four, card.brand or known.brand
            return "up to date"
        owner = session.scalars(select(PaymentCustomer).where(PaymentCustomer.provider_customer_id == (card.customer or ""))).one_or_none()
        if owner is None:
            return "not ours"
        at = time_of(session, owner.organization_id, now=now)
        names = {"provider": provider, "customer": owner.provider_customer_id}
        methods.keep(session, owner.organization_id, card=card, at=at, actor=SYSTEM, make_default=False, **names)
    return "payment method kept"


def _object(event: Stored) -> Mapping[str, Any]:
    about = json.loads(event.payload).get("data", {}).get("object", {})
    return about if isinstance(about, dict) else {}


def _uuid(text: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(text))
    except ValueError:
        return None
