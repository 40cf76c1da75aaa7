"""Rejected events, and each time one of them was replayed."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
)

from core.db import Base
from core.metering.models import INSTANT

usage_rejections = Table(
    "usage_rejections",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("received_at", INSTANT, nullable=False, index=True),
    Column("organization_id", Uuid),
    Column("api_key_id", Uuid),
    Column("batch_id", BigInteger),
    Column("position", SmallInteger, nullable=False),
    Column("code", String(50), nullable=False),
    Column("pointer", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("event", LargeBinary, nullable=False),
    Column("event_name", String(100)),
    Column("idempotency_key", Text(collation="C")),
    Index("ix_usage_rejections_organization_id_id", "organization_id", "id"),
    Index("ix_usage_rejections_idempotency_key", "idempotency_key"),
    comment="Events that were refused, as sent (at most 8 KiB of each), for the debugger and a later replay",
)

usage_replays = Table(
    "usage_replays",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("rejection_id", ForeignKey("usage_rejections.id", ondelete="CASCADE"), nullable=False),
    Column("at", INSTANT, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("actor_label", Text, nullable=False),
    Column("outcome", String(8), nullable=False),
    Column("batch_id", BigInteger),
    Column("position", SmallInteger),
    Column("code", String(50)),
    Column("pointer", Text),
    Column("detail", Text),
    CheckConstraint("outcome IN ('accepted', 'refused')", name="outcome_known"),
    CheckConstraint(
        "(outcome = 'accepted') = (batch_id IS NOT NULL AND position IS NOT NULL) AND (outcome = 'refused') = (code IS NOT NULL)",
        name="outcome_whole",
    ),
    Index("ix_usage_replays_rejection_id", "rejection_id", "id"),
    comment="Each time a rejected event was sent into the log again, or refused once more; append-only",
)
