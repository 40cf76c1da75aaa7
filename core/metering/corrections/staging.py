"""Staging a file of past usage: every line is judged as if it were sent now, but for its age; nothing counts until it is applied."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from psycopg import Connection
from psycopg.rows import namedtuple_row
from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.db import new_id
from core.errors import Conflict, NotFound
from core.metering import careful
from core.metering.blocks import Blocks
from core.metering.careful import Refused, Window
from core.metering.columns import Columns, quantity
from core.metering.corrections import gate
from core.metering.corrections.files import FileForm, lines
from core.metering.directory import Directory
from core.metering.instants import instant
from core.metering.tables import usage_backfill_rows, usage_backfills

STAGED, APPLIED, REVERTED, DISCARDED = "staged", "applied", "reverted", "discarded"
CHUNK_LINES = 5_000
WINDOW = Window(timedelta(days=800), timedelta(), CHUNK_LINES, late=False)
EVENT_BYTES_KEPT = 64 * 1024
COPY = """COPY usage_backfill_rows (backfill_id, line, event, "timestamp", event_number, quantity, idempotency_key, fault, pointer, detail)
  FROM STDIN"""
REPEATED = """UPDATE usage_backfill_rows r SET fault = 'repeated_key', pointer = '/idempotency_key', quantity = NULL,
    detail = 'Line ' || first.line || ' has the same key.'
  FROM (SELECT idempotency_key, min(line) AS line FROM usage_backfill_rows
    WHERE backfill_id = :id AND fault IS NULL GROUP BY 1 HAVING count(*) > 1) AS first
  WHERE r.backfill_id = :id AND r.fault IS NULL AND r.idempotency_key = first.idempotency_key AND r.line > first.line"""
COUNTS = "SELECT count(quantity) AS events, count(fault) AS refused FROM usage_backfill_rows WHERE backfill_id = :id"


@dataclass(frozen=True, slots=True)
class Backfill:
    """A file of past usage. `events` would count, or do; `refused` lines cannot, and a file that has some is not applied."""

    id: uuid.UUID
    organization_id: uuid.UUID
    status: str
    file_name: str
    reason: str
    events: int
    refused: int
    staged_at: datetime
    staged_by: str
    staged_by_label: str
    applied_at: datetime | None
    applied_by_label: str | None
    reverted_at: datetime | None
    reverted_by_label: str | None


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a line; `pointer` is inside the event."""

    line: int
    code: str
    pointer: str
    detail: str
    event: str


class Names(Directory):
    """The directory as a session's own transaction sees it. No limit of the customer's stops a backfill."""

    def __init__(self, connection: Connection[Any]) -> None:
        super().__init__("", connections=1)
        self._connection = connection

    @contextmanager
    def connection(self) -> Any:
        """A cursor on the session's connection."""
        yield self._connection.cursor(row_factory=namedtuple_row)

    def blocks(self) -> Blocks:
        """Nobody is stopped."""
        return {}


def stage(
    session: Session, organization_id: uuid.UUID, content: bytes, form: FileForm, *, file_name: str, reason: str, actor: Actor, at: datetime
) -> Backfill:
    """Judge a file and keep its lines; the same file again is the backfill that was staged before. `at` is the organization's present.

    Raises Invalid when the file cannot be read, Conflict when it was applied already.
    """
    digest = hashlib.sha256(content).digest()
    before = _same(session, organization_id, digest)
    if before is not None:
        return before
    backfill_id = new_id()
    made = {"id": backfill_id, "organization_id": organization_id, "status": STAGED, "file_name": file_name, "digest": digest}
    made |= {"reason": reason, "events": 0, "refused": 0, "staged_at": at, "staged_by": actor.id, "staged_by_label": actor.label}
    session.execute(usage_backfills.insert().values(**made))
    rows = lines(content, form)
    with gate.connected(session) as connection:
        names = Names(connection)
        while chunk := list(islice(rows, CHUNK_LINES)):
            judged = list(_judged(names, organization_id, chunk, at))  # it asks the same connection: before COPY, not within
            with connection.cursor().copy(COPY) as copy:
                for row in judged:
                    copy.write_row((backfill_id, *row))
    session.execute(text(REPEATED), {"id": backfill_id})
    counts = session.execute(text(COUNTS), {"id": backfill_id}).one()
    mine = usage_backfills.c.id == backfill_id
    session.execute(usage_backfills.update().where(mine).values(events=counts.events, refused=counts.refused))
    staged = get(session, organization_id, backfill_id)
    told = {"file_name": file_name, "events": counts.events, "refused": counts.refused, "sha256": digest.hex()}
    audit.record(session, actor, "usage_backfill.staged", staged, at=at, reason=reason, **told)
    return staged


