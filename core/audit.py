"""Audit events: append-only facts, written in the transaction of the change they describe.

Each fact is also an outbox entry: `outbox` holds a row per event until notifications.dispatch has turned it into mails and deliveries.
Sealing: one sealer numbers committed events and links them into a SHA-256 hash chain (`audit_seals`), in batches off the hot path, so
an edit, a deletion, a swap or an insertion in the past is found by `verify`.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, LargeBinary, Text, func, insert, or_, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from core.db import Base, Id, copy_rows, new_id

GENESIS = b"\x00" * 32
SEALER_LOCK = 7_710_001
SEAL_BATCH_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does it: `kind` is user, operator, api_key, system or provider; `id` the row's id; `label` what a person reads."""

    kind: str
    id: str
    label: str
    request_id: str = ""
    ip: str = ""


SYSTEM = Actor("system", "system", "ValueVerse Billing")


class AuditEvent(Base):
    """One fact: who did what to which subject, when, and how it changed."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_organization_id_id", "organization_id", "id"),
        Index("ix_audit_events_subject", "subject_type", "subject_id"),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID | None]
    actor_kind: Mapped[str] = mapped_column(Text)
    actor_id: Mapped[str] = mapped_column(Text)
    actor_label: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    subject_type: Mapped[str] = mapped_column(Text)
    subject_id: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]
    reason: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(Text, server_default="")
    ip: Mapped[str] = mapped_column(Text, server_default="")
    at: Mapped[datetime]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class AuditSeal(Base):
    """Place `seq` of one audit event in the hash chain; hash = sha256(previous hash + canonical JSON of the event)."""

    __tablename__ = "audit_seals"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    audit_event_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("audit_events.id"), unique=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class OutboxEntry(Base):
    """An audit event whose consequences outside the database have not been dispatched yet."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    audit_event_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("audit_events.id"), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


def record(
    session: Session,
    actor: Actor,
    kind: str,
    subject: Any,
    *,
    at: datetime,
    organization_id: uuid.UUID | None = None,
    reason: str | None = None,
    **data: Any,
) -> uuid.UUID:
    """Write the fact `kind` about `subject` (a row with `id`) and its outbox entry in the session's transaction.

    `organization_id` defaults to the subject's own. `data` must be JSON-able through `plain()`.
    """
    rows = [entry(actor, kind, subject, at=at, organization_id=organization_id, reason=reason, **data)]
    record_all(session, rows)
    return uuid.UUID(str(rows[0]["id"]))


def entry(
    actor: Actor,
    kind: str,
    subject: Any,
    *,
    at: datetime,
    organization_id: uuid.UUID | None = None,
    reason: str | None = None,
    **data: Any,
) -> dict[str, Any]:
    """The row `record` writes, for bulk work that collects many facts and writes them with `record_all`."""
    return {
        "id": new_id(),
        "organization_id": organization_id or getattr(subject, "organization_id", None),
        "actor_kind": actor.kind,
        "actor_id": actor.id,
        "actor_label": actor.label,
        "kind": kind,
        "subject_type": getattr(subject, "__tablename__", type(subject).__name__),
        "subject_id": str(subject.id),
        "data": plain(data),
        "reason": reason,
        "request_id": actor.request_id,
        "ip": actor.ip,
        "at": at,
    }


def record_all(session: Session, rows: list[dict[str, Any]]) -> None:
    """Write many facts and their outbox entries with two statements."""
    if rows:
        session.flush()
        copy_rows(session, AuditEvent, rows)
        copy_rows(session, OutboxEntry, [{"audit_event_id": row["id"]} for row in rows])


