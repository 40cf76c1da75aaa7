"""Legal holds: while an organization is under one, nothing it sent is purged. Placing and releasing are audited, with the reason."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, Index, Text, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import audit
from core.audit import Actor
from core.db import Base, Id
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.metering.sums import organizations

WAIT_FOR_PURGE = "LOCK TABLE legal_holds IN ROW EXCLUSIVE MODE"
NONE_MEANWHILE = "LOCK TABLE legal_holds IN SHARE MODE"


class LegalHold(Base):
    """One hold on one organization; at most one stands at a time."""

    __tablename__ = "legal_holds"
    __table_args__ = (
        Index("uq_legal_holds_organization_id_standing", "organization_id", unique=True, postgresql_where=text("released_at IS NULL")),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    reason: Mapped[str] = mapped_column(Text)
    placed_at: Mapped[datetime]
    released_at: Mapped[datetime | None]


def place(session: Session, organization_id: uuid.UUID, *, reason: str, actor: Actor, at: datetime) -> LegalHold:
    """Keep everything the organization sent until the hold is released. Conflict when one stands; waits for a purge that is running."""
    if not reason.strip():
        raise Invalid("A hold needs a reason.", errors=(FieldError("/reason", "Say why, such as the case's reference."),))
    session.execute(text(WAIT_FOR_PURGE))
    if _standing(session, organization_id) is not None:
        raise Conflict("This organization is under a legal hold already.")
    hold = LegalHold(organization_id=organization_id, reason=reason.strip(), placed_at=at)
    session.add(hold)
    session.flush()
    audit.record(session, actor, "legal_hold.placed", hold, at=at, reason=hold.reason)
    return hold


def release(session: Session, organization_id: uuid.UUID, *, reason: str, actor: Actor, at: datetime) -> LegalHold:
    """Let the next purge take what is old enough. Raises NotFound when no hold stands."""
    hold = _standing(session, organization_id)
    if hold is None:
        raise NotFound("This organization is under no legal hold.")
    hold.released_at = at
    audit.record(session, actor, "legal_hold.released", hold, at=at, reason=reason.strip() or None)
    return hold


def named(session: Session) -> list[tuple[LegalHold, str]]:
    """Every hold that stands with the slug of its organization, the oldest first."""
    o = organizations.c
    query = select(LegalHold, o.slug).join(organizations, o.id == LegalHold.organization_id).where(LegalHold.released_at.is_(None))
    return [(row[0], row[1]) for row in session.execute(query.order_by(LegalHold.placed_at))]


def held(session: Session) -> dict[uuid.UUID, int]:
    """Ids and numbers of the organizations under a hold; none is placed until the session's transaction ends."""
    session.execute(text(NONE_MEANWHILE))
    o = organizations.c
    query = select(o.id, o.number).join(LegalHold, LegalHold.organization_id == o.id).where(LegalHold.released_at.is_(None))
    return {row.id: row.number for row in session.execute(query)}


def _standing(session: Session, organization_id: uuid.UUID) -> LegalHold | None:
    query = select(LegalHold).where(LegalHold.organization_id == organization_id, LegalHold.released_at.is_(None))
    return session.scalars(query.with_for_update()).first()
