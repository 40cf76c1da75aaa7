"""Whose limits to look at: counting touches customers that have any, the scheduler finds them by that, a lease keeps workers apart."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from core.entitlements.models import LimitWatch

BATCH_MAX = 500
LEASE = timedelta(seconds=30)
STALE = timedelta(minutes=5)
"""Spend changes with time too (a price billed in advance): nobody goes unlooked at for longer."""

WATCH = text("""
INSERT INTO limit_watch AS w (organization_number, organization_id, touched_from)
SELECT o.number, o.id, CAST(:at AS timestamptz) FROM organizations o WHERE o.id = :organization_id
ON CONFLICT (organization_number) DO UPDATE SET touched_from = coalesce(w.touched_from, excluded.touched_from)""")
PLANNED = text("""
INSERT INTO limit_watch AS w (organization_number, organization_id, touched_from)
SELECT o.number, o.id, CAST(:at AS timestamptz) FROM organizations o WHERE o.id IN (
  SELECT t.organization_id FROM subscription_terms t JOIN plan_versions v ON v.id = t.plan_version_id
  JOIN subscriptions s ON s.id = t.subscription_id WHERE v.limits <> '{}' AND s.status <> 'canceled')
  AND NOT EXISTS (SELECT FROM limit_watch known WHERE known.organization_id = o.id)
ON CONFLICT (organization_number) DO NOTHING""")


def add(session: Session, organization_id: uuid.UUID, *, at: datetime) -> None:
    """Watch the customer, and have it looked at soon. `at` is real time."""
    session.execute(WATCH, {"organization_id": organization_id, "at": at})


def refresh(session: Session, *, at: datetime) -> None:
    """Watch customers whose plan has limits; look again at those nobody looked at for a while, or whose worker died."""
    session.execute(PLANNED, {"at": at})
    row = LimitWatch
    stale = row.touched_from.is_(None) & (
        (row.claimed_at < at - LEASE) | (row.claimed_at.is_(None) & (row.evaluated_at.is_(None) | (row.evaluated_at < at - STALE)))
    )
    session.execute(update(row).where(stale).values(touched_from=at, claimed_at=None))


def touched(session: Session) -> bool:
    """Whether anybody is to be looked at."""
    return session.scalar(select(LimitWatch.organization_id).where(LimitWatch.touched_from.is_not(None)).limit(1)) is not None


def claim(session: Session, *, at: datetime, limit: int = BATCH_MAX) -> Mapping[uuid.UUID, datetime]:
    """Take customers to evaluate, each with the arrival of its oldest usage not looked at yet. Commit before reading their usage:

    what is counted from then on touches them anew. A customer a flush is just touching is left to the next claim.
    """
    rows = session.execute(
        select(LimitWatch.organization_number, LimitWatch.organization_id, LimitWatch.touched_from)
        .where(LimitWatch.touched_from.is_not(None))
        .order_by(LimitWatch.touched_from)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    numbers = [row.organization_number for row in rows]
    session.execute(update(LimitWatch).where(LimitWatch.organization_number.in_(numbers)).values(touched_from=None, claimed_at=at))
    return {row.organization_id: row.touched_from for row in rows}


def done(session: Session, organization_ids: list[uuid.UUID], *, at: datetime) -> None:
    """They were evaluated."""
    session.execute(update(LimitWatch).where(LimitWatch.organization_id.in_(organization_ids)).values(claimed_at=None, evaluated_at=at))
