"""What waits for a person: failed payments, drafts, events and subscriptions that could not be billed. For operators only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from core.invoicing.models import Invoice, InvoiceStatus, RunError
from core.metering.models import usage_quarantine
from core.metering.rejections.tables import usage_rejections
from core.payments.models import BillingTransaction, TransactionStatus, TransactionType


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work. `money` has (currency, minor units), largest first; `parts` says what it is made of; `oldest` waits longest."""

    key: str
    count: int
    money: tuple[tuple[str, int], ...] = ()
    parts: tuple[tuple[str, int], ...] = ()
    oldest: datetime | None = None


def waiting(session: Session, *, rejected_since: datetime) -> list[Work]:
    """Every kind that has something to do; one statement each."""
    held = Invoice.held_reason.is_not(None)
    kinds = (
        _failed_payments(session),
        _drafts(session, "drafts", ~held & Invoice.auto_finalize_at.is_(None) & Invoice.reviewed_by.is_(None)),
        _drafts(session, "held", held),
        _unrated(session),
        _rejected(session, rejected_since),
        _quarantined(session),
    )
    return [kind for kind in kinds if kind.count]


def drafts_waiting(session: Session) -> int:
    """How many drafts of subscriptions wait for a person; cheap enough for every page."""
    waits = Invoice.held_reason.is_(None), Invoice.auto_finalize_at.is_(None), Invoice.reviewed_by.is_(None)
    of_subscriptions = Invoice.status == InvoiceStatus.DRAFT, Invoice.subscription_id.is_not(None)
    return session.scalar(select(func.count()).select_from(Invoice).where(*of_subscriptions, *waits)) or 0


def _failed_payments(session: Session) -> Work:
    """Open invoices whose newest charge failed, by its reason."""
    charge = BillingTransaction
    last = (
        select(charge.invoice_id, charge.status, charge.failure_reason, charge.created_at, Invoice.currency, Invoice.amount_due_minor)
        .join(Invoice, Invoice.id == charge.invoice_id)
        .where(Invoice.status == InvoiceStatus.OPEN, charge.type == TransactionType.CHARGE)
        .ext(distinct_on(charge.invoice_id))
        .order_by(charge.invoice_id, charge.id.desc())
        .subquery()
    )
    reason = func.coalesce(last.c.failure_reason, "no reason given")
    rows = session.execute(
        select(reason, last.c.currency, func.count(), func.sum(last.c.amount_due_minor), func.min(last.c.created_at))
        .where(last.c.status == TransactionStatus.FAILED)
        .group_by(reason, last.c.currency)
    ).all()
    return _work("failed_payments", rows)


def _drafts(session: Session, key: str, which: ColumnElement[bool]) -> Work:
    rows = session.execute(
        select(Invoice.reason, Invoice.currency, func.count(), func.sum(Invoice.total_minor), func.min(Invoice.created_at))
        .where(Invoice.status == InvoiceStatus.DRAFT, which)
        .group_by(Invoice.reason, Invoice.currency)
    ).all()
    return _work(key, rows)


def _unrated(session: Session) -> Work:
    count, oldest = session.execute(select(func.count(), func.min(RunError.at)).where(RunError.resolved_at.is_(None))).one()
    return Work("unrated", count, oldest=oldest)


def _rejected(session: Session, since: datetime) -> Work:
    r = usage_rejections.c
    rows = session.execute(
        select(r.code, func.count(), func.min(r.received_at)).where(r.received_at >= since).group_by(r.code).order_by(func.count().desc())
    ).all()
    parts = tuple((row[0].replace("_", " "), row[1]) for row in rows)
    return Work("rejected", sum(row[1] for row in rows), parts=parts, oldest=min((row[2] for row in rows), default=None))


def _quarantined(session: Session) -> Work:
    count, oldest = session.execute(select(func.count(), func.min(usage_quarantine.c.received_at))).one()
    return Work("quarantined", count, oldest=oldest)


def _work(key: str, rows: Sequence[Any]) -> Work:
    """Rows of (part, currency, count, minor units, oldest), added up both ways."""
    parts: dict[str, int] = {}
    money: dict[str, int] = {}
    for part, currency, count, minor, _ in rows:
        parts[part] = parts.get(part, 0) + count
        money[currency] = money.get(currency, 0) + int(minor)
    return Work(
        key,
        sum(parts.values()),
        tuple(sorted(money.items(), key=lambda item: -item[1])),
        tuple(sorted(parts.items(), key=lambda item: -item[1])),
        min((row[4] for row in rows), default=None),
    )
