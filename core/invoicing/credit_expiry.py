"""Credit that expires: the customer is told two weeks ahead, and on the day what is left of it is taken back and booked.

Found by state, so that a worker may look at any time, twice, or late: what has expired is not counted as credit in between.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, or_, select
from sqlalchemy.orm import Session

from core import audit
from core.audit import SYSTEM
from core.db import among
from core.identity.models import Organization
from core.invoicing import grants
from core.invoicing.credit_models import AccountCredit

NOTICE = timedelta(days=14)
SET_SIZE = 200
_LASTING = AccountCredit.remaining_minor > 0, AccountCredit.expires_at.is_not(None)
_UNTOLD = AccountCredit.expiry_told_at.is_(None)


def waiting(session: Session, *, as_of: datetime, clock_id: uuid.UUID | None = None, limit: int = SET_SIZE) -> Sequence[uuid.UUID]:
    """Credits to be told of or taken back by `as_of`: those of accounts in real time, or bound to the test clock."""
    late = or_(AccountCredit.expires_at <= as_of, (AccountCredit.expires_at <= as_of + NOTICE) & _UNTOLD)
    return session.scalars(
        select(AccountCredit.id)
        .join(Organization, Organization.id == AccountCredit.organization_id)
        .where(*_LASTING, late, _bound(clock_id))
        .order_by(AccountCredit.expires_at, AccountCredit.id)
        .limit(limit)
    ).all()


def look(session: Session, credit_ids: Sequence[uuid.UUID], *, at: datetime) -> None:
    """Take back what has expired by `at`, tell of what expires soon. Credits that an invoice is using now are left to the next look."""
    rows = session.scalars(
        select(AccountCredit)
        .where(among(AccountCredit.id, credit_ids), *_LASTING)
        .order_by(AccountCredit.id)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    expired = [credit for credit in rows if credit.expires_at is not None and credit.expires_at <= at]
    grants.expire(session, expired, at=at)
    facts = []
    for credit in rows:
        if credit.expiry_told_at is None and credit not in expired and credit.expires_at is not None and credit.expires_at <= at + NOTICE:
            credit.expiry_told_at = at
            told: dict[str, Any] = {"name": credit.name, "remaining_minor": credit.remaining_minor, "currency": credit.currency}
            facts.append(audit.entry(SYSTEM, "credit.expiring", credit, at=at, expires_at=credit.expires_at, **told))
    audit.record_all(session, facts)


def next_look(session: Session, *, clock_id: uuid.UUID) -> datetime | None:
    """When the next credit on the test clock is to be told of or expires; None when none is."""
    moment = case((_UNTOLD, AccountCredit.expires_at - NOTICE), else_=AccountCredit.expires_at)
    mine = select(func.min(moment)).join(Organization, Organization.id == AccountCredit.organization_id)
    found: datetime | None = session.scalar(mine.where(*_LASTING, _bound(clock_id)))
    return found


def _bound(clock_id: uuid.UUID | None) -> ColumnElement[bool]:
    return Organization.test_clock_id.is_(None) if clock_id is None else Organization.test_clock_id == clock_id
