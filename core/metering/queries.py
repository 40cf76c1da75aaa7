"""What metering answers: sums for invoices, summaries for people, events behind a number, and how fresh it all is."""

from __future__ import annotations

import base64
import binascii
import math
import re
import uuid
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Row, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session

from core.errors import FieldError, Invalid, NotFound
from core.metering.kafka.models import UsageLogOffset
from core.metering.lookup import among_stored, moments
from core.metering.models import (
    Metric,
    usage_batch_results,
    usage_batches,
    usage_event_names,
    usage_events,
    usage_pending,
    usage_quarantine,
)
from core.metering.sums import measure, organizations
from core.metering.windows import Window

PAGE_MAX = 1_000
REFERENCE = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,5}))?")
Wanted = tuple[uuid.UUID | str, uuid.UUID | str, datetime, datetime]


@dataclass(frozen=True, slots=True)
class Freshness:
    """Everything accepted before `counted_up_to` is in the sums. `backlog` is in events."""

    counted_up_to: datetime
    behind_seconds: float
    backlog: int


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One counted event. `id` is its batch and its position in the request."""

    id: str
    event_name: str
    timestamp: datetime
    received_at: datetime
    quantity: Decimal
    idempotency_key: str
    properties: dict[str, Any]
    subscription_id: uuid.UUID | None
    unit: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of one request. `status` is pending, counted or quarantined; duplicates and conflicts are positions in the request."""

    id: str
    received_at: datetime
    status: str
    accepted: int
    rejected: int
    counted: int
    duplicates: tuple[int, ...]
    conflicts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of rows and the cursor of the next one (None: this was the last)."""

    rows: list[Any]
    next_cursor: str | None


def usage_sums(session: Session, wanted: Collection[Wanted]) -> dict[Wanted, Decimal]:
    """The quantity of each (organization id, metric id, start, end), half-open; 0 where nothing was counted.

    A handful of statements whatever the number of windows; any aggregation; windows need not begin on the hour.
    """
    questions = list(wanted)
    windows = [Window(_uuid(organization), _uuid(metric), start, end) for organization, metric, start, end in questions]
    usages = measure(session, windows)
    return {question: usage[""].quantity if usage else Decimal(0) for question, usage in zip(questions, usages, strict=True)}


_TAKEN_UP_TO = select(func.min(UsageLogOffset.caught_up_at)).where(UsageLogOffset.retired_at.is_(None))
"""Up to when a log outside the database was taken into it; NULL when there is none."""


def freshness(session: Session, organization_id: uuid.UUID | None, *, at: datetime) -> Freshness:
    """How far counting has come, in real time `at`; for one organization (platform requests included) or, with None, for all."""
    mine = or_(usage_pending.c.organization_id == organization_id, usage_pending.c.organization_id.is_(None))
    taken = _TAKEN_UP_TO.scalar_subquery()
    query = select(func.min(usage_pending.c.received_at), func.coalesce(func.sum(usage_pending.c.events), 0), taken)
    oldest, backlog, taken_up_to = session.execute(query.where(mine) if organization_id else query).one()
    counted_up_to = min(found for found in (oldest, taken_up_to, at) if found is not None)
    return Freshness(counted_up_to, max(0.0, (at - counted_up_to).total_seconds()), int(backlog))


def pending_before(session: Session, instant: datetime) -> bool:
    """Whether anything accepted before `instant` (real time, not a test clock's) is not counted yet."""
    waits = select(usage_pending.c.batch_id).where(usage_pending.c.received_at < instant).exists()
    return bool(session.scalar(select(waits))) or (session.scalar(_TAKEN_UP_TO) or instant) < instant


def batch(session: Session, organization_id: uuid.UUID | None, reference: str) -> Batch:
    """What became of a request; `organization_id` None (a platform key) sees every batch. Raises NotFound.

    `reference` is a batch's id, or id-position: the request of one event that is stored there with others.
    """
    found = REFERENCE.fullmatch(reference)
    if found is None:
        raise NotFound("There is no such batch.")
    batch_id, position = min(int(found[1]), 2**63 - 1), found[2] and int(found[2])
    b, result, poison = usage_batches.c, usage_batch_results.c, usage_quarantine.c
    query = (
        select(b.id, b.received_at, b.accepted, b.rejected, result.counted, result.duplicates, result.conflicts, poison.error)
        .outerjoin(usage_batch_results, result.batch_id == b.id)
        .outerjoin(usage_quarantine, poison.batch_id == b.id)
        .where(b.id == batch_id)
    )
    row = session.execute(query.where(b.organization_id == organization_id) if organization_id else query).first()
    if row is None or (position is not None and position >= row.accepted):
        raise NotFound("There is no such batch.")
    status = "counted" if row.counted is not None else "quarantined" if row.error is not None else "pending"
    duplicates, conflicts = tuple(row.duplicates or ()), tuple(row.conflicts or ())
    if position is None:
        return Batch(reference, row.received_at, status, row.accepted, row.rejected, row.counted or 0, duplicates, conflicts)
    again, other = ((0,) if position in places else () for places in (duplicates, conflicts))
    return Batch(reference, row.received_at, status, 1, 0, int(status == "counted" and not again and not other), again, other)


def events_page(
    session: Session,
    organization_id: uuid.UUID,
    *,
    start: datetime,
    end: datetime,
    metric_id: uuid.UUID | None = None,
    idempotency_key: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page:
    """The organization's counted events of a window, newest first; with `metric_id` only events of the metric's event name.

    Raises Invalid for a cursor that is none, and for a key that the log does not know when the window has too many events to look through.
    """
    e = usage_events.c
    order = (e.timestamp, e.batch_id, e.position)
    query = (
        select(usage_events, usage_event_names.c.name)
        .join(usage_event_names, usage_event_names.c.number == e.event_number)
        .where(e.organization_number == _organization_number(session, organization_id), e.timestamp >= start, e.timestamp < end)
    )
    if metric_id is not None:
        name = select(Metric.event_name).where(Metric.id == metric_id).scalar_subquery()
        query = query.where(e.event_number == select(usage_event_names.c.number).where(usage_event_names.c.name == name).scalar_subquery())
    search: AbstractContextManager[None] = nullcontext()
    if idempotency_key is not None:
        query = query.where(e.idempotency_key == idempotency_key)
        if logged_at := {moment for _, _, moment in moments(session, idempotency_key, _organization_number(session, organization_id))}:
            query = query.where(e.timestamp.in_(logged_at))
        else:
            search = among_stored(session)
    if cursor is not None:
        at, batch_id, position = _read_cursor(cursor)
        query = query.where(and_(e.timestamp <= at, tuple_(*order) < tuple_(at, batch_id, position)))
    with search:
        rows = session.execute(query.order_by(*(column.desc() for column in order)).limit(min(limit, PAGE_MAX) + 1)).all()
    return _page(rows, limit, usage_event, lambda row: f"{row.timestamp.isoformat()}|{row.batch_id}|{row.position}")


def by_key(session: Session, key: str) -> list[tuple[uuid.UUID, UsageEvent]]:
    """The counted events with this key, and whose each is: for operators only. Those older than the log are not among them."""
    e, n, o = usage_events.c, usage_event_names.c, organizations.c
    owners, kinds, at = zip(*found, strict=True) if (found := moments(session, key)) else ((), (), ())
    query = (
        select(usage_events, n.name, o.id.label("organization_id"))
        .join(usage_event_names, n.number == e.event_number)
        .join(organizations, o.number == e.organization_number)
        .where(e.organization_number.in_(owners), e.event_number.in_(kinds), e.timestamp.in_(at), e.idempotency_key == key)
    )
    return [(row.organization_id, usage_event(row)) for row in session.execute(query)] if found else []


def _number(token: str) -> float | str:
    """A decimal for display; one that no float can hold stays as it was sent."""
    value = float(token)
    return value if math.isfinite(value) else token


shown_properties = msgspec.json.Decoder(dict[str, Any], float_hook=_number).decode


def usage_event(row: Row[Any]) -> UsageEvent:
    """A row of `usage_events` with its event name."""
    return UsageEvent(
        id=f"{row.batch_id}-{row.position}",
        event_name=row.name,
        timestamp=row.timestamp,
        received_at=row.received_at,
        quantity=row.quantity,
        idempotency_key=row.idempotency_key,
        properties=shown_properties(bytes(row.properties)),
        subscription_id=row.subscription_id,
        unit=row.unit,
    )


def _page(rows: Sequence[Row[Any]], limit: int, convert: Any, place: Any) -> Page:
    size = min(limit, PAGE_MAX)
    more = place(rows[size - 1]) if len(rows) > size else None
    encoded = base64.urlsafe_b64encode(more.encode()).decode() if more and "|" in more else more
    return Page([convert(row) for row in rows[:size]], encoded)


def _read_cursor(cursor: str) -> tuple[datetime, int, int]:
    try:
        at, batch_id, position = base64.urlsafe_b64decode(cursor).decode().split("|")
        return datetime.fromisoformat(at), int(batch_id), int(position)
    except (ValueError, binascii.Error):
        raise _bad_cursor() from None


def _bad_cursor() -> Invalid:
    return Invalid("This page does not exist.", errors=(FieldError("/cursor", "Use a next_cursor of an earlier answer."),))


def _organization_number(session: Session, organization_id: uuid.UUID) -> int:
    number = session.scalar(select(organizations.c.number).where(organizations.c.id == organization_id))
    if number is None:
        raise NotFound("There is no such organization.")
    return int(number)


def _uuid(value: uuid.UUID | str) -> uuid.UUID:
    return value if isinstance(value, uuid.UUID) else uuid.UUID(value)
