"""Usage events for tests that roll back: stored and counted by the product's own metering rules, without its processes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from core.identity.models import Organization
from core.metering.meters import Event, add, group_of, meter, read
from core.metering.models import Metric, usage_event_names, usage_events, usage_rollups

Used = tuple[datetime, Decimal, Mapping[str, Any]]
"""(instant, quantity, properties)."""
_places = itertools.count(1)


def record(session: Session, organization: Organization, metric: Metric, used: Iterable[Used]) -> None:
    """Store the events and add them to the hours of `metric`; for metrics whose hours add up, or take the largest."""
    number = session.scalar(select(usage_event_names.c.number).where(usage_event_names.c.name == metric.event_name))
    counted = meter(metric)
    for at, quantity, properties in used:
        place = next(_places)
        event = {"timestamp": at, "batch_id": place, "position": 0, "quantity": quantity}
        names = {"organization_number": organization.number, "event_number": number, "idempotency_key": f"used-{place}"}
        session.execute(insert(usage_events).values(**event, **names, received_at=at, properties=json.dumps(properties).encode()))
        found = read(counted, Event(at, (place, 0), quantity, properties))
        if found is not None:
            _count(session, organization, metric, group_of(counted, properties), found)


def _count(session: Session, organization: Organization, metric: Metric, group: str, found: Any) -> None:
    key = {"organization_number": organization.number, "metric_number": metric.number, "group_key": group}
    key["hour"] = found.first_at.replace(minute=0, second=0, microsecond=0)
    r = usage_rollups.c
    row = session.execute(select(usage_rollups).where(*(r[name] == value for name, value in key.items()))).first()
    if row is not None:
        before = type(found)(row.events, row.quantity, row.first_at, row.last_at, (row.last_batch, row.last_position))
        found = add(meter(metric).aggregation, before, found)
    places = {"last_batch": found.last_place[0], "last_position": found.last_place[1]}
    values = {"events": found.events, "quantity": found.quantity, "first_at": found.first_at, "last_at": found.last_at, **places}
    stored = upsert(usage_rollups).values(**key, **values)
    session.execute(stored.on_conflict_do_update(index_elements=list(key), set_=values))
