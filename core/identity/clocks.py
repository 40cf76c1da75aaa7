"""Test clocks: making one. Advancing it runs everything that falls due on the way, which is core.test_clocks' work."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.identity.models import TestClock


def create(session: Session, *, frozen_time: datetime, name: str = "", actor: Actor, at: datetime) -> TestClock:
    """A clock that stands at `frozen_time` until it is advanced."""
    clock = TestClock(name=name, frozen_time=frozen_time, created_at=at)
    session.add(clock)
    session.flush()
    audit.record(session, actor, "test_clock.created", clock, at=at, frozen_time=frozen_time)
    return clock
