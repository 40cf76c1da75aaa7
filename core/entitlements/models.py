"""Tables of limits: what customers set, how each window of each limit stands, who is stopped, what is reserved.

A `subject` names the limit a row is about: `limit:<id>`, `cap:<id>`, or `plan:<metric id>` for one that the plan version brings.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, SmallInteger, String, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base, Currency, Id, MinorUnits, finite, one_of

THRESHOLDS = text("'{50,80,100}'")


class CapAction(StrEnum):
    """Past a spend cap: refuse usage until the billing period ends, or only tell the customer."""

    BLOCK = "block"
    NOTIFY = "notify"


class SpendCap(Base):
    """The most a customer wants to spend in a billing period, before tax; one that stops usage and one that only tells."""

    __tablename__ = "spend_caps"
    __table_args__ = (
        UniqueConstraint("organization_id", "action_on_exceed"),
        one_of("action_on_exceed", CapAction),
        CheckConstraint("amount_minor > 0", name="amount_positive"),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    amount_minor: Mapped[MinorUnits]
    currency: Mapped[Currency]
    action_on_exceed: Mapped[str] = mapped_column(String(16))
    thresholds: Mapped[list[int]] = mapped_column(ARRAY(SmallInteger), server_default=THRESHOLDS)
    """Percentages of the amount at which the customer is told."""
    created_at: Mapped[datetime]


class FeatureOverride(Base):
    """A feature one customer has otherwise than its plan version says."""

    __tablename__ = "feature_overrides"

    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    feature: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[Any] = mapped_column(JSONB)
    created_at: Mapped[datetime]


class LimitState(Base):
    """One window of one limit as it was last evaluated. `used` and `limit_value` are quantities, or minor units of `currency`.

    `overshoot` is what was counted past a limit that blocks: accepted before the block took effect, at most `delay_seconds` later.
    """

    __tablename__ = "limit_states"
    __table_args__ = (
        finite("limit_value", minimum=0),
        finite("overshoot", minimum=0),
        finite("used"),
        Index("ix_limit_states_reached_at", "reached_at", postgresql_where=text("reached_at IS NOT NULL")),
    )

    organization_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    window_start: Mapped[datetime] = mapped_column(primary_key=True)
    window_end: Mapped[datetime | None]
    metric_id: Mapped[uuid.UUID | None]
    currency: Mapped[str | None] = mapped_column(String(3))
    action_on_exceed: Mapped[str] = mapped_column(String(16))
    limit_value: Mapped[Decimal]
    used: Mapped[Decimal]
    overshoot: Mapped[Decimal] = mapped_column(server_default="0")
    reached_at: Mapped[datetime | None]
    delay_seconds: Mapped[Decimal | None]
    evaluated_at: Mapped[datetime]


class LimitNotice(Base):
    """A threshold that was passed. The primary key lets it be told once a window."""

    __tablename__ = "limit_notices"

    organization_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    window_start: Mapped[datetime] = mapped_column(primary_key=True)
    threshold: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    limit_value: Mapped[Decimal]
    used: Mapped[Decimal]
    at: Mapped[datetime]


class UsageBlock(Base):
    """New usage of the organization is refused: of one metric, or (None) of every one; over by itself at `window_end`."""

    __tablename__ = "usage_blocks"

    organization_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    metric_id: Mapped[uuid.UUID | None]
    reason: Mapped[str] = mapped_column(String(32))
    window_start: Mapped[datetime]
    window_end: Mapped[datetime | None]
    blocked_at: Mapped[datetime]


class UsageReservation(Base):
    """Allowance taken before the usage itself arrives; its instants are real time, also for an organization on a test clock."""

    __tablename__ = "usage_reservations"
    __table_args__ = (
        finite("quantity", minimum=0),
        Index("ix_usage_reservations_open", "organization_id", "metric_id", postgresql_where=text("settled_at IS NULL")),
        Index("ix_usage_reservations_created_at", "created_at"),
    )

    organization_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    organization_number: Mapped[int] = mapped_column(Integer)
    metric_id: Mapped[uuid.UUID]
    quantity: Mapped[Decimal]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]


class LimitWatch(Base):
    """An organization with limits. Each counting transaction that adds usage of it sets `touched_from`; evaluating clears it."""

    __tablename__ = "limit_watch"
    __table_args__ = (Index("ix_limit_watch_touched", "touched_from", postgresql_where=text("touched_from IS NOT NULL")),)

    organization_number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    organization_id: Mapped[uuid.UUID] = mapped_column(unique=True)
    touched_from: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    evaluated_at: Mapped[datetime | None]


class UsageTotals(Base):
    """What the counting transactions have done so far, in one row."""

    __tablename__ = "usage_totals"
    __table_args__ = (CheckConstraint("one = 1", name="single_row"),)

    one: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    counted: Mapped[int] = mapped_column(BigInteger, server_default="0")
    duplicates: Mapped[int] = mapped_column(BigInteger, server_default="0")
    conflicts: Mapped[int] = mapped_column(BigInteger, server_default="0")
    quarantined_batches: Mapped[int] = mapped_column(BigInteger, server_default="0")
    flushes: Mapped[int] = mapped_column(BigInteger, server_default="0")
