"""What operators watch: requests as they come in, how fast, how far counting is, what is refused and why."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Integer, cast, func, literal, select, text, union_all
from sqlalchemy.orm import Session

from core.metering import tail
from core.metering.meters import canonical, feeds, group_of, meter, properties, value_of
from core.metering.models import (
    Metric,
    usage_batch_results,
    usage_batches,
)
from core.metering.queries import UsageEvent, shown_properties
from core.metering.rejections.finding import replayed
from core.metering.rejections.tables import usage_rejections
from core.metering.unclaimed import NO_METRIC
from core.metering.wire import NAME_FIELDS

REFUSED_MAX = 50
LOOK_BACK_BATCHES = 200_000
MINUTE = timedelta(minutes=1)
EVENTS_COUNTED_MAX = 1_000
"""More than so many unclaimed events of a name are not counted for display."""
UNCLAIMED = f"""SELECT n.name AS event_name, o.id AS organization_id, u.first_seen_at, counted.events,
    newest.timestamp AS newest_at, newest.properties
  FROM usage_unclaimed_names u
  JOIN usage_event_names n ON n.number = u.event_number AND {NO_METRIC}
  JOIN organizations o ON o.number = u.organization_number
  CROSS JOIN LATERAL (SELECT count(*) AS events FROM (SELECT FROM usage_events e
    WHERE e.organization_number = u.organization_number AND e.event_number = u.event_number LIMIT {EVENTS_COUNTED_MAX + 1}) AS few) counted
  LEFT JOIN LATERAL (SELECT e.timestamp, e.properties FROM usage_events e
    WHERE e.organization_number = u.organization_number AND e.event_number = u.event_number ORDER BY e.timestamp DESC LIMIT 1) newest
    ON true
  ORDER BY u.first_seen_at DESC, n.name LIMIT :limit"""  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True)
class Seen:
    """One event as it came in. `status`: counted, unclaimed, pending, duplicate, conflict or rejected (then `detail` says why)."""

    received_at: datetime
    status: str
    organization_id: uuid.UUID | None
    event_name: str
    quantity: Decimal | None
    idempotency_key: str
    detail: str = ""
    timestamp: datetime | None = None
    """When it happened; None for what was refused."""
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tail:
    """What came in behind a cursor, newest first, and the next cursor."""

    events: tuple[Seen, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class Group:
    """Refused events of one reason and key, with the newest as a sample."""

    code: str
    api_key_id: uuid.UUID | None
    organization_id: uuid.UUID | None
    count: int
    first_at: datetime
    last_at: datetime
    pointer: str
    detail: str
    sample: str


@dataclass(frozen=True, slots=True)
class Ingestion:
    """The last minute: events accepted and refused, duplicates and conflicts found; and accepted events of each of the last minutes."""

    accepted: int
    rejected: int
    duplicates: int
    conflicts: int
    minutes: tuple[int, ...]

    @property
    def per_second(self) -> Decimal:
        """Accepted events a second over the minute."""
        return Decimal(self.accepted) / 60


@dataclass(frozen=True, slots=True)
class Fed:
    """What one metric made of an event: the value it added in `hour` under `group`, or why it did not count it."""

    metric: Metric
    value: Decimal | None
    hour: datetime | None
    group: str
    why: str


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """An event name that no metric reads (lenient mode). `events` stops at EVENTS_COUNTED_MAX + 1; `properties` are the newest event's."""

    event_name: str
    organization_id: uuid.UUID
    first_seen_at: datetime
    events: int
    newest_at: datetime | None
    properties: Mapping[str, Any]


def seen(session: Session, *, organization_id: uuid.UUID | None = None, cursor: str = "", limit: int = 200) -> Tail:
    """Events of the newest requests behind `cursor`, those that are not counted yet and those refused too."""
    place, last_rejection = _cursor(cursor)
    accepted = tail.newest(session, organization_id, after=place, limit=limit)
    refused = _refused(session, organization_id, last_rejection, limit)
    claimed = set(session.scalars(select(Metric.event_name).where(Metric.archived_at.is_(None))))
    found = [
        Seen(
            row.received_at,
            "unclaimed" if row.status == "counted" and row.event_name not in claimed else row.status,
            row.organization_id,
            row.event_name,
            row.quantity,
            row.idempotency_key,
            timestamp=row.timestamp,
            properties=row.properties,
        )
        for row in accepted
    ]
    found += [
        Seen(
            row.received_at,
            "rejected",
            row.organization_id,
            _text_of(bytes(row.event), *NAME_FIELDS),
            None,
            _text_of(bytes(row.event), "idempotency_key"),
            row.detail,
        )
        for row in refused
    ]
    found.sort(key=lambda event: event.received_at, reverse=True)
    place = place.moved({int(row.id.partition("-")[0]) for row in accepted})
    rejection_id = max((row.id for row in refused), default=last_rejection)
    return Tail(tuple(found[:limit]), f"{place}.{rejection_id}")


