"""Writing drafts in sets: new ones with one COPY a table, existing ones only where their lines have changed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.db import among, copy_rows, new_id
from core.invoicing import taxes
from core.invoicing.models import Invoice, InvoiceLine, InvoiceReason, InvoiceStatus, InvoiceTax, LineKind
from core.invoicing.taxes import Taxed, local_day
from core.periods import Period

COMPARED = ("pricing_rule_id", "cycle_start", "window_start", "window_end", "kind", "quantity", "amount_minor")


@dataclass(frozen=True, slots=True)
class Content:
    """What a subscription's draft shall hold: `rows` are invoice lines without their invoice id."""

    subscription_id: uuid.UUID
    organization_id: uuid.UUID
    currency: str
    timezone: str
    at: datetime
    reason: InvoiceReason
    run_id: uuid.UUID | None
    period: Period | None
    auto_finalize_at: datetime | None
    keep_schedule: bool
    rows: list[dict[str, Any]]

    @property
    def net(self) -> int:
        """Sum of the lines, minor units."""
        return sum(row["amount_minor"] for row in self.rows)


def write(session: Session, wanted: Sequence[Content], *, actor: Actor) -> dict[uuid.UUID, uuid.UUID]:
    """Make each subscription's draft hold exactly its content; returns the drafts by subscription. Lines added by hand stay.

    A draft with nothing left on it is removed; without a draft and without lines, none is made.
    """
    drafts = _drafts(session, [content.subscription_id for content in wanted])
    fresh = [content for content in wanted if content.rows and content.subscription_id not in drafts]
    written = _create(session, fresh, actor)
    renewed = {drafts[content.subscription_id].id: content for content in wanted if content.subscription_id in drafts}
    return written | _renew(session, renewed, drafts)


def _create(session: Session, wanted: Sequence[Content], actor: Actor) -> dict[uuid.UUID, uuid.UUID]:
    points = {content.subscription_id: (content.organization_id, local_day(content.at, content.timezone)) for content in wanted}
    known = taxes.assessments(session, set(points.values()))
    ids = {content.subscription_id: new_id() for content in wanted}
    summed = {
        content.subscription_id: taxes.taxed(content.net, known[points[content.subscription_id]], content.currency) for content in wanted
    }
    copy_rows(session, Invoice, [_invoice(ids[c.subscription_id], c, summed[c.subscription_id]) for c in wanted])
    copy_rows(session, InvoiceLine, [_line(row, ids[c.subscription_id]) for c in wanted for row in c.rows])
    copy_rows(
        session,
        InvoiceTax,
        [summed[c.subscription_id].row(organization_id=c.organization_id, invoice_id=ids[c.subscription_id]) for c in wanted],
    )
    audit.record_all(session, [_drafted(actor, ids[c.subscription_id], c) for c in wanted])
    return ids


def _renew(session: Session, wanted: dict[uuid.UUID, Content], drafts: dict[uuid.UUID, Any]) -> dict[uuid.UUID, uuid.UUID]:
    if not wanted:
        return {}
    stored = _stored(session, list(wanted))
    by_hand = _by_hand(session, list(wanted))
    empty = {invoice_id for invoice_id, content in wanted.items() if not content.rows and invoice_id not in by_hand}
    if empty:
        session.execute(delete(Invoice).where(among(Invoice.id, empty)))
    kept = {invoice_id: content for invoice_id, content in wanted.items() if invoice_id not in empty}
    changed = {invoice_id: content for invoice_id, content in kept.items() if stored[invoice_id] != _compared(content.rows)}
    if changed:
        old = among(InvoiceLine.invoice_id, changed), InvoiceLine.kind != LineKind.MANUAL
        session.execute(delete(InvoiceLine).where(*old))
        copy_rows(session, InvoiceLine, [_line(row, invoice_id) for invoice_id, c in changed.items() for row in c.rows])
    _reschedule(session, {invoice_id: (content, drafts[content.subscription_id]) for invoice_id, content in kept.items()})
    if kept:
        taxes.renew(session, list(kept), at=next(iter(kept.values())).at)
    return {content.subscription_id: invoice_id for invoice_id, content in kept.items()}


