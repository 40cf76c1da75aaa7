"""Tables of metering. A metric says how usage events become a quantity; several metrics may read the same event.

The road of an event: `usage_batches` (the log, written before the 202) and `usage_pending` → one counting transaction →
`usage_events`, `usage_rollups`, `usage_unique_values`, `usage_dedup_segments`, `usage_batch_results`.
The tables of that road have no foreign keys and short integer keys: they take a hundred thousand rows a second.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.db import Base, Id, finite, one_of
from core.pricing.modifiers import Rounding


class Aggregation(StrEnum):
    COUNT = "count"
    SUM = "sum"
    MAX = "max"
    MIN = "min"
    AVG = "avg"
    LATEST = "latest"
    UNIQUE_COUNT = "unique_count"
    WEIGHTED_SUM = "weighted_sum"
    """Mean over time of a running total, which each event changes by its value."""
    PERCENTILE = "percentile"
    """Nearest rank: the smallest value that at least that share of the events does not exceed."""


class BucketSize(StrEnum):
    """Local spans a metric is aggregated in before the spans are put together."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class BucketTotal(StrEnum):
    """How the quantities of the buckets that have events become one."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    AVG = "avg"


class LatePolicy(StrEnum):
    """What becomes of usage that comes after its billing cycle was billed, or very late."""

    ADJUST = "adjust"
    """It counts, and the next invoice adjusts the cycle it belongs to."""
    IGNORE = "ignore"
    """It counts and is shown; a cycle that was billed stays as it was billed."""
    REJECT = "reject"
    """An event older than `late_after_hours` when it comes is refused; others as with ADJUST."""


class LimitPeriod(StrEnum):
    """Over which a limit counts: days and months of the customer's billing timezone, or everything since the limit was set."""

    DAILY = "daily"
    MONTHLY = "monthly"
    TOTAL = "total"


class LimitAction(StrEnum):
    """What happens past a limit: refuse new events, count and charge them, or only tell the customer."""

    BLOCK = "block"
    ALLOW_OVERAGE = "allow_overage"
    NOTIFY = "notify"


class LimitSource(StrEnum):
    """Who set a limit. The operator's replaces the plan's limit of the same metric and period; the customer's holds beside them."""

    OPERATOR = "operator"
    CUSTOMER = "customer"


class Metric(Base):
    """What is measured. `event_name` selects the events, `property` the value (None: the event's quantity), `filters` narrow them."""

    __tablename__ = "metrics"
    __table_args__ = (
        one_of("aggregation", Aggregation),
        one_of("bucket_size", BucketSize),
        one_of("bucket_total", BucketTotal),
        one_of("rounding", Rounding),
        one_of("late_policy", LatePolicy),
        CheckConstraint("percentile > 0 AND percentile <= 100", name="percentile_range"),
        CheckConstraint("(bucket_size IS NULL) = (bucket_total IS NULL)", name="bucket_whole"),
        CheckConstraint("(late_policy = 'reject') = (late_after_hours IS NOT NULL)", name="late_after_whole"),
        CheckConstraint("late_after_hours BETWEEN 1 AND 840", name="late_after_range"),
    )

    id: Mapped[Id]
    number: Mapped[int] = mapped_column(Integer, Identity(), unique=True)
    """Short key in the usage tables; a revision that takes the metric's place brings its own."""
    version: Mapped[int] = mapped_column(server_default="1")
    code: Mapped[str] = mapped_column(String(100), unique=True)
    name: Mapped[str] = mapped_column(String(255))
    unit: Mapped[str] = mapped_column(String(50), server_default="")
    aggregation: Mapped[str] = mapped_column(String(16))
    property: Mapped[str | None] = mapped_column(String(100))
    event_name: Mapped[str] = mapped_column(String(100), index=True)
    filters: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """Conditions that must all hold: [{"property": "region", "in": ["eu", "us"]}]."""
    group_by: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    """Event properties the usage can be broken down by."""
    expression: Mapped[str | None] = mapped_column(Text)
    """Arithmetic over event properties in place of `property`; see core.metering.expressions."""
    operation_property: Mapped[str | None] = mapped_column(String(100))
    """Of a unique count: the property that says whether the value is added or removed."""
    percentile: Mapped[Decimal | None]
    """Of a percentile: which, over 0 and at most 100."""
    recurring: Mapped[bool] = mapped_column(server_default=false())
    """Whether the value of one period is where the next begins."""
    bucket_size: Mapped[str | None] = mapped_column(String(10))
    bucket_total: Mapped[str | None] = mapped_column(String(10))
    rounding: Mapped[str | None] = mapped_column(String(10))
    """What is done to the quantity of a window, once; None: it keeps 12 places."""
    rounding_precision: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    archived_at: Mapped[datetime | None]
    counted_at: Mapped[datetime | None]
    """When all events already there were counted, and new ones from then on; None: not yet."""
    counted_through: Mapped[datetime | None]
    """While the past is being counted: events before this instant are, old and new ones."""
    late_policy: Mapped[str] = mapped_column(String(8), server_default=LatePolicy.ADJUST)
    late_after_hours: Mapped[int | None]
    earlier: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """What held for events before an instant, newest first: [{"until": …, "property": …, "expression": …, "filters": …}]."""


