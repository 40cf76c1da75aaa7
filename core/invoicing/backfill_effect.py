"""What applying or reverting a file of past usage changes: hour by hour, and in money. A dry run is the act itself, taken back."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.orm import Session

from core import config
from core.audit import Actor
from core.errors import Conflict
from core.invoicing import usage_effect
from core.invoicing.usage_effect import Effect
from core.metering.corrections import applying
from core.metering.corrections.applying import Done
from core.metering.queries import Wanted, usage_sums
from core.money import to_decimal

HOURS_TOLD_MAX = 500
HOUR = timedelta(hours=1)
PEOPLE = ("user", "operator")
TOUCHED = """SELECT DISTINCT m.id, m.code, date_trunc('hour', r."timestamp", 'UTC') AS hour
  FROM usage_backfill_rows r JOIN usage_event_names n ON n.number = r.event_number
  JOIN metrics m ON m.event_name = n.name AND m.archived_at IS NULL
  WHERE r.backfill_id = :id AND r.fault IS NULL ORDER BY m.code, hour LIMIT :limit"""


@dataclass(frozen=True, slots=True)
class HourTotal:
    """The quantity of a metric in one UTC hour, before and after."""

    metric: str
    hour: datetime
    before: Decimal
    after: Decimal


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, or would be; `hours` are those that change among the first HOURS_TOLD_MAX that the file touches."""

    done: Done
    hours: tuple[HourTotal, ...]
    effect: Effect


def apply(
    session: Session, organization_id: uuid.UUID, backfill_id: uuid.UUID, *, actor: Actor, at: datetime, dry_run: bool = False
) -> Outcome:
    """As `applying.apply`; Conflict also where an event's billing period is closed for good, or where a second person is needed."""
    outcome = _outcome(
        session,
        organization_id,
        backfill_id,
        lambda: applying.apply(session, organization_id, backfill_id, actor=actor, at=at, trial=dry_run),
        at=at,
        dry_run=dry_run,
    )
    if not dry_run and (why := barred(outcome, actor)) is not None:
        raise Conflict(why, code="approval_needed")
    return outcome


def barred(outcome: Outcome, actor: Actor) -> str | None:
    """Why the actor may not apply the file, if so: one that is large, or moves much money, takes a person who has not staged it."""
    settings, made = config.current(), outcome.done.backfill
    events, amount = settings.usage_backfill_alone_events, settings.usage_backfill_alone_amount
    moved = sum((abs(to_decimal(change.minor, change.currency)) for change in outcome.effect.changes), Decimal(0))
    if outcome.done.counted <= events and moved <= amount:
        return None
    if actor.id != made.staged_by and actor.kind in PEOPLE:
        return None
    return (
        f"A file of more than {events} events, or one that moves more than {amount} in money, is applied by a person other than who "
        f"staged it ({made.staged_by_label})."
    )


def revert(
    session: Session,
    organization_id: uuid.UUID,
    backfill_id: uuid.UUID,
    *,
    reason: str,
    actor: Actor,
    at: datetime,
    dry_run: bool = False,
) -> Outcome:
    """As `applying.revert`; see `apply`."""
    return _outcome(
        session,
        organization_id,
        backfill_id,
        lambda: applying.revert(session, organization_id, backfill_id, reason=reason, actor=actor, at=at, trial=dry_run),
        at=at,
        dry_run=dry_run,
    )


def _outcome(
    session: Session, organization_id: uuid.UUID, backfill_id: uuid.UUID, act: Callable[[], Done], *, at: datetime, dry_run: bool
) -> Outcome:
    rows = session.execute(text(TOUCHED), {"id": backfill_id, "limit": HOURS_TOLD_MAX}).all()
    wanted: list[Wanted] = [(organization_id, row.id, row.hour, row.hour + HOUR) for row in rows]
    before = usage_sums(session, wanted)

    def carry_out() -> tuple[Done, dict[Wanted, Decimal]]:
        return act(), usage_sums(session, wanted)

    (done, after), effect = usage_effect.measured(
        session, organization_id, carry_out, lambda found: found[0].instants, at=at, dry_run=dry_run
    )
    told = (HourTotal(row.code, row.hour, before[one], after[one]) for row, one in zip(rows, wanted, strict=True))
    return Outcome(done, tuple(hour for hour in told if hour.before != hour.after), effect)