def _reschedule(session: Session, kept: dict[uuid.UUID, tuple[Content, Any]]) -> None:
    """Period of all of them; reason, run and due time of those that took in a new billing. A run's draft goes on waiting for a person."""
    rows = []
    for invoice_id, (content, draft) in kept.items():
        billed_anew = not content.keep_schedule and bool(content.rows)
        times = [time for time in (content.auto_finalize_at, draft.auto_finalize_at) if time is not None]
        rows.append(
            {
                "id": invoice_id,
                "reason": content.reason.value if billed_anew else draft.reason,
                "run_id": (content.run_id or draft.run_id) if billed_anew else draft.run_id,
                "auto_finalize_at": min(times, default=None) if billed_anew and draft.run_id is None else draft.auto_finalize_at,
                "period_start": content.period.start if content.period else draft.billing_period_start,
                "period_end": content.period.end if content.period else draft.billing_period_end,
            }
        )
    if rows:
        session.execute(_RESCHEDULE, {name: [row[name] for row in rows] for name in rows[0]})


def _drafts(session: Session, subscription_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Any]:
    i = Invoice
    rows = session.execute(
        select(i.id, i.subscription_id, i.reason, i.run_id, i.auto_finalize_at, i.billing_period_start, i.billing_period_end)
        .where(among(i.subscription_id, subscription_ids), i.status == InvoiceStatus.DRAFT)
        .order_by(i.id)
        .with_for_update()
    )
    return {row.subscription_id: row for row in rows}


def _stored(session: Session, invoice_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, set[tuple[Any, ...]]]:
    found: dict[uuid.UUID, set[tuple[Any, ...]]] = {invoice_id: set() for invoice_id in invoice_ids}
    columns = [getattr(InvoiceLine, name) for name in COMPARED]
    rated = among(InvoiceLine.invoice_id, invoice_ids), InvoiceLine.kind != LineKind.MANUAL
    for invoice_id, *values in session.execute(select(InvoiceLine.invoice_id, *columns).where(*rated)):
        found[invoice_id].add(tuple(values))
    return found


def _compared(rows: Sequence[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {tuple(row[name] for name in COMPARED) for row in rows}


def _by_hand(session: Session, invoice_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    manual = among(InvoiceLine.invoice_id, invoice_ids), InvoiceLine.kind == LineKind.MANUAL
    return set(session.scalars(select(func.distinct(InvoiceLine.invoice_id)).where(*manual)))


def _line(row: dict[str, Any], invoice_id: uuid.UUID) -> dict[str, Any]:
    """The row as it is stored; its derivation is worked out only now, since a draft that is rated again has mostly not changed."""
    return {**row, "invoice_id": invoice_id, "detail": row["detail"]()}


def _invoice(invoice_id: uuid.UUID, content: Content, result: Taxed) -> dict[str, Any]:
    return {
        "id": invoice_id,
        "organization_id": content.organization_id,
        "subscription_id": content.subscription_id,
        "run_id": content.run_id,
        "status": InvoiceStatus.DRAFT.value,
        "reason": content.reason.value,
        "currency": content.currency,
        "subtotal_minor": result.totals.net,
        "tax_minor": result.totals.tax,
        "total_minor": result.totals.total,
        "amount_due_minor": max(result.totals.total, 0),
        "billing_period_start": content.period.start if content.period else None,
        "billing_period_end": content.period.end if content.period else None,
        "timezone": content.timezone,
        "auto_finalize_at": content.auto_finalize_at,
        "created_at": content.at,
    }


@dataclass(frozen=True, slots=True)
class _Subject:
    id: uuid.UUID
    organization_id: uuid.UUID
    __tablename__ = "invoices"


def _drafted(actor: Actor, invoice_id: uuid.UUID, content: Content) -> dict[str, Any]:
    return audit.entry(
        actor,
        "invoice.drafted",
        _Subject(invoice_id, content.organization_id),
        at=content.at,
        reason_code=content.reason.value,
        lines=len(content.rows),
        subtotal_minor=content.net,
        currency=content.currency,
    )


_RESCHEDULE = text(
    """
    UPDATE invoices SET reason = given.reason, run_id = given.run_id, auto_finalize_at = given.auto_finalize_at,
           billing_period_start = given.period_start, billing_period_end = given.period_end, updated_at = now()
      FROM unnest(:id ::uuid[], :reason ::text[], :run_id ::uuid[], :auto_finalize_at ::timestamptz[], :period_start ::timestamptz[],
                  :period_end ::timestamptz[])
           AS given(id, reason, run_id, auto_finalize_at, period_start, period_end)
     WHERE invoices.id = given.id
       AND (invoices.reason, invoices.run_id, invoices.auto_finalize_at, invoices.billing_period_start, invoices.billing_period_end)
           IS DISTINCT FROM (given.reason, given.run_id, given.auto_finalize_at, given.period_start, given.period_end)
    """
)