class UsageLimit(Base):
    """A bound on one metric's usage by one organization."""

    __tablename__ = "usage_limits"
    __table_args__ = (
        one_of("period", LimitPeriod),
        one_of("action_on_exceed", LimitAction),
        one_of("source", LimitSource),
        UniqueConstraint("organization_id", "metric_id", "period", "source"),
        finite("limit_value", minimum=0),
        finite("current_usage", minimum=0),
        Index("ix_usage_limits_organization_id", "organization_id"),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    metric_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("metrics.id"), index=True)
    limit_value: Mapped[Decimal]
    period: Mapped[str] = mapped_column(String(20))
    action_on_exceed: Mapped[str] = mapped_column(String(50))
    current_usage: Mapped[Decimal] = mapped_column(server_default="0")
    """A snapshot for display; the rollups decide."""
    exceeded_at: Mapped[datetime | None]
    """When the running period's usage was first seen at or past the limit."""
    reset_at: Mapped[datetime | None]
    source: Mapped[str] = mapped_column(String(16), server_default=LimitSource.OPERATOR)
    thresholds: Mapped[list[int]] = mapped_column(ARRAY(SmallInteger), server_default=text("'{50,80,100}'"))
    """Percentages of the limit at which the customer is told."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    metric: Mapped[Metric] = relationship(lazy="joined")


INSTANT = DateTime(timezone=True)

usage_event_names = Table(
    "usage_event_names",
    Base.metadata,
    Column("number", Integer, Identity(always=True), primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    comment="Short keys of event names",
)

usage_unclaimed_names = Table(
    "usage_unclaimed_names",
    Base.metadata,
    Column("organization_number", Integer, primary_key=True, autoincrement=False),
    Column("event_number", Integer, primary_key=True, autoincrement=False),
    Column("first_seen_at", INSTANT, nullable=False, server_default=func.now()),
    comment="Event names an organization sent while no metric read them (lenient mode); the events are in usage_events",
)

usage_batches = Table(
    "usage_batches",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("received_at", INSTANT, nullable=False),
    Column("organization_id", Uuid),
    Column("api_key_id", Uuid),
    Column("accepted", Integer, nullable=False),
    Column("rejected", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Index("ix_usage_batches_id", "id"),
    comment="The log: one row per accepted request; payload is columns.pack(). organization_id NULL: a platform key's request",
    postgresql_partition_by="RANGE (received_at)",
)

usage_pending = Table(
    "usage_pending",
    Base.metadata,
    Column("batch_id", BigInteger, primary_key=True, autoincrement=False),
    Column("received_at", INSTANT, nullable=False, index=True),
    Column("events", Integer, nullable=False),
    Column("organization_id", Uuid),
    comment="Batches of the log that are not counted yet",
)

usage_batch_results = Table(
    "usage_batch_results",
    Base.metadata,
    Column("batch_id", BigInteger, primary_key=True, autoincrement=False),
    Column("counted_at", INSTANT, nullable=False),
    Column("counted", Integer, nullable=False),
    Column("duplicates", ARRAY(SmallInteger), nullable=False),
    Column("conflicts", ARRAY(SmallInteger), nullable=False),
    comment="What became of a batch; duplicates and conflicts are positions in the request",
)

usage_quarantine = Table(
    "usage_quarantine",
    Base.metadata,
    Column("batch_id", BigInteger, primary_key=True, autoincrement=False),
    Column("received_at", INSTANT, nullable=False),
    Column("error", Text, nullable=False),
    Column("at", INSTANT, nullable=False, server_default=func.now()),
    comment="Batches that could not be counted; the log still holds them",
)

usage_events = Table(
    "usage_events",
    Base.metadata,
    Column("timestamp", INSTANT, nullable=False),
    Column("received_at", INSTANT, nullable=False),
    Column("batch_id", BigInteger, nullable=False),
    Column("organization_number", Integer, nullable=False),
    Column("event_number", Integer, nullable=False),
    Column("position", SmallInteger, nullable=False),
    Column("quantity", Numeric, nullable=False),
    Column("idempotency_key", Text(collation="C"), nullable=False),
    Column("properties", LargeBinary, nullable=False),
    Column("subscription_id", Uuid),
    Column("unit", Text),
    CheckConstraint("quantity >= 0 AND quantity < 'Infinity'", name="quantity_finite"),
    Index("ix_usage_events_organization_number_event_number_timestamp", "organization_number", "event_number", "timestamp"),
    comment="Every counted event once; (batch_id, position) is its identity. properties is JSON as sent. NaN sorts above Infinity",
    postgresql_partition_by="RANGE (timestamp)",
)

usage_rollups = Table(
    "usage_rollups",
    Base.metadata,
    Column("organization_number", Integer, primary_key=True, autoincrement=False),
    Column("metric_number", Integer, primary_key=True, autoincrement=False),
    Column("hour", INSTANT, primary_key=True),
    Column("group_key", Text(collation="C"), primary_key=True, server_default=""),
    Column("events", BigInteger, nullable=False),
    Column("quantity", Numeric, nullable=False),
    Column("first_at", INSTANT, nullable=False),
    Column("last_at", INSTANT, nullable=False),
    Column("last_batch", BigInteger, nullable=False),
    Column("last_position", SmallInteger, nullable=False),
    Column("moment", Numeric),
    CheckConstraint("quantity > '-Infinity' AND quantity < 'Infinity'", name="quantity_finite"),
    comment="Usage per metric, UTC hour and group (JSON array of group_by values). quantity: sum, count, maximum or latest value",
)
