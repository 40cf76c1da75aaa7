"""Tables of moves of many subscriptions from one plan version to another: the move, and what it does to each subscription."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.catalog.models import PlanVersion
from core.db import Base, Currency, Id, finite, one_of


class MoveStatus(StrEnum):
    """PREVIEWING and MOVING and UNDOING are worked on; REVIEW waits for a person, before the move and whenever it is paused."""

    PREVIEWING = "previewing"
    REVIEW = "review"
    MOVING = "moving"
    UNDOING = "undoing"
    DONE = "done"


class Timing(StrEnum):
    """From when the new version holds: the instant of the preview, the end of each one's running period, or one instant for all."""

    NOW = "now"
    PERIOD_END = "period_end"
    DATE = "date"


class ItemState(StrEnum):
    READY = "ready"
    HELD = "held"
    MOVED = "moved"
    FAILED = "failed"
    UNDONE = "undone"


class PlanMove(Base):
    """A move. Where each subscription stands is told by its item; `reached_id` is the last one previewed, in order of ids."""

    __tablename__ = "plan_moves"
    __table_args__ = (
        one_of("status", MoveStatus),
        one_of("timing", Timing),
        CheckConstraint("(timing = 'date') = (effective_on IS NOT NULL)", name="date_given"),
        finite("increase_percent", minimum=0),
        Index("ix_plan_moves_unfinished", "created_at", postgresql_where=text("status IN ('previewing', 'moving', 'undoing')")),
    )

    id: Mapped[Id]
    status: Mapped[str] = mapped_column(String(16))
    from_version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("plan_versions.id"))
    to_version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("plan_versions.id"))
    timing: Mapped[str] = mapped_column(String(16))
    effective_on: Mapped[datetime | None]
    increase_percent: Mapped[Decimal]
    """A subscription whose next period would cost more by over this is an exception."""
    as_of: Mapped[datetime]
    started_by: Mapped[str] = mapped_column(Text)
    subscriptions_total: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    reached_id: Mapped[uuid.UUID | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    from_version: Mapped[PlanVersion] = relationship(foreign_keys=from_version_id, lazy="joined")
    to_version: Mapped[PlanVersion] = relationship(foreign_keys=to_version_id, lazy="joined")


class PlanMoveItem(Base):
    """One subscription of a move; amounts are net minor units.

    `due_minor` is what the change makes due at once, `present_minor` and `next_minor` what a period costs before and after, on the usage
    of its last closed one (None: it has none). `flags` are members of plan_moves.Flag.
    """

    __tablename__ = "plan_move_items"
    __table_args__ = (one_of("state", ItemState),)

    move_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("plan_moves.id", ondelete="CASCADE"), primary_key=True)
    subscription_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[uuid.UUID]
    currency: Mapped[Currency]
    state: Mapped[str] = mapped_column(String(16))
    effective_at: Mapped[datetime | None]
    due_minor: Mapped[int | None] = mapped_column(BigInteger)
    present_minor: Mapped[int | None] = mapped_column(BigInteger)
    next_minor: Mapped[int | None] = mapped_column(BigInteger)
    flags: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"), default=list)
    detail: Mapped[str | None] = mapped_column(Text)
