"""Guesses are counted by account and by address; past the bound the next one is not even looked at. Nobody is locked out for good."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from core.errors import RateLimited
from core.identity.models import LoginAttempt

WINDOW = timedelta(minutes=15)
PER_ACCOUNT_MAX = 10
PER_ADDRESS_MAX = 50
PER_CODE_MAX = 10


def bounds(*, account: str, ip: str) -> dict[str, int]:
    """The counters of one sign-in by password, each with the failures it allows inside WINDOW."""
    return {f"account:{account}": PER_ACCOUNT_MAX, f"ip:{ip}": PER_ADDRESS_MAX}


def require_free(session: Session, limits: Mapping[str, int], *, at: datetime) -> None:
    """Raise RateLimited when any counter of `limits` is used up; the wait is until its oldest failure leaves the window."""
    rows = session.execute(
        select(LoginAttempt.key, func.count(), func.min(LoginAttempt.at))
        .where(LoginAttempt.key.in_(limits), LoginAttempt.at > at - WINDOW)
        .group_by(LoginAttempt.key)
    ).all()
    waits = [oldest + WINDOW - at for key, failures, oldest in rows if failures >= limits[key]]
    if waits:
        seconds = max(1, int(max(waits).total_seconds()))
        raise RateLimited(f"Too many attempts. Try again in {-(-seconds // 60)} min.", retry_after_seconds=seconds)


def note_failure(session: Session, limits: Mapping[str, int], *, at: datetime) -> None:
    """Count one failure on every counter; rows older than the window go."""
    session.execute(insert(LoginAttempt), [{"key": key, "at": at} for key in limits])
    session.execute(delete(LoginAttempt).where(LoginAttempt.key.in_(limits), LoginAttempt.at <= at - WINDOW))


def forget(session: Session, key: str) -> None:
    """Clear one counter after a success."""
    session.execute(delete(LoginAttempt).where(LoginAttempt.key == key))