def events(
    session: Session,
    organization_id: uuid.UUID,
    *,
    subject: str = "",
    since: datetime | None = None,
    after: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[AuditEvent]:
    """What was done to one organization and by whom, newest first, those recorded before the id `after`.

    `subject` keeps the kinds that begin with it ("invoice"), `since` those that happened from then on.
    """
    wanted = select(AuditEvent).where(AuditEvent.organization_id == organization_id)
    if subject:
        wanted = wanted.where(AuditEvent.kind.startswith(f"{subject}.", autoescape=True))
    if since is not None:
        wanted = wanted.where(AuditEvent.at >= since)
    if after is not None:
        wanted = wanted.where(AuditEvent.id < after)
    return session.scalars(wanted.order_by(AuditEvent.id.desc()).limit(limit)).all()


@dataclass(frozen=True, slots=True)
class Search:
    """What an auditor looks for; empty parts do not narrow. `text` begins the actor, kind or subject, or is an id."""

    text: str = ""
    organization_id: uuid.UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


def search(session: Session, wanted: Search, *, after: uuid.UUID | None = None, limit: int = 50) -> Sequence[AuditEvent]:
    """Facts of every organization and of the platform, newest first, those recorded before the id `after`: for operators only."""
    found = select(AuditEvent)
    if wanted.text:
        event, words = AuditEvent, wanted.text
        found = found.where(
            or_(
                event.actor_label.startswith(words, autoescape=True),
                event.kind.startswith(words, autoescape=True),
                event.subject_type.startswith(words, autoescape=True),
                event.subject_id == words,
                event.request_id == words,
            )
        )
    if wanted.organization_id is not None:
        found = found.where(AuditEvent.organization_id == wanted.organization_id)
    if wanted.since is not None:
        found = found.where(AuditEvent.at >= wanted.since)
    if wanted.until is not None:
        found = found.where(AuditEvent.at < wanted.until)
    if after is not None:
        found = found.where(AuditEvent.id < after)
    return session.scalars(found.order_by(AuditEvent.id.desc()).limit(limit)).all()


@dataclass(frozen=True, slots=True)
class ChainState:
    """How far the audit chain reaches: the last sealed number, when its event was recorded, how many events wait for their seal."""

    sealed: int
    sealed_at: datetime | None
    waiting: int


def chain_state(session: Session) -> ChainState:
    """The chain as it stands; proving it is `broken_links`."""
    head = session.execute(
        select(AuditSeal.seq, AuditEvent.recorded_at)
        .join(AuditEvent, AuditEvent.id == AuditSeal.audit_event_id)
        .order_by(AuditSeal.seq.desc())
    ).first()
    total = session.scalar(select(func.count()).select_from(AuditEvent)) or 0
    return ChainState(head.seq if head else 0, head.recorded_at if head else None, total - (head.seq if head else 0))


def plain(value: Any) -> Any:
    """`value` as JSON-able data: Decimals, dates, ids and enums become strings."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)


def seal(session: Session) -> int:
    """Append committed, unsealed events to the chain; returns how many. Only one sealer works at a time (advisory lock).

    The chain orders events by when they were sealed, so a transaction that commits late is simply sealed later: no gap can open.
    """
    if not session.scalar(select(func.pg_try_advisory_xact_lock(SEALER_LOCK))):
        return 0
    head = session.execute(select(AuditSeal.seq, AuditSeal.hash).order_by(AuditSeal.seq.desc()).limit(1)).first()
    seq, previous = (head.seq, head.hash) if head else (0, GENESIS)
    unsealed = session.scalars(
        select(AuditEvent)
        .outerjoin(AuditSeal, AuditSeal.audit_event_id == AuditEvent.id)
        .where(AuditSeal.seq.is_(None))
        .order_by(AuditEvent.id)
        .limit(SEAL_BATCH_MAX)
    ).all()
    rows = []
    for event in unsealed:
        seq, previous = seq + 1, link(previous, event)
        rows.append({"seq": seq, "audit_event_id": event.id, "hash": previous})
    if rows:
        session.execute(insert(AuditSeal), rows)
    return len(rows)


def link(previous: bytes, event: AuditEvent) -> bytes:
    """The chain hash of `event` behind `previous`."""
    content = {
        "id": event.id,
        "organization_id": event.organization_id,
        "actor": [event.actor_kind, event.actor_id, event.actor_label],
        "kind": event.kind,
        "subject": [event.subject_type, event.subject_id],
        "data": event.data,
        "reason": event.reason,
        "request_id": event.request_id,
        "ip": event.ip,
        "at": event.at.timestamp(),
    }
    return hashlib.sha256(previous + json.dumps(content, sort_keys=True, default=str, separators=(",", ":")).encode()).digest()


def broken_links(session: Session) -> list[int]:
    """Walk the chain; the sequence numbers whose stored hash does not follow from the event and its predecessor (empty when whole)."""
    previous, expected, broken = GENESIS, 1, []
    rows = session.execute(
        select(AuditSeal.seq, AuditSeal.hash, AuditEvent)
        .join(AuditEvent, AuditEvent.id == AuditSeal.audit_event_id)
        .order_by(AuditSeal.seq)
    ).yield_per(2_000)
    for seq, stored, event in rows:
        if seq != expected or link(previous, event) != stored:
            broken.append(seq)
        previous, expected = stored, seq + 1
    sealed = session.scalar(text("SELECT count(*) FROM audit_seals")) or 0
    return broken or ([expected] if sealed != expected - 1 else [])
