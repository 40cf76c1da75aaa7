"""Putting a counted revision in the metric's place, or giving it up.

Both numbers change owners: the metric's id and code stay what plans, limits and invoices name; its sums are those of the revision from
one instant on. Nothing that was billed changes; what open cycles owe does, and the next invoice settles it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from psycopg import Connection
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, InvalidTransition
from core.metering import partitions
from core.metering.corrections import gate
from core.metering.models import Metric
from core.metering.revisions.models import COUNTED, REST, MetricRevision, RevisionStatus
from core.metering.revisions.proposing import SAME_SHAPE, rest, said

OLDER = "SELECT min(hour) FROM usage_rollups WHERE metric_number = %s AND organization_number IN (SELECT number FROM organizations)"
FAR = datetime(9999, 1, 1, tzinfo=UTC)
TABLES = {"usage_rollups": "hour", "usage_daily": "day", "usage_unique_values": "hour", "usage_value_counts": "hour"}
COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
CARRY = """INSERT INTO {table} ({columns}) SELECT {values} FROM {table}
  WHERE metric_number = %(old)s AND {time} < %(first)s AND organization_number IN (SELECT number FROM organizations)
  ON CONFLICT DO NOTHING"""


def apply(session: Session, revision: MetricRevision, *, actor: Actor, at: datetime, trial: bool = False) -> MetricRevision:
    """Let the revision be what the metric says. InvalidTransition unless it is open, Conflict while it is counted; `trial` as in gate.

    Sums of days whose events are archived and gone are carried over where both definitions add up alike; else Conflict.
    """
    metric = _locked(session, revision)
    if revision.counted_at is None:
        raise Conflict("The revision is still being counted; look again in a moment.", code="being_counted")
    before, was = said(metric), rest(metric)
    with gate.held(session, trial=trial) as connection:
        _carry_over(connection, metric, revision)
    theirs = {name: getattr(revision, name) for name in COUNTED}
    mine = {name: getattr(metric, name) for name in COUNTED}
    numbers, earlier = (metric.number, revision.number), (metric.earlier, revision.earlier)
    made = {name: revision.rest.get(name) for name in REST}
    made["percentile"] = None if made["percentile"] is None else Decimal(made["percentile"])
    session.execute(
        update(MetricRevision)
        .where(MetricRevision.id == revision.id)
        .values(**mine, number=numbers[0], rest=was, earlier=earlier[0])
        .values(status=RevisionStatus.APPLIED, settled_at=at, settled_by_label=actor.label)
    )
    session.execute(
        update(Metric)
        .where(Metric.id == metric.id)
        .values(**theirs, **made, number=numbers[1], earlier=earlier[1], version=Metric.version + 1)
    )
    session.expire(revision)
    session.expire(metric)
    told: dict[str, Any] = {"metric": metric.code, "version": metric.version, "before": before, "after": said(metric)}
    audit.record(session, actor, "metric_revision.applied", revision, at=at, reason=revision.reason, **told)
    return revision


def discard(session: Session, revision: MetricRevision, *, actor: Actor, at: datetime) -> MetricRevision:
    """Give it up: it is not counted any further, the metric stays as it is."""
    metric = _locked(session, revision)
    revision.status, revision.settled_at, revision.settled_by_label = RevisionStatus.DISCARDED, at, actor.label
    audit.record(session, actor, "metric_revision.discarded", revision, at=at, metric=metric.code)
    return revision


def _locked(session: Session, revision: MetricRevision) -> Metric:
    """The revision's metric; both rows held. Raises InvalidTransition."""
    metric = session.scalars(select(Metric).where(Metric.id == revision.metric_id).with_for_update()).one()
    session.refresh(revision, with_for_update={"of": MetricRevision})
    if revision.status != RevisionStatus.OPEN:
        raise InvalidTransition(f"The revision was {revision.status}.")
    return metric


def _carry_over(connection: Connection[Any], metric: Metric, revision: MetricRevision) -> None:
    """Take the sums of days that no stored event is left of."""
    days = partitions.days(connection, "usage_events", before=date.max)
    first = datetime.combine(min(days), time(), UTC) if days else FAR
    row = connection.execute(OLDER, (metric.number,)).fetchone()
    if row is None or row[0] is None or row[0] >= first:
        return
    if any(getattr(metric, name) != getattr(revision, name) for name in SAME_SHAPE):
        raise Conflict(
            f"Sums before {first:%Y-%m-%d} cannot be counted anew, since their events were archived, and what is counted now cannot be "
            "added to them. Restore those days first.",
            code="events_archived",
        )
    asked = {"old": metric.number, "first": first}
    for table, time_column in TABLES.items():
        names = [name for (name,) in connection.execute(COLUMNS, (table,))]
        values = ", ".join(str(int(revision.number)) if name == "metric_number" else name for name in names)
        connection.execute(CARRY.format(table=table, columns=", ".join(names), values=values, time=time_column), asked)
