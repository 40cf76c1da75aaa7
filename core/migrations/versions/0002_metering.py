"""Metering: the log, the events, their rollups and what keeps each counted once.

Revision ID: 0002
Revises: 0001
"""

import secrets

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
EXTERNAL = {"usage_batches": "payload", "usage_dedup_segments": "keys"}
"""Compressed already: PostgreSQL must not try again."""
BUSY = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0"


def upgrade() -> None:
    op.add_column("metrics", sa.Column("counted_at", INSTANT))
    _limits()
    _log()
    _events()
    _rollups()
    _dedup()
    for table in ("usage_batches", "usage_events"):
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    for table, column in EXTERNAL.items():
        op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE EXTERNAL")
    op.execute(f"ALTER TABLE usage_pending SET (fillfactor = 60, {BUSY})")
    op.execute(f"ALTER TABLE usage_rollups SET (fillfactor = 60, {BUSY})")
    seed = secrets.randbits(63)
    op.execute(sa.text("INSERT INTO usage_state (one, dedup_seed, daily_through) VALUES (1, :seed, '2000-01-01Z')").bindparams(seed=seed))


def _limits() -> None:
    op.create_table(
        "usage_limits",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), primary_key=True),
        sa.Column("organization_id", sa.Uuid(), sa.ForeignKey("organizations.id", name="fk_usage_limits_organization_id"), nullable=False),
        sa.Column("metric_id", sa.Uuid(), sa.ForeignKey("metrics.id", name="fk_usage_limits_metric_id"), nullable=False),
        sa.Column("limit_value", sa.Numeric(), nullable=False),
        sa.Column("period", sa.String(20), nullable=False),
        sa.Column("action_on_exceed", sa.String(50), nullable=False),
        sa.Column("current_usage", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("exceeded_at", INSTANT),
        sa.Column("reset_at", INSTANT),
        sa.Column("created_at", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("period IN ('daily', 'monthly', 'total')", name="ck_usage_limits_period_known"),
        sa.CheckConstraint("action_on_exceed IN ('block', 'allow_overage', 'notify')", name="ck_usage_limits_action_on_exceed_known"),
        *(
            sa.CheckConstraint(f"{column} <> 'NaN' AND {column} < 'Infinity' AND {column} >= 0", name=f"ck_usage_limits_{column}_finite")
            for column in ("limit_value", "current_usage")
        ),
    )
    op.create_index("ix_usage_limits_organization_id", "usage_limits", ["organization_id"])
    op.create_index("ix_usage_limits_metric_id", "usage_limits", ["metric_id"])


def _log() -> None:
    op.create_table(
        "usage_batches",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("organization_id", sa.Uuid()),
        sa.Column("api_key_id", sa.Uuid()),
        sa.Column("accepted", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        postgresql_partition_by="RANGE (received_at)",
        comment="The log: one row per accepted request; payload is columns.pack(). organization_id NULL: a platform key's request",
    )
    op.create_index("ix_usage_batches_id", "usage_batches", ["id"])
    op.create_table(
        "usage_pending",
        sa.Column("batch_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Uuid()),
        comment="Batches of the log that are not counted yet",
    )
    op.create_index("ix_usage_pending_received_at", "usage_pending", ["received_at"])
    op.create_table(
        "usage_batch_results",
        sa.Column("batch_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("counted_at", INSTANT, nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("duplicates", postgresql.ARRAY(sa.SmallInteger()), nullable=False),
        sa.Column("conflicts", postgresql.ARRAY(sa.SmallInteger()), nullable=False),
        comment="What became of a batch; duplicates and conflicts are positions in the request",
    )
    op.create_table(
        "usage_quarantine",
        sa.Column("batch_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("at", INSTANT, server_default=sa.text("now()"), nullable=False),
        comment="Batches that could not be counted; the log still holds them",
    )
    op.create_table(
        "usage_rejections",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("organization_id", sa.Uuid()),
        sa.Column("api_key_id", sa.Uuid()),
        sa.Column("batch_id", sa.BigInteger()),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("code", sa.String(50), nullable=False),
        sa.Column("pointer", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("event", sa.LargeBinary(), nullable=False),
        comment="Events that were refused, as sent (at most 8 KiB of each), for the debugger and a later replay",
    )
    op.create_index("ix_usage_rejections_received_at", "usage_rejections", ["received_at"])
    op.create_index("ix_usage_rejections_organization_id_id", "usage_rejections", ["organization_id", "id"])


def _events() -> None:
    op.create_table(
        "usage_event_names",
        sa.Column("number", sa.Integer(), sa.Identity(always=True), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.UniqueConstraint("name", name="uq_usage_event_names_name"),
        comment="Short keys of event names",
    )
    op.create_table(
        "usage_events",
        sa.Column("timestamp", INSTANT, nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("batch_id", sa.BigInteger(), nullable=False),
        sa.Column("organization_number", sa.Integer(), nullable=False),
        sa.Column("event_number", sa.Integer(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("quantity", sa.Numeric(), nullable=False),
        sa.Column("idempotency_key", sa.Text(collation="C"), nullable=False),
        sa.Column("properties", sa.LargeBinary(), nullable=False),
        sa.Column("subscription_id", sa.Uuid()),
        sa.Column("unit", sa.Text()),
        sa.CheckConstraint("quantity >= 0 AND quantity < 'Infinity'", name="ck_usage_events_quantity_finite"),
        postgresql_partition_by="RANGE (timestamp)",
        comment="Every counted event once; (batch_id, position) is its identity. properties is JSON as sent. NaN sorts above Infinity",
    )
    op.create_index(
        "ix_usage_events_organization_number_event_number_timestamp", "usage_events", ["organization_number", "event_number", "timestamp"]
    )


def _bucket_key() -> list[sa.Column]:
    return [
        sa.Column("organization_number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("metric_number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("hour", INSTANT, primary_key=True),
        sa.Column("group_key", sa.Text(collation="C"), server_default="", primary_key=True),
    ]


def _rollups() -> None:
    op.create_table(
        "usage_rollups",
        *_bucket_key(),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Numeric(), nullable=False),
        sa.Column("first_at", INSTANT, nullable=False),
        sa.Column("last_at", INSTANT, nullable=False),
        sa.Column("last_batch", sa.BigInteger(), nullable=False),
        sa.Column("last_position", sa.SmallInteger(), nullable=False),
        sa.CheckConstraint("quantity >= 0 AND quantity < 'Infinity'", name="ck_usage_rollups_quantity_finite"),
        comment="Usage per metric, UTC hour and group (JSON array of group_by values). quantity: sum, count, maximum or latest value",
    )
    op.create_table(
        "usage_unique_values",
        *_bucket_key(),
        sa.Column("value_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("first_at", INSTANT, nullable=False),
        sa.Column("last_at", INSTANT, nullable=False),
        comment="The exact set behind a unique count; value_hash is BLAKE2b-128 of the value's canonical text",
    )


def _dedup() -> None:
    op.create_table(
        "usage_dedup_segments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("received_on", sa.Date(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("keys", sa.LargeBinary(), nullable=False),
        comment="Idempotency keys counted by one flush: dedup.ENTRY records of hash and content fingerprint",
    )
    op.create_index("ix_usage_dedup_segments_received_on", "usage_dedup_segments", ["received_on"])
    op.create_table(
        "usage_dedup_keys",
        sa.Column("key_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("fingerprint", sa.BigInteger(), nullable=False),
        sa.Column("received_on", sa.Date(), nullable=False),
        comment="The same keys, one a row: the DedupStore that needs no memory",
    )
    op.create_table(
        "usage_state",
        sa.Column("one", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("dedup_seed", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("daily_through", INSTANT, nullable=False),
        sa.CheckConstraint("one = 1", name="ck_usage_state_single_row"),
        comment="The aggregator's own settings and marks",
    )


def downgrade() -> None:
    for table in (
        "usage_state", "usage_dedup_keys", "usage_dedup_segments", "usage_unique_values", "usage_rollups", "usage_events", "usage_event_names",
        "usage_rejections", "usage_quarantine", "usage_batch_results", "usage_pending", "usage_batches", "usage_limits",
    ):  # fmt: skip
        op.drop_table(table)
    op.drop_column("metrics", "counted_at")
