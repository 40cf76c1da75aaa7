"""Test clocks: advancing one brings everything to pass that falls due on the way, in order, for the organizations bound to it.

The clock stops at each instant at which something is due; `due_now` says what, the worker carries it out (workers/test_clocks.py) with
the very functions that real time uses, and `step` moves on. A killed worker leaves `advance_to` set: the next one continues from there.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit, jobs
from core.audit import Actor
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.identity.models import Organization, TestClock
from core.invoicing import credit_expiry
from core.invoicing.models import Invoice, InvoiceStatus
from core.payments import standing
from core.subscriptions.models import Subscription

ADVANCE_DAYS_MAX = 2 * 366


@dataclass(frozen=True, slots=True)
class Due:
    """What waits at the clock's instant: subscriptions to rate, drafts to finalize, invoices to charge, standings to review, credits
    that expire."""

    at: datetime
    subscription_ids: list[uuid.UUID]
    draft_ids: list[uuid.UUID]
    invoice_ids: list[uuid.UUID]
    standing_ids: list[uuid.UUID]
    credit_ids: list[uuid.UUID]

    def __bool__(self) -> bool:
        return bool(self.subscription_ids or self.draft_ids or self.invoice_ids or self.standing_ids or self.credit_ids)


def create(session: Session, *, frozen_time: datetime, name: str, actor: Actor, at: datetime) -> TestClock:
    """A new clock that stands at `frozen_time` until it is advanced. `at` is real time."""
    clock = TestClock(frozen_time=frozen_time, name=name)
    session.add(clock)
    session.flush()
    audit.record(session, actor, "test_clock.created", clock, at=at, frozen_time=frozen_time)
    return clock


def get(session: Session, clock_id: uuid.UUID) -> TestClock:
    """The clock as committed; NotFound."""
    clock = session.get(TestClock, clock_id, populate_existing=True)
    if clock is None:
        raise NotFound("There is no such test clock.")
    return clock


def request_advance(session: Session, clock_id: uuid.UUID, *, to: datetime, actor: Actor, at: datetime) -> TestClock:
    """Ask for the clock to move to `to`; the job `advance_test_clock` walks there. Invalid for the past or beyond two years."""
    clock = session.get(TestClock, clock_id, with_for_update=True, populate_existing=True)
    if clock is None:
        raise NotFound("There is no such test clock.")
    if clock.advance_to is not None:
        raise Conflict(f"The clock is already on its way to {clock.advance_to.isoformat()}.", code="clock_advancing")
    if to < clock.frozen_time:
        raise Invalid(
            "A test clock only moves forward.", errors=(FieldError("/to", f"must not be before {clock.frozen_time.isoformat()}"),)
        )
    if to > clock.frozen_time + timedelta(days=ADVANCE_DAYS_MAX):
        raise Invalid("The step is too long.", errors=(FieldError("/to", "must be within two years of the clock's time"),))
    clock.advance_to = to
    clock.last_error = None
    audit.record(session, actor, "test_clock.advance_requested", clock, at=at, to=to)
    jobs.enqueue(session, "advance_test_clock", clock.id)
    return clock


def advancing(session: Session) -> list[uuid.UUID]:
    """Clocks on their way, for the sweep that continues a killed worker's walk."""
    return list(session.scalars(select(TestClock.id).where(TestClock.advance_to.is_not(None))))


def due_now(session: Session, clock_id: uuid.UUID) -> Due:
    """What is due at the clock's present instant."""
    at = get(session, clock_id).frozen_time
    return Due(
        at,
        list(session.scalars(_bound(select(Subscription.id), Subscription, clock_id).where(Subscription.next_bill_at <= at))),
        list(session.scalars(_drafts(select(Invoice.id), clock_id).where(Invoice.auto_finalize_at <= at))),
        list(session.scalars(_collectable(select(Invoice.id), clock_id).where(Invoice.next_collect_at <= at))),
        list(standing.waiting(session, as_of=at, clock_id=clock_id)),
        list(credit_expiry.waiting(session, as_of=at, clock_id=clock_id)),
    )


def step(session: Session, clock_id: uuid.UUID) -> bool:
    """Move the clock to the next instant at which something falls due, or to its goal; False once it stands there.

    Call it only when `due_now` is empty.
    """
    clock = session.get(TestClock, clock_id, with_for_update=True, populate_existing=True)
    if clock is None or clock.advance_to is None:
        return False
    upcoming = [
        session.scalar(_bound(select(Subscription.next_bill_at), Subscription, clock_id).order_by(Subscription.next_bill_at).limit(1)),
        session.scalar(_drafts(select(Invoice.auto_finalize_at), clock_id).order_by(Invoice.auto_finalize_at).limit(1)),
        session.scalar(_collectable(select(Invoice.next_collect_at), clock_id).order_by(Invoice.next_collect_at).limit(1)),
        standing.next_suspension(session, clock_id=clock_id),
        credit_expiry.next_look(session, clock_id=clock_id),
    ]
    stops = [instant for instant in upcoming if instant is not None and clock.frozen_time < instant <= clock.advance_to]
    if stops:
        clock.frozen_time = min(stops)
        return True
    clock.frozen_time, clock.advance_to = clock.advance_to, None
    return False


def fail(session: Session, clock_id: uuid.UUID, *, error: str) -> None:
    """Stop the walk where it stands and say why."""
    clock = get(session, clock_id)
    clock.advance_to = None
    clock.last_error = error


def _bound(query, row, clock_id: uuid.UUID):  # type: ignore[no-untyped-def]  # SQLAlchemy's Select is generic in its columns
    return query.join(Organization, Organization.id == row.organization_id).where(Organization.test_clock_id == clock_id)


def _drafts(query, clock_id: uuid.UUID):  # type: ignore[no-untyped-def]
    drafts = _bound(query, Invoice, clock_id).where(Invoice.status == InvoiceStatus.DRAFT, Invoice.held_reason.is_(None))
    return drafts.where(Invoice.auto_finalize_at.is_not(None))


def _collectable(query, clock_id: uuid.UUID):  # type: ignore[no-untyped-def]
    return _bound(query, Invoice, clock_id).where(Invoice.status == InvoiceStatus.OPEN, Invoice.next_collect_at.is_not(None))