def judge(names: Names, organization_id: uuid.UUID, raws: Sequence[bytes], at: datetime) -> tuple[Columns | None, tuple[Refused, ...]]:
    """The verdict on events of a backfill: as on those that are sent, but for their age."""
    own = names.accounts((str(organization_id),))[str(organization_id)]
    columns, _, refused = careful.judge(names, own, raws, window=WINDOW, at=at)
    return columns, refused


def get(session: Session, organization_id: uuid.UUID, backfill_id: uuid.UUID) -> Backfill:
    """One backfill of the organization. Raises NotFound."""
    b = usage_backfills.c
    row = session.execute(select(usage_backfills).where(b.id == backfill_id, b.organization_id == organization_id)).first()
    if row is None:
        raise NotFound("There is no such backfill.")
    return _backfill(row)


def newest(session: Session, organization_id: uuid.UUID | None, *, before: uuid.UUID | None = None, limit: int = 50) -> list[Backfill]:
    """Backfills, newest first, of one organization or (for operators) of all."""
    b = usage_backfills.c
    query = select(usage_backfills).order_by(b.id.desc()).limit(limit)
    query = query if organization_id is None else query.where(b.organization_id == organization_id)
    return [_backfill(row) for row in session.execute(query if before is None else query.where(b.id < before))]


def faults(session: Session, backfill_id: uuid.UUID, *, limit: int = 100) -> list[Fault]:
    """The first lines that cannot count, and why."""
    r = usage_backfill_rows.c
    rows = session.execute(
        select(usage_backfill_rows).where(r.backfill_id == backfill_id, r.fault.is_not(None)).order_by(r.line).limit(limit)
    )
    return [Fault(row.line, row.fault, row.pointer, row.detail, bytes(row.event).decode("utf-8", "replace")) for row in rows]


def _same(session: Session, organization_id: uuid.UUID, digest: bytes) -> Backfill | None:
    b = usage_backfills.c
    alive = b.status.in_((STAGED, APPLIED))
    row = session.execute(select(usage_backfills).where(b.organization_id == organization_id, b.digest == digest, alive)).first()
    if row is None:
        return None
    if row.status == APPLIED:
        raise Conflict(f"This very file was applied on {row.applied_at:%Y-%m-%d} by {row.applied_by_label}.", code="file_applied")
    return _backfill(row)


def _judged(names: Names, organization_id: uuid.UUID, chunk: Sequence[tuple[int, bytes]], at: datetime) -> Iterator[tuple[Any, ...]]:
    """The rows of COPY, in order of lines."""
    columns, refused = judge(names, organization_id, [raw for _, raw in chunk], at)
    faulty = {one.index: (one.code, one.pointer, one.detail) for one in refused}
    says: dict[int, tuple[Any, ...]] = {}
    if columns is not None:
        for row, key in enumerate(columns.texts.all_keys()):
            place, amount = int(columns.positions[row]), quantity(int(columns.wholes[row]), int(columns.fractions[row]))
            says[place] = (instant(int(columns.timestamps[row])), int(columns.events[row]), amount, key.decode())
            if columns.defaulted[row]:
                faulty[place] = ("missing_field", "/timestamp", "An event of the past needs its time.")
    for place, (line, raw) in enumerate(chunk):
        if place in faulty:
            yield line, raw[:EVENT_BYTES_KEPT], None, None, None, None, *faulty[place]
        else:
            yield line, raw, *says[place], None, None, None


def _backfill(row: Row[Any]) -> Backfill:
    return Backfill(**{name: getattr(row, name) for name in Backfill.__slots__})
