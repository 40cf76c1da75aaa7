"""Looking through rejected events: by account, reason, event name, key and time, each with what became of its replays."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, case, exists, func, literal, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from core.errors import FieldError, Invalid, NotFound
from core.metering.models import usage_batch_results, usage_pending, usage_quarantine
from core.metering.rejections.tables import usage_rejections, usage_replays

PAGE_MAX = 1_000
HISTORY_MAX = 50
OPEN, REPLAYED = "open", "replayed"
STATES = (OPEN, REPLAYED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rejected events. `organization_id` None (for operators): of every account; `state` OPEN: not yet accepted by a replay."""

    organization_id: uuid.UUID | None = None
    ids: tuple[int, ...] | None = None
    code: str | None = None
    event_name: str | None = None
    idempotency_key: str | None = None
    api_key_id: uuid.UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    state: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same as conditions on `usage_rejections`."""
        r = usage_rejections.c
        equal = {
            r.organization_id: self.organization_id,
            r.code: self.code,
            r.event_name: self.event_name,
            r.idempotency_key: self.idempotency_key,
            r.api_key_id: self.api_key_id,
        }
        found = [column == value for column, value in equal.items() if value is not None]
        found += [r.id.in_(self.ids)] if self.ids is not None else []
        found += [r.received_at >= self.since] if self.since else []
        found += [r.received_at < self.until] if self.until else []
        if self.state in STATES:
            found.append(replayed() if self.state == REPLAYED else ~replayed())
        return found


@dataclass(frozen=True, slots=True)
class Replay:
    """One attempt to count a rejected event. `status`: refused (with `code` and `detail`), pending, counted, duplicate, conflict,
    quarantined, or accepted where its result is not kept any more.
    """

    at: datetime
    actor: str
    status: str
    batch_id: int | None
    code: str | None
    pointer: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """One refused event. `event` is the JSON as it was sent, cut at 8 KiB; `replay` is the newest attempt to count it after all."""

    id: int
    received_at: datetime
    organization_id: uuid.UUID | None
    api_key_id: uuid.UUID | None
    batch_id: int | None
    index: int
    code: str
    pointer: str
    detail: str
    event: str
    event_name: str | None
    idempotency_key: str | None
    replay: Replay | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of rows and the cursor of the next one (None: this was the last)."""

    rows: list[Rejection]
    next_cursor: str | None


def replayed() -> ColumnElement[bool]:
    """Whether a replay of the rejected event was accepted."""
    mine = usage_replays.c.rejection_id == usage_rejections.c.id
    return exists().where(mine, usage_replays.c.outcome == "accepted")


def page(session: Session, wanted: Wanted, *, cursor: str | None = None, limit: int = 50) -> Page:
    """Rejected events, newest first. Raises Invalid for a cursor that is none."""
    query = select(usage_rejections).where(*wanted.conditions())
    if cursor is not None:
        query = query.where(usage_rejections.c.id < _number(cursor))
    size = min(limit, PAGE_MAX)
    rows = session.execute(query.order_by(usage_rejections.c.id.desc()).limit(size + 1)).all()
    newest = _newest(session, [row.id for row in rows[:size]])
    return Page([_rejection(row, newest.get(row.id)) for row in rows[:size]], str(rows[size - 1].id) if len(rows) > size else None)


def get(session: Session, organization_id: uuid.UUID | None, rejection_id: int) -> tuple[Rejection, list[Replay]]:
    """One rejected event with its replays, newest first; `organization_id` None for operators. Raises NotFound."""
    found = page(session, Wanted(organization_id, ids=(rejection_id,)), limit=1).rows
    if not found:
        raise NotFound("There is no such rejected event.")
    attempts = session.execute(_attempts().where(usage_replays.c.rejection_id == rejection_id).limit(HISTORY_MAX))
    return found[0], [_replay(row) for row in attempts]


def counts(session: Session, organization_id: uuid.UUID, *, since: datetime) -> dict[str, int]:
    """How many events were refused since then and not counted later, by code."""
    r = usage_rejections.c
    mine = r.organization_id == organization_id, r.received_at >= since, ~replayed()
    return {row[0]: row[1] for row in session.execute(select(r.code, func.count()).where(*mine).group_by(r.code))}


def with_key(session: Session, organization_id: uuid.UUID, key: str, *, limit: int = 10) -> list[Rejection]:
    """The organization's newest refused events that carry this idempotency key."""
    return page(session, Wanted(organization_id, idempotency_key=key), limit=limit).rows


def _newest(session: Session, ids: Sequence[int]) -> dict[int, Replay]:
    """The newest attempt of each, an accepted one before those that were refused."""
    if not ids:
        return {}
    p = usage_replays.c
    one_each = _attempts().where(p.rejection_id.in_(ids)).ext(distinct_on(p.rejection_id)).order_by(None)
    rows = session.execute(one_each.order_by(p.rejection_id, p.outcome, p.id.desc()))
    return {row.rejection_id: _replay(row) for row in rows}


def _attempts() -> Select[Any]:
    p, result = usage_replays.c, usage_batch_results.c
    status = case(
        (p.outcome == "refused", "refused"),
        (p.position == func.any(result.duplicates), "duplicate"),
        (p.position == func.any(result.conflicts), "conflict"),
        (result.batch_id.is_not(None), "counted"),
        (usage_pending.c.batch_id.is_not(None), "pending"),
        (usage_quarantine.c.batch_id.is_not(None), "quarantined"),
        else_=literal("accepted"),
    )
    return (
        select(usage_replays, status.label("status"))
        .outerjoin(usage_batch_results, result.batch_id == p.batch_id)
        .outerjoin(usage_pending, usage_pending.c.batch_id == p.batch_id)
        .outerjoin(usage_quarantine, usage_quarantine.c.batch_id == p.batch_id)
        .order_by(p.id.desc())
    )


def _replay(row: Row[Any]) -> Replay:
    return Replay(row.at, row.actor_label, row.status, row.batch_id, row.code, row.pointer, row.detail)


def rejection(row: Row[Any]) -> Rejection:
    """A row of `usage_rejections` without its replays."""
    return _rejection(row, None)


def _rejection(row: Row[Any], replay: Replay | None) -> Rejection:
    event = bytes(row.event).decode("utf-8", "replace")
    place = (row.id, row.received_at, row.organization_id, row.api_key_id, row.batch_id, row.position)
    return Rejection(*place, row.code, row.pointer, row.detail, event, row.event_name, row.idempotency_key, replay)


def _number(cursor: str) -> int:
    if cursor.isascii() and cursor.isdigit() and len(cursor) < 19:
        return int(cursor)
    raise Invalid("This page does not exist.", errors=(FieldError("/cursor", "Use a next_cursor of an earlier answer."),))