def groups(session: Session, *, since: datetime, organization_id: uuid.UUID | None = None) -> list[Group]:
    """Refused events by reason and key since then that no replay has counted, the most first."""
    r = usage_rejections.c
    grouped = (
        select(
            r.code,
            r.api_key_id,
            r.organization_id,
            func.count().label("n"),
            func.min(r.received_at).label("first"),
            func.max(r.received_at).label("last"),
            func.max(r.id).label("newest"),
        )
        .where(r.received_at >= since, ~replayed())
        .group_by(r.code, r.api_key_id, r.organization_id)
    )
    if organization_id is not None:
        grouped = grouped.where(r.organization_id == organization_id)
    g = grouped.subquery().c
    rows = session.execute(
        select(g.code, g.api_key_id, g.organization_id, g.n, g.first, g.last, r.pointer, r.detail, r.event)
        .join(usage_rejections, r.id == g.newest)
        .order_by(g.n.desc(), g.last.desc())
        .limit(100)
    ).all()
    return [Group(*row[:8], bytes(row.event).decode("utf-8", "replace")) for row in rows]


def ingestion(session: Session, *, at: datetime, minutes: int = 30) -> Ingestion:
    """How much comes in, in real time `at`. Reads at most the newest LOOK_BACK_BATCHES requests, by their number."""
    b, result = usage_batches.c, usage_batch_results.c
    newest = select(func.coalesce(func.max(b.id), 0)).scalar_subquery()
    recent = b.id > newest - LOOK_BACK_BATCHES, b.received_at > at - minutes * MINUTE, b.received_at <= at
    age = func.floor(func.extract("epoch", at - b.received_at) / 60)
    lengths = (func.coalesce(func.sum(func.cardinality(places)), 0) for places in (result.duplicates, result.conflicts))
    last = (b.id > newest - LOOK_BACK_BATCHES, b.received_at > at - MINUTE)
    again = select(literal(-1).label("age"), *lengths).join(usage_batches, b.id == result.batch_id).where(*last)
    minute_ = select(cast(age, Integer).label("age"), func.sum(b.accepted), func.sum(b.rejected)).where(*recent).group_by("age")
    found = {int(row[0]): (int(row[1]), int(row[2])) for row in session.execute(union_all(minute_, again))}
    (accepted, rejected), (duplicates, conflicts) = found.get(0, (0, 0)), found[-1]
    series = tuple(found.get(minute, (0, 0))[0] for minute in reversed(range(minutes)))
    return Ingestion(accepted, rejected, duplicates, conflicts, series)


def fed(session: Session, event: UsageEvent) -> list[Fed]:
    """What each metric that reads the event's name made of it."""
    given = properties(msgspec.json.encode(event.properties))
    hour = event.timestamp.replace(minute=0, second=0, microsecond=0)
    rows = session.scalars(select(Metric).where(Metric.event_name == event.event_name).order_by(Metric.code)).all()
    found = []
    for row in rows:
        reader = meter(row)
        if feeds(reader, given):
            found.append(Fed(row, value_of(reader, event.quantity, given), hour, group_of(reader, given), ""))
        else:
            failed = [condition.name for condition in reader.conditions if canonical(given.get(condition.name)) not in condition.values]
            reason = f"its filter on {', '.join(failed)} leaves the event out" if failed else f"the event has no {row.property}"
            found.append(Fed(row, None, None, "", reason))
    return found


def unclaimed(session: Session, *, limit: int = 100) -> list[Unclaimed]:
    """Names of every organization that no metric reads, the newest first: for operators only."""
    rows = session.execute(text(UNCLAIMED), {"limit": limit}).mappings()
    return [Unclaimed(**{**row, "properties": shown_properties(bytes(row["properties"] or b"{}"))}) for row in rows]


def _refused(session: Session, organization_id: uuid.UUID | None, behind: int, limit: int) -> Sequence[Any]:
    r = usage_rejections.c
    wanted = select(usage_rejections).where(r.id > behind).order_by(r.id.desc()).limit(min(limit, REFUSED_MAX))
    return session.execute(wanted.where(r.organization_id == organization_id) if organization_id else wanted).all()


def _cursor(given: str) -> tuple[tail.Place, int]:
    place, _, rejection = given.partition(".")
    ok = rejection.isascii() and rejection.isdigit() and len(rejection) < tail.NUMBER_LENGTH
    return (tail.Place.parse(place), int(rejection)) if ok else (tail.Place(), 0)


def _text_of(event: bytes, *names: str) -> str:
    """The first of these fields that is a text in the refused event, "" when there is none or it cannot be read."""
    try:
        decoded = msgspec.json.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    values = [decoded.get(name) for name in names] if isinstance(decoded, dict) else []
    return next((value for value in values if isinstance(value, str)), "")
