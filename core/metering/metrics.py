"""Metrics: defining what is measured, and finding a definition again."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.metering.models import Aggregation, Metric


def create(
    session: Session,
    *,
    code: str,
    name: str,
    aggregation: str,
    actor: Actor,
    at: datetime,
    unit: str = "",
    property: str | None = None,  # noqa: A002 - the field's term
    event_name: str | None = None,
    filters: Sequence[Mapping[str, Any]] = (),
    group_by: Sequence[str] = (),
) -> Metric:
    """A metric that reads the events named `event_name` (default: its code). Its definition never changes: it is what was billed.

    `property` names the event property that is aggregated, None the event's quantity. Raises Invalid, and Conflict for a taken code.
    """
    errors = []
    if aggregation not in set(Aggregation):
        errors.append(FieldError("/aggregation", f"Choose one of {', '.join(Aggregation)}."))
    if aggregation == Aggregation.UNIQUE_COUNT and not property:
        errors.append(FieldError("/property", "Name the property whose different values are counted."))
    if aggregation == Aggregation.COUNT and property:
        errors.append(FieldError("/property", "A count counts events: leave the property out."))
    if len(set(group_by)) != len(group_by):
        errors.append(FieldError("/group_by", "Name each property once."))
    if errors:
        raise Invalid("The metric was not created.", errors=tuple(errors))
    if session.scalar(select(Metric.id).where(Metric.code == code)):
        raise Conflict("There is a metric with this code.", code="code_taken", errors=(FieldError("/code", "This code is taken."),))
    metric = Metric(
        code=code,
        name=name,
        unit=unit,
        aggregation=aggregation,
        property=property,
        event_name=event_name or code,
        filters=[dict(condition) for condition in filters],
        group_by=list(group_by),
        created_at=at,
    )
    session.add(metric)
    session.flush()
    audit.record(session, actor, "metric.created", metric, at=at, code=code, aggregation=aggregation, event_name=metric.event_name)
    return metric


def find(session: Session, reference: str) -> Metric:
    """The metric whose code or id is `reference`; raises NotFound."""
    try:
        same: Any = or_(Metric.code == reference, Metric.id == uuid.UUID(reference))
    except ValueError:
        same = Metric.code == reference
    found = session.scalars(select(Metric).where(same, Metric.archived_at.is_(None))).first()
    if found is None:
        raise NotFound(f'There is no metric "{reference[:100]}".')
    return found


def page(session: Session, *, after: str = "", limit: int) -> Sequence[Metric]:
    """Metrics in use by code, at most `limit`, those behind the code `after`."""
    query = select(Metric).where(Metric.archived_at.is_(None), Metric.code > after).order_by(Metric.code)
    return session.scalars(query.limit(limit)).all()
