"""More tables of metering: state behind exact aggregations, daily sums, recounts, and what the aggregator remembers."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Identity,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    false,
)
from sqlalchemy.dialects.postgresql import JSONB

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
