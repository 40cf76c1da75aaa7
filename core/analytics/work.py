"""What waits for a person: failed payments, drafts, events and subscriptions that could not be billed. For operators only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Row, Select, Text, cast, func, literal, null, select, true, union_all
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session

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
    """Every kind that has something to do; one statement."""
    held = Invoice.held_reason.is_not(None)
    kinds = (
        _failed_payments(),
        _drafts("drafts", ~held & Invoice.auto_finalize_at.is_(None) & Invoice.reviewed_by.is_(None)),
        _drafts("held", held),
        _counted("unrated", RunError.at, RunError.resolved_at.is_(None)),
        _rejected(rejected_since),
        _counted("quarantined", usage_quarantine.c.received_at, true()),
    )
    found: dict[str, list[Row[Any]]] = {}
    for row in session.execute(union_all(*kinds)):
        found.setdefault(row.key, []).append(row)
    return [_work(key, rows) for key, rows in found.items()]


def drafts_waiting(session: Session) -> int:
    """How many drafts of subscriptions wait for a person; cheap enough for every page."""
    waits = Invoice.held_reason.is_(None), Invoice.auto_finalize_at.is_(None), Invoice.reviewed_by.is_(None)
    of_subscriptions = Invoice.status == InvoiceStatus.DRAFT, Invoice.subscription_id.is_not(None)
    return session.scalar(select(func.count()).select_from(Invoice).where(*of_subscriptions, *waits)) or 0


def _failed_payments() -> Select[Any]:
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
    return (
        _kind("failed_payments", reason, last.c.currency, func.sum(last.c.amount_due_minor), last.c.created_at)
        .where(last.c.status == TransactionStatus.FAILED)
        .group_by(reason, last.c.currency)
    )


def _drafts(key: str, which: ColumnElement[bool]) -> Select[Any]:
    return (
        _kind(key, Invoice.reason, Invoice.currency, func.sum(Invoice.total_minor), Invoice.created_at)
        .where(Invoice.status == InvoiceStatus.DRAFT, which)
        .group_by(Invoice.reason, Invoice.currency)
    )


def _rejected(since: datetime) -> Select[Any]:
    r = usage_rejections.c
    code = func.replace(r.code, "_", " ")
    return _kind("rejected", code, null(), null(), r.received_at).where(r.received_at >= since).group_by(r.code)


def _counted(key: str, at: ColumnElement[datetime] | InstrumentedAttribute[datetime], which: ColumnElement[bool]) -> Select[Any]:
    return _kind(key, null(), null(), null(), at).where(which).having(func.count() > 0)


def _kind(key: str, part: Any, currency: Any, minor: Any, at: Any) -> Select[Any]:
    """What each kind's rows say: its parts, each in one currency, how many there are, their money and the oldest."""
    text_ = (literal(key).label("key"), cast(part, Text).label("part"), cast(currency, Text).label("currency"))
    return select(*text_, func.count().label("number"), cast(minor, BigInteger).label("minor"), func.min(at).label("oldest"))


def _work(key: str, rows: Sequence[Row[Any]]) -> Work:
    """The rows of one kind, added up by part and by currency."""
    parts: dict[str, int] = {}
    money: dict[str, int] = {}
    for row in rows:
        if row.part is not None:
            parts[row.part] = parts.get(row.part, 0) + row.number
        if row.currency is not None:
            money[row.currency] = money.get(row.currency, 0) + row.minor
    return Work(
        key,
        sum(row.number for row in rows),
        tuple(sorted(money.items(), key=lambda item: -item[1])),
        tuple(sorted(parts.items(), key=lambda item: -item[1])),
        min(row.oldest for row in rows),
    )
