"""More tables of metering: state behind exact aggregations, daily sums, recounts, what the aggregator remembers, corrections."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
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
    Uuid,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from core.db import Base
from core.metering.models import INSTANT

usage_daily = Table(
    "usage_daily",
    Base.metadata,
    Column("organization_number", Integer, primary_key=True, autoincrement=False),
    Column("metric_number", Integer, primary_key=True, autoincrement=False),
    Column("day", INSTANT, primary_key=True),
    Column("group_key", Text(collation="C"), primary_key=True, server_default=""),
    Column("events", BigInteger, nullable=False),
    Column("quantity", Numeric, nullable=False),
    Column("first_at", INSTANT, nullable=False),
    Column("last_at", INSTANT, nullable=False),
    Column("last_batch", BigInteger, nullable=False),
    Column("last_position", SmallInteger, nullable=False),
    Column("moment", Numeric),
    CheckConstraint("quantity > '-Infinity' AND quantity < 'Infinity'", name="quantity_finite"),
    comment="The hourly rollups added up by UTC day, complete for the days before usage_state.daily_through",
)

usage_unique_values = Table(
    "usage_unique_values",
    Base.metadata,
    Column("organization_number", Integer, primary_key=True, autoincrement=False),
    Column("metric_number", Integer, primary_key=True, autoincrement=False),
    Column("hour", INSTANT, primary_key=True),
    Column("group_key", Text(collation="C"), primary_key=True, server_default=""),
    Column("value_hash", LargeBinary, primary_key=True),
    Column("first_at", INSTANT, nullable=False),
    Column("last_at", INSTANT, nullable=False),
    Column("removed", Boolean, nullable=False, server_default=false()),
    Column("last_batch", BigInteger, nullable=False, server_default="0"),
    Column("last_position", SmallInteger, nullable=False, server_default="0"),
    comment="The exact set behind a unique count; value_hash is BLAKE2b-128 of the value's canonical text",
)

usage_value_counts = Table(
    "usage_value_counts",
    Base.metadata,
    Column("organization_number", Integer, primary_key=True, autoincrement=False),
    Column("metric_number", Integer, primary_key=True, autoincrement=False),
    Column("hour", INSTANT, primary_key=True),
    Column("group_key", Text(collation="C"), primary_key=True, server_default=""),
    Column("value", Numeric, primary_key=True),
    Column("events", BigInteger, nullable=False),
    comment="The exact multiset behind a percentile: how many events had which value",
)

usage_recounts = Table(
    "usage_recounts",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", INSTANT, nullable=False, index=True),
    Column("since", INSTANT, nullable=False),
    Column("until", INSTANT, nullable=False),
    Column("compared", BigInteger, nullable=False),
    Column("differences", JSONB, nullable=False),
    comment="Each recount of stored events against the rollups and what it found; an empty list: all was right",
)

usage_dedup_segments = Table(
    "usage_dedup_segments",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("received_on", Date, nullable=False, index=True),
    Column("entries", Integer, nullable=False),
    Column("keys", LargeBinary, nullable=False),
    comment="Idempotency keys counted by one flush: dedup.ENTRY records of hash and content fingerprint",
)

usage_dedup_runs = Table(
    "usage_dedup_runs",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("newest_on", Date, nullable=False),
    Column("keys", Integer, nullable=False),
    Column("offsets", LargeBinary, nullable=False),
    Column("remainders", LargeBinary, nullable=False),
    comment="Keys that left memory, one row per sealed table, with its filter (runs.Filter)",
)

usage_dedup_pages = Table(
    "usage_dedup_pages",
    Base.metadata,
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("page", Integer, primary_key=True, autoincrement=False),
    Column("keys", LargeBinary, nullable=False),
    comment="The keys of a run by the first bits of their hash: runs.ENTRY records",
)

usage_dedup_keys = Table(
    "usage_dedup_keys",
    Base.metadata,
    Column("key_hash", LargeBinary, primary_key=True),
    Column("fingerprint", BigInteger, nullable=False),
    Column("received_on", Date, nullable=False),
    comment="The same keys, one a row: the DedupStore that needs no memory",
)

usage_key_places = Table(
    "usage_key_places",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("received_on", Date, nullable=False, index=True),
    Column("keys", Integer, nullable=False),
    Column("bits", SmallInteger),
    Column("batches", LargeBinary, nullable=False),
    Column("offsets", LargeBinary),
    Column("marks", LargeBinary, nullable=False),
    comment="In which batches of the log the events of one flush stand, by the hash of their keys (places.Places)",
)

usage_state = Table(
    "usage_state",
    Base.metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("dedup_seed", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("daily_through", INSTANT, nullable=False),
    CheckConstraint("one = 1", name="single_row"),
    comment="The aggregator's own settings and marks",
)

usage_corrections = Table(
    "usage_corrections",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("at", INSTANT, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("actor_label", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("backfill_id", Uuid),
    Column("organization_number", Integer, nullable=False),
    Column("event_number", Integer, nullable=False),
    Column("batch_id", BigInteger, nullable=False),
    Column("position", SmallInteger, nullable=False),
    Column("idempotency_key", Text(collation="C"), nullable=False),
    Column("received_at", INSTANT, nullable=False),
    Column("subscription_id", Uuid),
    Column("unit", Text),
    Column("old_timestamp", INSTANT, nullable=False),
    Column("old_quantity", Numeric, nullable=False),
    Column("old_properties", LargeBinary, nullable=False),
    Column("new_timestamp", INSTANT),
    Column("new_quantity", Numeric),
    Column("new_properties", LargeBinary),
    CheckConstraint("kind IN ('void', 'amend', 'revert')", name="kind_known"),
    CheckConstraint("old_quantity >= 0 AND old_quantity < 'Infinity'", name="old_quantity_finite"),
    CheckConstraint("new_quantity >= 0 AND new_quantity < 'Infinity'", name="new_quantity_finite"),
    CheckConstraint("(kind = 'amend') = (new_timestamp IS NOT NULL)", name="amend_whole"),
    Index("ix_usage_corrections_key", "organization_number", "idempotency_key"),
    Index("ix_usage_corrections_event", "batch_id", "position"),
    comment="Each stored event that was voided, amended or reverted: what it was, what it became, who, when and why; append-only",
)

usage_backfills = Table(
    "usage_backfills",
    Base.metadata,
    Column("id", Uuid, primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False, index=True),
    Column("status", String(10), nullable=False),
    Column("file_name", String(255), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("events", Integer, nullable=False),
    Column("refused", Integer, nullable=False),
    Column("staged_at", INSTANT, nullable=False),
    Column("staged_by", Text, nullable=False),
    Column("staged_by_label", Text, nullable=False),
    Column("applied_at", INSTANT),
    Column("applied_by_label", Text),
    Column("reverted_at", INSTANT),
    Column("reverted_by_label", Text),
    Column("batch_ids", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    Column("segment_ids", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    CheckConstraint("status IN ('staged', 'applied', 'reverted', 'discarded')", name="status_known"),
    comment="Files of past usage of one organization; their events count from the moment they are applied",
)

usage_backfill_rows = Table(
    "usage_backfill_rows",
    Base.metadata,
    Column("backfill_id", ForeignKey("usage_backfills.id"), primary_key=True),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("timestamp", INSTANT),
    Column("event_number", Integer),
    Column("quantity", Numeric),
    Column("idempotency_key", Text(collation="C")),
    Column("event", LargeBinary, nullable=False),
    Column("fault", String(50)),
    Column("pointer", Text),
    Column("detail", Text),
    CheckConstraint("(fault IS NULL) = (quantity IS NOT NULL)", name="fault_or_event"),
    comment="The lines of a staged file: an event that would count, or what is wrong with the line",
)
