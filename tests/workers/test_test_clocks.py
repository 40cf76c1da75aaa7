"""A test clock walks to where it was sent although others hold what is due, and although it is sent for twice."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta

from flask import Flask
from sqlalchemy import func, select

from core import test_clocks
from core.audit import SYSTEM
from core.db import only_one, transaction
from core.identity.models import Organization
from core.invoicing.models import Invoice
from core.subscriptions.models import Subscription
from tests.factories import make_organization, make_plan, make_subscription
from workers import test_clocks as walker
from workers.test_clocks import advance_test_clock

START = datetime(2026, 3, 1, tzinfo=UTC)


def sent(days: int) -> uuid.UUID:
    """A clock at `START` with one subscriber on it, sent `days` ahead."""
    with transaction() as session:
        clock = test_clocks.create(session, frozen_time=START, name="Walk", actor=SYSTEM, at=START)
        organization = make_organization(session, auto_collect=False, test_clock=clock)
        make_subscription(session, organization, make_plan(session), start_at=START + timedelta(days=1))
        test_clocks.request_advance(session, clock.id, to=START + timedelta(days=days), actor=SYSTEM, at=START)
        return clock.id


def state(clock_id: uuid.UUID) -> tuple[datetime, datetime | None, str | None, int]:
    """Where the clock stands, where it goes, what stopped it, and how many invoices its customer has."""
    with transaction() as session:
        clock = test_clocks.get(session, clock_id)
        invoices = select(func.count()).select_from(Invoice).join(Organization, Organization.id == Invoice.organization_id)
        count = session.scalar(invoices.where(Organization.test_clock_id == clock_id)) or 0
        return clock.frozen_time, clock.advance_to, clock.last_error, count


def test_a_subscription_that_somebody_holds_only_delays_the_clock(worker: Flask) -> None:
    clock_id = sent(days=2)
    with transaction() as session:
        owned = select(Subscription).join(Organization, Organization.id == Subscription.organization_id)
        session.scalars(owned.where(Organization.test_clock_id == clock_id).with_for_update(of=Subscription)).one()
        walking = threading.Thread(target=lambda: _in(worker, clock_id))
        walking.start()
        walking.join(timeout=1.5)
        assert walking.is_alive()
    walking.join(timeout=30)
    assert state(clock_id) == (START + timedelta(days=2), None, None, 1)


def test_a_second_walker_leaves_the_clock_to_the_first(worker: Flask) -> None:
    clock_id = sent(days=2)
    with only_one(walker.lock_of(clock_id)) as mine:
        assert mine
        advance_test_clock.fn(str(clock_id))
        assert state(clock_id) == (START, START + timedelta(days=2), None, 0)
    advance_test_clock.fn(str(clock_id))
    advance_test_clock.fn(str(clock_id))
    assert state(clock_id) == (START + timedelta(days=2), None, None, 1)


def _in(app: Flask, clock_id: uuid.UUID) -> None:
    with app.app_context():
        advance_test_clock.fn(str(clock_id))
