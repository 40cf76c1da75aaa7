"""Proposing another definition of a metric, and looking at those that were proposed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.db import new_id
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.metering.definition import Definition, faults
from core.metering.models import Metric
from core.metering.revisions.models import COUNTED, REST, MetricRevision, RevisionStatus
from core.metering.windows import hour_floor

NUMBER = text("SELECT nextval(pg_get_serial_sequence('metrics', 'number'))")
SAME_SHAPE = ("aggregation", "group_by", "recurring")
"""What must stay as it is when the past before an instant does: sums of both sides of it are put together."""
OF_BEFORE = ("property", "expression", "filters", "operation_property")


def propose(
    session: Session, metric: Metric, *, since: datetime | None, reason: str, actor: Actor, at: datetime, **given: Any
) -> MetricRevision:
    """Begin to count the metric by another definition, beside the one that holds; `given` are fields of a Definition.

    With `since` (a whole UTC hour) events before it go on being read as before. Raises Invalid, or Conflict when the metric is being
    counted or revised already.
    """
    if metric.counted_at is None:
        raise Conflict("The metric's past is still being counted; revise it when that is done.", code="being_counted")
    if _open(session, metric.id) is not None:
        raise Conflict("The metric is being revised already: apply or discard that revision first.", code="revision_open")
    definition = Definition(code=metric.code, name=metric.name, event_name=metric.event_name, unit=metric.unit, **given)
    wanted = definition.row()
    errors = [*faults(definition), *_faults(metric, wanted, since, at)]
    if errors:
        raise Invalid("The metric was not revised.", errors=tuple(errors))
    revision = MetricRevision(
        id=new_id(),
        metric_id=metric.id,
        status=RevisionStatus.OPEN,
        number=session.scalars(NUMBER).one(),
        event_name=metric.event_name,
        **{name: getattr(wanted, name) for name in COUNTED},
        rest=rest(wanted),
        earlier=_earlier(metric, since) if since else [],
        since=since,
        reason=reason,
        created_at=at,
        created_by=actor.id,
        created_by_label=actor.label,
    )
    session.add(revision)
    session.flush()
    told: dict[str, Any] = {
        "metric": metric.code,
        "since": since.isoformat() if since else None,
        "before": said(metric),
        "after": said(wanted),
    }
    audit.record(session, actor, "metric_revision.proposed", revision, at=at, reason=reason, **told)
    return revision


def get(session: Session, metric: Metric, revision_id: uuid.UUID) -> MetricRevision:
    """A revision of the metric. Raises NotFound."""
    found = session.scalar(select(MetricRevision).where(MetricRevision.id == revision_id, MetricRevision.metric_id == metric.id))
    if found is None:
        raise NotFound("There is no such revision of the metric.")
    return found


def newest(session: Session, metric: Metric, *, before: uuid.UUID | None = None, limit: int = 50) -> list[MetricRevision]:
    """The metric's revisions, newest first."""
    query = select(MetricRevision).where(MetricRevision.metric_id == metric.id).order_by(MetricRevision.id.desc()).limit(limit)
    return list(session.scalars(query if before is None else query.where(MetricRevision.id < before)))


def open_ones(session: Session) -> dict[uuid.UUID, MetricRevision]:
    """Revisions that wait for a decision, by metric."""
    rows = session.scalars(select(MetricRevision).where(MetricRevision.status == RevisionStatus.OPEN))
    return {row.metric_id: row for row in rows}


def rest(row: Metric) -> dict[str, Any]:
    """What a metric makes of its sums, as JSON values."""
    found = {name: getattr(row, name) for name in REST}
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in found.items()}


def said(row: Metric | MetricRevision) -> dict[str, Any]:
    """A definition as JSON values."""
    made = rest(row) if isinstance(row, Metric) else {name: row.rest.get(name) for name in REST}
    return {name: getattr(row, name) for name in COUNTED} | made


def _open(session: Session, metric_id: uuid.UUID) -> uuid.UUID | None:
    mine = MetricRevision.metric_id == metric_id, MetricRevision.status == RevisionStatus.OPEN
    return session.scalar(select(MetricRevision.id).where(*mine).with_for_update(of=MetricRevision))


def _faults(metric: Metric, wanted: Metric, since: datetime | None, at: datetime) -> list[FieldError]:
    found = []
    if said(wanted) == _plain(said(metric)):
        found.append(FieldError("", "This is what the metric says already."))
    if since is None:
        return found
    if since != hour_floor(since) or since > at:
        found.append(FieldError("/since", "Give a whole hour in UTC that is not in the future."))
    changed = [name for name in SAME_SHAPE if getattr(metric, name) != getattr(wanted, name)]
    return found + [FieldError(f"/{name}", "Can only change for all that is stored: leave out since.") for name in changed]


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    return {**found, "percentile": None if found["percentile"] is None else str(found["percentile"])}


def _earlier(metric: Metric, since: datetime) -> list[dict[str, Any]]:
    """What holds for events before `since`: what the metric says now, and said before."""
    now = {"until": since.astimezone(UTC).isoformat(), **{name: getattr(metric, name) for name in OF_BEFORE}}
    return [now, *(one for one in metric.earlier if datetime.fromisoformat(one["until"]) < since)]
