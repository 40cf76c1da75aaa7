"""Billing work found by its state, for the sweeps of real time (a test clock walks by itself)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.identity.models import Organization
from core.invoicing.models import Invoice, InvoiceDocument, InvoiceStatus, RunError
from core.metering import queries as metering
from core.subscriptions import queries as subscriptions

RETRY_AFTER = timedelta(minutes=10)
"""How long a subscription that could not be rated is left alone."""
SET_SIZE = 1_000
FINALIZE_SET_SIZE = 500


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """A set of due subscriptions; `last_id` is where the next set begins (None: this was the last)."""

    ids: list[uuid.UUID]
    last_id: uuid.UUID | None


def to_bill(session: Session, *, as_of: datetime, after_id: uuid.UUID | None = None, limit: int = SET_SIZE) -> Subscriptions:
    """Subscriptions something has fallen due for, behind `after_id`; those that failed a moment ago wait for their next try."""
    due = subscriptions.due_ids(session, as_of=as_of, after_id=after_id, limit=limit)
    failed = RunError.subscription_id.in_(due), RunError.resolved_at.is_(None), RunError.at > as_of - RETRY_AFTER
    resting = set(session.scalars(select(RunError.subscription_id).where(*failed))) if due else set()
    return Subscriptions([found for found in due if found not in resting], due[-1] if due else None)


def to_finalize(session: Session, *, at: datetime, limit: int = FINALIZE_SET_SIZE) -> list[uuid.UUID]:
    """Drafts whose time has come, oldest first: everything accepted until then has been counted, so nothing that came in time is missed."""
    counted_up_to = metering.freshness(session, None, at=at).counted_up_to
    rows = session.scalars(
        select(Invoice.id)
        .join(Organization, Organization.id == Invoice.organization_id)
        .where(
            Invoice.status == InvoiceStatus.DRAFT,
            Invoice.held_reason.is_(None),
            Invoice.auto_finalize_at <= min(at, counted_up_to),
            Organization.test_clock_id.is_(None),
        )
        .order_by(Invoice.auto_finalize_at, Invoice.id)
        .limit(limit)
    )
    return list(rows)


def to_print(session: Session, *, limit: int = 200) -> list[uuid.UUID]:
    """Finalized invoices without their PDF, oldest first."""
    printed = select(InvoiceDocument.invoice_id).where(InvoiceDocument.invoice_id == Invoice.id).exists()
    return list(session.scalars(select(Invoice.id).where(Invoice.finalized_at.is_not(None), ~printed).order_by(Invoice.id).limit(limit)))
