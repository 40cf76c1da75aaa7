"""Reviewing a run: the drafts that look unlike their account's last periods first, each with its reasons and what made the change."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, NotFound
from core.invoicing import wording
from core.invoicing.models import Invoice, InvoiceLine, InvoiceStatus, LineKind
from core.money import EXACT, exponent, round_half_up
from core.pricing.charge import charge
from core.pricing.models import reads_one

CHANGE_RATIO_MAX = Decimal("0.30")
CHANGE_MAJOR_MAX = Decimal(50)
HISTORY = 3


class Reason(StrEnum):
    """Why a draft is looked at before it goes out."""

    CHANGE = "change"
    FIRST_INVOICE = "first_invoice"
    ZERO_USAGE = "zero_usage"
    NEGATIVE_TOTAL = "negative_total"
    PLAN_CHANGE = "plan_change"
    LATE_USAGE = "late_usage"
    MANUAL_LINE = "manual_line"


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """A draft of a run against its account's last periods; net minor units of `currency`, `history` oldest first."""

    invoice_id: uuid.UUID
    organization_id: uuid.UUID
    organization_name: str
    subscription_id: uuid.UUID | None
    currency: str
    now_minor: int
    total_minor: int
    history: tuple[int, ...]
    median_minor: int | None
    reasons: tuple[Reason, ...]
    held_reason: str | None
    reviewed_by: str | None

    @property
    def change_minor(self) -> int | None:
        """Against the median of the last periods; None for a first invoice."""
        return None if self.median_minor is None else self.now_minor - self.median_minor

    @property
    def change_ratio(self) -> Decimal | None:
        """The change as a part of the median; None against nothing."""
        return Decimal(self.now_minor - self.median_minor) / self.median_minor if self.median_minor else None


@dataclass(frozen=True, slots=True)
class Causes:
    """What made a draft differ from the invoice before, minor units; the four add up to the difference."""

    quantity_minor: int = 0
    price_minor: int = 0
    plan_minor: int = 0
    credits_minor: int = 0


def rows(session: Session, run_id: uuid.UUID) -> list[ReviewRow]:
    """The run's drafts, those with reasons first, the largest change first; one query."""
    found = [_row(row) for row in session.execute(_DRAFTS, {"run_id": run_id, "history": HISTORY})]
    return sorted(found, key=lambda row: (not row.reasons, -abs(row.change_minor or row.now_minor), str(row.invoice_id)))


def counts(found: Sequence[ReviewRow]) -> dict[Reason, int]:
    """How many drafts each reason holds up."""
    return {reason: sum(reason in row.reasons for row in found) for reason in Reason if any(reason in row.reasons for row in found)}


def causes(session: Session, invoice_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Causes]:
    """For each draft, why it differs from the subscription's issued invoice before it; two queries for all of them."""
    before: dict[uuid.UUID, uuid.UUID] = {row[0]: row[1] for row in session.execute(_BEFORE, {"ids": list(invoice_ids)})}
    wanted = {*invoice_ids, *before.values()}
    lines: dict[uuid.UUID, list[InvoiceLine]] = {}
    for line in session.scalars(select(InvoiceLine).where(InvoiceLine.invoice_id.in_(wanted))):
        lines.setdefault(line.invoice_id, []).append(line)
    return {entry: split(lines.get(before[entry], []) if entry in before else [], lines.get(entry, [])) for entry in invoice_ids}


def split(before: Sequence[InvoiceLine], now: Sequence[InvoiceLine]) -> Causes:
    """Divide the difference of two invoices by cause. Pure.

    The same metric at the same price: quantity. At another price: what the new quantity costs at the old price is quantity, the rest
    price. Recurring prices that come or go: plan. Credits, corrections and lines by hand stand for themselves.
    """
    old, new = _charges(before), _charges(now)
    totals = {"quantity_minor": 0, "price_minor": 0, "plan_minor": 0}
    for code in old.keys() | new.keys():
        was, line = old.get(code), new.get(code)
        difference = (line.amount_minor if line else 0) - (was.amount_minor if was else 0)
        sample = line or was
        if sample is None or sample.metric_id is None:
            totals["plan_minor"] += difference
        elif was is None or line is None or was.pricing_rule_id == line.pricing_rule_id:
            totals["quantity_minor"] += difference
        else:
            at_old_price = _at_price_of(was, line.quantity)
            totals["quantity_minor"] += at_old_price - was.amount_minor
            totals["price_minor"] += line.amount_minor - at_old_price
    others = sum(line.amount_minor for line in now if line.kind != LineKind.CHARGE)
    others -= sum(line.amount_minor for line in before if line.kind != LineKind.CHARGE)
    return Causes(**totals, credits_minor=others)


def hold(session: Session, invoice_id: uuid.UUID, *, reason: str, at: datetime, actor: Actor) -> Invoice:
    """Keep a draft back until `release`; Conflict when it is no draft."""
    invoice = _draft(session, invoice_id)
    invoice.held_reason = reason
    audit.record(session, actor, "invoice.held", invoice, at=at, reason=reason)
    return invoice


def release(session: Session, invoice_id: uuid.UUID, *, at: datetime, actor: Actor) -> Invoice:
    """Let a held draft go on."""
    invoice = _draft(session, invoice_id)
    invoice.held_reason = None
    audit.record(session, actor, "invoice.released", invoice, at=at)
    return invoice


