"""Taking a part of an allowance before the usage itself is recorded: exact under any number of requests at once.

A reservation counts against every limit on its metric until the usage event with the same idempotency key is counted (in that same
counting transaction), until it is given back, or until it expires.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from core.entitlements import counters, together
from core.entitlements.bounds import ADDITIVE
from core.entitlements.check import Decision, decide
from core.entitlements.models import UsageReservation
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.metering import metrics

SECONDS_MAX = 86_400
KEPT = timedelta(days=2)
LOCK = text("""SELECT pg_advisory_xact_lock(hashtextextended(:name, 7710007)),
  set_config('plan_cache_mode', 'force_generic_plan', true)""")
"""While others wait, nothing is planned that was planned before."""
TRIES = 2
"""Usage that is counted between reading reservations and reading usage is seen twice: a refusal is made sure of."""


@dataclass(frozen=True, slots=True)
class Consumed:
    """The decision and, when it is allowed, until when the allowance is held. `replayed`: this key held it already."""

    decision: Decision
    expires_at: datetime | None
    replayed: bool = False


def consume(
    session: Session,
    organization_id: uuid.UUID,
    *,
    metric: str,
    quantity: Decimal,
    key: str,
    expires_in: timedelta,
    at: datetime,
) -> Consumed:
    """Hold `quantity` of the metric's allowance for the usage event that will come with `key`, or say why not. `at` is real time.

    Requests about one customer and metric take turns, so hard limits are exact. The same key again is answered as before.
    Raises NotFound, Invalid for a metric that is no sum, Conflict when the key holds something else.
    """
    row = metrics.find(session, metric)
    if row.aggregation not in ADDITIVE:
        detail = f"Allowance is held for sums and counts; {row.code} is aggregated by {row.aggregation}. Ask the check instead."
        raise Invalid("This metric cannot be consumed.", errors=(FieldError("/metric", detail),))
    session.execute(LOCK, {"name": f"{organization_id} {row.id}"})
    found, holding, counted = together.read(session, organization_id, row.code, at=at)
    before = _held(session, organization_id, key)
    if before is not None and before.settled_at is None and before.expires_at <= at:
        session.delete(before)
        session.flush()
        before, counted = None, counters.read(session, found, holding, at=at)
    if before is not None:
        if (before.metric_id, before.quantity) != (row.id, quantity):
            raise Conflict("This key holds an allowance of another metric or quantity.", code="reservation_mismatch")
        return Consumed(decide(found, holding, counted, Decimal(0)), before.expires_at, replayed=True)
    decision = decide(found, holding, counted, quantity)
    for _ in range(TRIES - 1):
        if not decision.allowed and decision.reserved:
            counted = counters.read(session, found, holding, at=at)
            decision = decide(found, holding, counted, quantity)
    if not decision.allowed:
        return Consumed(decision, None)
    reservation = UsageReservation(
        organization_id=organization_id,
        idempotency_key=key,
        organization_number=found.number,
        metric_id=row.id,
        quantity=quantity,
        created_at=at,
        expires_at=at + expires_in,
    )
    session.add(reservation)
    session.flush()
    held = {subject: counter._replace(reserved=counter.reserved + quantity) for subject, counter in counted.items()}
    return Consumed(decide(found, holding, held, Decimal(0)), reservation.expires_at)


def release(session: Session, organization_id: uuid.UUID, *, key: str) -> None:
    """Give an allowance back that will not be used; NotFound when the key holds none, or its usage was counted."""
    gone = session.execute(
        delete(UsageReservation)
        .where(
            UsageReservation.organization_id == organization_id,
            UsageReservation.idempotency_key == key,
            UsageReservation.settled_at.is_(None),
        )
        .returning(UsageReservation.idempotency_key)
    ).all()
    if not gone:
        raise NotFound("There is no open reservation with this key.")


def forget(session: Session, *, at: datetime) -> int:
    """Delete reservations that were settled or expired two days ago; returns how many."""
    old = UsageReservation.created_at < at - KEPT - timedelta(seconds=SECONDS_MAX)
    return len(session.execute(delete(UsageReservation).where(old).returning(UsageReservation.idempotency_key)).all())


def _held(session: Session, organization_id: uuid.UUID, key: str) -> UsageReservation | None:
    return session.scalars(
        select(UsageReservation)
        .where(UsageReservation.organization_id == organization_id, UsageReservation.idempotency_key == key)
        .execution_options(populate_existing=True)
    ).one_or_none()
