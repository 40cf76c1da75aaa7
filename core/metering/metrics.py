"""Metrics: creating, finding and listing them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.metering.meters import canonical
from core.metering.models import Aggregation, Metric, usage_event_names
from core.metering.wire import is_name

CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:\-]{0,99}")
GROUPS_MAX = 5
FILTERS_MAX = 20
NEEDS_PROPERTY = frozenset({Aggregation.UNIQUE_COUNT})


def create(
    session: Session,
    *,
    code: str,
    name: str,
    aggregation: str,
    actor: Actor,
    at: datetime,
    unit: str = "",
    property: str | None = None,  # noqa: A002 - the field's name everywhere
    event_name: str | None = None,
    filters: Sequence[Mapping[str, Any]] = (),
    group_by: Sequence[str] = (),
) -> Metric:
    """A new metric; events of its name that are already there are counted too. Raises Invalid, or Conflict for a taken code."""
    errors = _errors(code, name, unit, aggregation, property, event_name or code, filters, group_by)
    if errors:
        raise Invalid("The metric was not created.", errors=tuple(errors))
    if session.scalar(select(Metric.id).where(Metric.code == code)) is not None:
        raise Conflict(f"There is a metric {code} already.", code="code_taken", errors=(FieldError("/code", "This code is taken."),))
    conditions = [{"property": item["property"], "in": [canonical(value) for value in item["in"]]} for item in filters]
    metric = Metric(
        code=code,
        name=name.strip(),
        unit=unit,
        aggregation=aggregation,
        property=property,
        event_name=event_name or code,
        filters=conditions,
        group_by=list(group_by),
    )
    session.add(metric)
    session.execute(insert(usage_event_names).values(name=metric.event_name).on_conflict_do_nothing())
    session.flush()
    audit.record(session, actor, "metric.created", metric, at=at, code=code, aggregation=aggregation, event_name=metric.event_name)
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


def _errors(
    code: str,
    name: str,
    unit: str,
    aggregation: str,
    source: str | None,
    event_name: str,
    filters: Sequence[Mapping[str, Any]],
    group_by: Sequence[str],
) -> list[FieldError]:
    errors = []
    if not CODE.fullmatch(code):
        errors.append(FieldError("/code", "Use letters, digits and _ . : - (at most 100)."))
    if not CODE.fullmatch(event_name):
        errors.append(FieldError("/event_name", "Use letters, digits and _ . : - (at most 100)."))
    if not 1 <= len(name.strip()) <= 255:
        errors.append(FieldError("/name", "Give a name of 1 to 255 characters."))
    if len(unit) > 50:
        errors.append(FieldError("/unit", "At most 50 characters."))
    if aggregation not in set(Aggregation):
        errors.append(FieldError("/aggregation", f"Choose one of {', '.join(Aggregation)}."))
    if source is not None and not is_name(source):
        errors.append(FieldError("/property", "Name a property of the event."))
    if source is None and aggregation in NEEDS_PROPERTY:
        errors.append(FieldError("/property", f"{aggregation} needs a property whose different values are counted."))
    if len(group_by) > GROUPS_MAX or len(set(group_by)) != len(group_by) or not all(map(is_name, group_by)):
        errors.append(FieldError("/group_by", f"Name at most {GROUPS_MAX} different properties."))
    if len(filters) > FILTERS_MAX:
        errors.append(FieldError("/filters", f"At most {FILTERS_MAX} conditions."))
    for i, item in enumerate(filters):
        if not is_name(str(item.get("property", ""))) or not isinstance(item.get("in"), (list, tuple)) or not item["in"]:
            errors.append(FieldError(f"/filters/{i}", 'A condition is {"property": name, "in": [values]}.'))
    return errors


def _uuid(reference: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(reference)
    except ValueError:
        return None
