"""How long what identity keeps is kept: answers under idempotency keys 42 days, sign-ins 30 days after their end, guesses 15 min."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, func
from sqlalchemy.orm import Session

from core.identity.models import IdempotencyRecord, LoginAttempt, LoginSession
from core.identity.throttle import WINDOW

ANSWERS_KEPT = timedelta(days=42)
SESSIONS_KEPT = timedelta(days=30)


def purge(session: Session, *, at: datetime) -> int:
    """Delete what is older than it is kept; returns how many rows went. `at` is the machine's time."""
    ended = func.least(LoginSession.expires_at, func.coalesce(LoginSession.ended_at, LoginSession.expires_at))
    old = (
        delete(IdempotencyRecord).where(IdempotencyRecord.created_at <= at - ANSWERS_KEPT).returning(IdempotencyRecord.id),
        delete(LoginSession).where(ended <= at - SESSIONS_KEPT).returning(LoginSession.id),
        delete(LoginAttempt).where(LoginAttempt.at <= at - WINDOW).returning(LoginAttempt.id),
    )
    return sum(len(session.execute(statement.execution_options(synchronize_session=False)).all()) for statement in old)
