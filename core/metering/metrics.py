"""Metrics: creating, finding and listing them."""

from __future__ import annotations

import uuid
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.metering.definition import Definition, faults, label_faults, late_faults
from core.metering.models import Metric, usage_event_names


def create(session: Session, *, actor: Actor, at: datetime, **given: Any) -> Metric:
    """A new metric from the fields of a Definition; events of its name that are already there are counted too.

    Raises Invalid, or Conflict for a taken code.
    """
    definition = Definition(**given)
    errors = faults(definition)
    if errors:
        raise Invalid("The metric was not created.", errors=tuple(errors))
    code = definition.code
    if session.scalar(select(Metric.id).where(Metric.code == code)) is not None:
        raise Conflict(f"There is a metric {code} already.", code="code_taken", errors=(FieldError("/code", "This code is taken."),))
    metric = definition.row()
    session.add(metric)
    session.execute(insert(usage_event_names).values(name=metric.event_name).on_conflict_do_nothing())
    session.flush()
    how, event = metric.aggregation, metric.event_name
    audit.record(session, actor, "metric.created", metric, at=at, code=code, aggregation=how, event_name=event)
    return metric


def change(
    session: Session,
    metric: Metric,
    *,
    name: str,
    unit: str,
    late_policy: str,
    late_after_hours: int | None,
    actor: Actor,
    at: datetime,
) -> Metric:
    """Change what needs no counting. Raises Invalid. Events that were taken already are not judged again."""
    errors = [*label_faults(name, unit), *late_faults(late_policy, late_after_hours)]
    if errors:
        raise Invalid("The metric was not changed.", errors=tuple(errors))
    wanted = {"name": name.strip(), "unit": unit, "late_policy": late_policy, "late_after_hours": late_after_hours}
    before = {field: getattr(metric, field) for field in wanted}
    if before == wanted:
        return metric
    for field, value in wanted.items():
        setattr(metric, field, value)
    session.flush()
    audit.record(session, actor, "metric.changed", metric, at=at, code=metric.code, before=before, after=wanted)
    return metric


def find(session: Session, reference: str) -> Metric:
    """The metric with this code or id; NotFound, with the nearest code."""
    metric = session.scalar(select(Metric).where(or_(Metric.code == reference, Metric.id == _uuid(reference))))
    if metric is None:
        near = get_close_matches(reference, session.scalars(select(Metric.code)).all(), n=1)
        raise NotFound(f"There is no metric {reference[:100]}." + (f" Did you mean {near[0]}?" if near else ""))
    return metric


def page(session: Session, *, after: str = "", limit: int = 50) -> list[Metric]:
    """Metrics in order of code, behind the code `after`."""
    return list(session.scalars(select(Metric).where(Metric.code > after).order_by(Metric.code).limit(limit)))


def _uuid(reference: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(reference)
    except ValueError:
        return None
