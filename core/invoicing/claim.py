"""Taking hold of subscriptions to bill: locked rows with what billing needs to know of them, and where they stand afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core.db import among
from core.identity.models import Organization
from core.invoicing.models import Invoice, InvoiceStatus
from core.pricing.terms import Term
from core.pricing.timeline import current_cycle
from core.subscriptions import status, trials
from core.subscriptions.models import Subscription, SubscriptionStatus


@dataclass(frozen=True, slots=True)
class Claimed:
    """A subscription locked for billing, as of the instant `as_of`."""

    id: uuid.UUID
    organization_id: uuid.UUID
    currency: str
    timezone: str
    status: str
    ends_at: datetime | None
    billed_through: datetime | None
    as_of: datetime


def lock(session: Session, subscription_ids: Collection[uuid.UUID], *, as_of: datetime) -> list[Claimed]:
    """Lock the subscriptions in order of id, waiting for whoever holds one; each is billed as of `as_of`."""
    rows = session.execute(_chosen(subscription_ids).with_for_update(of=Subscription))
    return _after_trials(session, [_claimed(row, as_of) for row in rows])


def lock_due(session: Session, subscription_ids: Collection[uuid.UUID], *, as_of: datetime) -> list[Claimed]:
    """Lock those that are still due and that nobody else is working on, each as of the instant it fell due.

    A subscription that missed several cycles is so billed cycle by cycle, one a call; one whose last draft waits to be finalized waits too.
    """
    waiting = select(Invoice.id).where(
        Invoice.subscription_id == Subscription.id,
        Invoice.status == InvoiceStatus.DRAFT,
        Invoice.held_reason.is_(None),
        Invoice.auto_finalize_at <= as_of,
    )
    due = _chosen(subscription_ids).where(Subscription.next_bill_at <= as_of, ~waiting.exists())
    due = due.with_for_update(of=Subscription, skip_locked=True)
    return _after_trials(session, [_claimed(row, row.next_bill_at) for row in session.execute(due)])


def lock_as_billed(session: Session, subscription_ids: Collection[uuid.UUID], *, at: datetime) -> list[Claimed]:
    """Lock subscriptions whose drafts are looked at again, each as of the instant it was last billed to (`at` if never)."""
    again = _chosen(subscription_ids).with_for_update(of=Subscription)
    return [_claimed(row, row.billed_through or at) for row in session.execute(again)]


def advance(session: Session, claimed: Sequence[tuple[Claimed, tuple[Term, ...]]]) -> None:
    """Move the subscriptions on: billed through their instant, due again at the next, current period and status as time made them."""
    plain = [(entry, terms) for entry, terms in claimed if _renews_plainly(entry, terms)]
    if plain:
        rows = [_advanced(entry, terms) for entry, terms in plain]
        session.execute(_ADVANCE, {name: [row[name] for row in rows] for name in rows[0]})
    turning = {entry.id: entry for entry, terms in claimed if not _renews_plainly(entry, terms)}
    if turning:
        chosen = select(Subscription).where(among(Subscription.id, turning)).execution_options(populate_existing=True)
        for subscription in session.scalars(chosen):
            entry = turning[subscription.id]
            status.advance(session, [subscription], as_of=entry.as_of)
            subscription.billed_through = max(entry.as_of, entry.billed_through or entry.as_of)
        session.flush()


def _after_trials(session: Session, claimed: list[Claimed]) -> list[Claimed]:
    """The same; trials that are over and do not convert have ended first."""
    in_trial = {entry.id: entry.as_of for entry in claimed if entry.status == SubscriptionStatus.TRIALING}
    if in_trial:
        trials.end_without_method(session, in_trial)
    return claimed


def _renews_plainly(entry: Claimed, terms: tuple[Term, ...]) -> bool:
    """Whether one term has held since the last billing and goes on: then nothing but the period and the next instant changes."""
    since = entry.billed_through or entry.as_of
    running = [term for term in terms if term.start <= entry.as_of and (term.end is None or term.end > since)]
    return entry.ends_at is None and entry.status == SubscriptionStatus.ACTIVE and len(running) == 1 and running[0].end is None


def _chosen(subscription_ids: Collection[uuid.UUID]) -> Any:
    s = Subscription
    return (
        select(s.id, s.organization_id, s.currency, s.status, s.ends_at, s.billed_through, s.next_bill_at, Organization.timezone)
        .join(Organization, Organization.id == s.organization_id)
        .where(among(s.id, subscription_ids))
        .order_by(s.id)
    )


def _claimed(row: Any, as_of: datetime) -> Claimed:
    return Claimed(row.id, row.organization_id, row.currency, row.timezone, row.status, row.ends_at, row.billed_through, as_of)


def _advanced(entry: Claimed, terms: tuple[Term, ...]) -> dict[str, Any]:
    cycle = current_cycle(terms, as_of=entry.as_of)
    first = min((term.start for term in terms if not term.is_trial), default=None)
    return {
        "id": entry.id,
        "billed_through": max(entry.as_of, entry.billed_through or entry.as_of),
        "next_bill_at": status.next_look(terms, after=entry.as_of),
        "period_start": max(cycle.start, first) if cycle and first else None,
        "period_end": cycle.end if cycle else None,
    }


_ADVANCE = text(
    """
    UPDATE subscriptions SET billed_through = moved.billed_through, next_bill_at = moved.next_bill_at,
           current_period_start = coalesce(moved.period_start, current_period_start),
           current_period_end = coalesce(moved.period_end, current_period_end), updated_at = now()
      FROM unnest(:id ::uuid[], :billed_through ::timestamptz[], :next_bill_at ::timestamptz[], :period_start ::timestamptz[],
                  :period_end ::timestamptz[])
           AS moved(id, billed_through, next_bill_at, period_start, period_end)
     WHERE subscriptions.id = moved.id
    """
)