def approve(session: Session, invoice_ids: Collection[uuid.UUID], *, at: datetime, actor: Actor) -> int:
    """Mark drafts as looked at; returns how many were not yet."""
    fresh = Invoice.id.in_(invoice_ids), Invoice.status == InvoiceStatus.DRAFT, Invoice.reviewed_by.is_(None)
    marked = session.scalars(update(Invoice).where(*fresh).values(reviewed_by=actor.label).returning(Invoice)).all()
    audit.record_all(session, [audit.entry(actor, "invoice.approved", invoice, at=at) for invoice in marked])
    return len(marked)


def discard(session: Session, invoice_id: uuid.UUID, *, reason: str, at: datetime, actor: Actor) -> None:
    """Delete a draft. What it held is owed still: the subscription's next billing makes it again."""
    invoice = _draft(session, invoice_id)
    audit.record(session, actor, "invoice.discarded", invoice, at=at, reason=reason, subtotal_minor=invoice.subtotal_minor)
    session.flush()
    session.expunge(invoice)  # its lines go with it in the database
    session.execute(delete(Invoice).where(Invoice.id == invoice_id))


def _draft(session: Session, invoice_id: uuid.UUID) -> Invoice:
    invoice = session.get(Invoice, invoice_id, with_for_update=True, populate_existing=True)
    if invoice is None:
        raise NotFound("There is no such invoice.")
    if invoice.status != InvoiceStatus.DRAFT:
        raise Conflict(f"The invoice is {invoice.status}: only a draft can be reviewed.", code="not_a_draft")
    return invoice


def _charges(lines: Sequence[InvoiceLine]) -> dict[str, InvoiceLine]:
    return {line.code: line for line in lines if line.kind == LineKind.CHARGE}


def _at_price_of(line: InvoiceLine, quantity: Decimal) -> int:
    model = wording.model(line.detail)
    if model is None or not reads_one(model):
        return line.amount_minor
    with localcontext(EXACT):
        return round_half_up(charge(model, max(quantity, Decimal(0))), line.detail["currency"])


def _row(row: Any) -> ReviewRow:
    history = tuple(reversed(row.history or ()))
    median = sorted(history)[(len(history) - 1) // 2] if history else None
    return ReviewRow(
        invoice_id=row.id,
        organization_id=row.organization_id,
        organization_name=row.name,
        subscription_id=row.subscription_id,
        currency=row.currency,
        now_minor=row.subtotal_minor,
        total_minor=row.total_minor,
        history=history,
        median_minor=median,
        reasons=tuple(_reasons(row, median)),
        held_reason=row.held_reason,
        reviewed_by=row.reviewed_by,
    )


def _reasons(row: Any, median: int | None) -> list[Reason]:
    found = []
    if median is None:
        found.append(Reason.FIRST_INVOICE)
    else:
        change, floor = abs(row.subtotal_minor - median), int(CHANGE_MAJOR_MAX * 10 ** exponent(row.currency))
        if change > floor and change > CHANGE_RATIO_MAX * abs(median):
            found.append(Reason.CHANGE)
    flags: Mapping[Reason, bool] = {
        Reason.ZERO_USAGE: row.usage_now == 0 and (row.usage_before or 0) > 0,
        Reason.NEGATIVE_TOTAL: row.total_minor < 0,
        Reason.PLAN_CHANGE: row.credited,
        Reason.LATE_USAGE: row.adjusted,
        Reason.MANUAL_LINE: row.by_hand,
    }
    return found + [reason for reason, holds in flags.items() if holds]


_DRAFTS = text(
    """
    SELECT invoices.id, invoices.organization_id, organizations.name, invoices.subscription_id, invoices.currency, invoices.subtotal_minor,
           invoices.total_minor, invoices.held_reason, invoices.reviewed_by, past.history, now.usage_now, past.usage_before, now.credited,
           now.adjusted, now.by_hand
      FROM invoices
      JOIN organizations ON organizations.id = invoices.organization_id
      CROSS JOIN LATERAL (
           SELECT sum(quantity) FILTER (WHERE metric_id IS NOT NULL AND kind = 'charge') AS usage_now,
                  coalesce(bool_or(kind = 'credit' AND metric_id IS NULL), false) AS credited,
                  coalesce(bool_or(kind = 'adjustment' OR kind = 'credit' AND metric_id IS NOT NULL), false) AS adjusted,
                  coalesce(bool_or(kind = 'manual'), false) AS by_hand
             FROM invoice_lines WHERE invoice_id = invoices.id) AS now
      LEFT JOIN LATERAL (
           SELECT array_agg(earlier.subtotal_minor ORDER BY earlier.finalized_at DESC) AS history, sum(earlier.used) AS usage_before
             FROM (SELECT past.subtotal_minor, past.finalized_at,
                          (SELECT sum(quantity) FROM invoice_lines
                            WHERE invoice_id = past.id AND metric_id IS NOT NULL AND kind = 'charge') AS used
                     FROM invoices past
                    WHERE past.subscription_id = invoices.subscription_id AND past.finalized_at IS NOT NULL AND past.status <> 'void'
                      AND past.reason = 'period'
                    ORDER BY past.finalized_at DESC LIMIT :history) AS earlier) AS past ON true
     WHERE invoices.run_id = :run_id AND invoices.status = 'draft'
    """
)
_BEFORE = text(
    """
    SELECT invoices.id, before.id
      FROM invoices
      JOIN LATERAL (SELECT past.id FROM invoices past
                     WHERE past.subscription_id = invoices.subscription_id AND past.finalized_at IS NOT NULL AND past.status <> 'void'
                     ORDER BY past.finalized_at DESC LIMIT 1) AS before ON true
     WHERE invoices.id = ANY(CAST(:ids AS uuid[]))
    """
)
