"""What identity keeps goes when its time is over, and not before."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.identity import retention, sessions, throttle
from core.identity.models import IdempotencyRecord, LoginAttempt, LoginSession
from tests.conftest import Clock
from tests.people import SETUP, make_user


def test_rows_go_when_their_time_is_over(session: Session, clock: Clock) -> None:
    user, start = make_user(session), clock.now()
    ended, _ = sessions.begin(session, user, site="portal", at=start)
    sessions.begin(session, user, site="portal", at=start)
    sessions.end(session, ended, actor=SETUP, at=start)
    session.add(IdempotencyRecord(principal="p", key="k", request_hash=b"", created_at=start))
    throttle.note_failure(session, {"ip:192.0.2.1": 1}, at=start)
    session.flush()

    def left() -> tuple[int, ...]:
        return tuple(
            session.scalar(select(func.count()).select_from(kind)) or 0 for kind in (IdempotencyRecord, LoginSession, LoginAttempt)
        )

    second = timedelta(seconds=1)
    for passed, expected in (
        (timedelta(minutes=15) - second, (1, 2, 1)),
        (timedelta(minutes=15), (1, 2, 0)),
        (timedelta(days=30), (1, 1, 0)),
        (timedelta(days=37), (1, 0, 0)),
        (timedelta(days=42), (0, 0, 0)),
    ):
        retention.purge(session, at=start + passed)
        assert left() == expected, passed
