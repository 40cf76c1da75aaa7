"""Limits, spend caps and entitlements: what customers may use, what stopped them, and what was promised to whom.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
THRESHOLDS = postgresql.ARRAY(sa.SmallInteger())
OFTEN = "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000"


def upgrade() -> None:
    op.add_column("usage_limits", sa.Column("source", sa.String(16), server_default="operator", nullable=False))
    op.add_column("usage_limits", sa.Column("thresholds", THRESHOLDS, server_default="{50,80,100}", nullable=False))
    op.create_check_constraint("ck_usage_limits_source_known", "usage_limits", "source IN ('operator', 'customer')")
    op.create_unique_constraint(
        "uq_usage_limits_organization_id_metric_id_period_source", "usage_limits", ["organization_id", "metric_id", "period", "source"]
    )
    _caps()
    _states()
    _reservations()
    _counting()


def _organization(table: str) -> sa.Column:
    return sa.Column("organization_id", sa.Uuid(), sa.ForeignKey("organizations.id", name=f"fk_{table}_organization_id"), nullable=False)


def _finite(table: str, column: str, *, lower: str = "0") -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} <> 'NaN' AND {column} < 'Infinity' AND {column} >= {lower}", name=f"ck_{table}_{column}_finite")


def _caps() -> None:
    op.create_table(
        "spend_caps",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), primary_key=True),
        _organization("spend_caps"),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("action_on_exceed", sa.String(16), nullable=False),
        sa.Column("thresholds", THRESHOLDS, server_default="{50,80,100}", nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint("amount_minor > 0", name="ck_spend_caps_amount_positive"),
        sa.CheckConstraint("action_on_exceed IN ('block', 'notify')", name="ck_spend_caps_action_on_exceed_known"),
        sa.UniqueConstraint("organization_id", "action_on_exceed", name="uq_spend_caps_organization_id_action_on_exceed"),
    )
    op.create_table(
        "feature_overrides",
        sa.Column(
            "organization_id", sa.Uuid(), sa.ForeignKey("organizations.id", name="fk_feature_overrides_organization_id"), primary_key=True
        ),
        sa.Column("feature", sa.String(100), primary_key=True),
        sa.Column("value", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
    )


def _states() -> None:
    op.create_table(
        "limit_states",
        sa.Column("organization_id", sa.Uuid(), primary_key=True),
        sa.Column("subject", sa.String(64), primary_key=True),
        sa.Column("window_start", INSTANT, primary_key=True),
        sa.Column("window_end", INSTANT),
        sa.Column("metric_id", sa.Uuid()),
        sa.Column("currency", sa.String(3)),
        sa.Column("action_on_exceed", sa.String(16), nullable=False),
        sa.Column("limit_value", sa.Numeric(), nullable=False),
        sa.Column("used", sa.Numeric(), nullable=False),
        sa.Column("overshoot", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("reached_at", INSTANT),
        sa.Column("delay_seconds", sa.Numeric()),
        sa.Column("evaluated_at", INSTANT, nullable=False),
        *(_finite("limit_states", name) for name in ("limit_value", "overshoot")),
        _finite("limit_states", "used", lower="'-Infinity'"),
    )
    op.create_index("ix_limit_states_reached_at", "limit_states", ["reached_at"], postgresql_where=sa.text("reached_at IS NOT NULL"))
    op.create_table(
        "limit_notices",
        sa.Column("organization_id", sa.Uuid(), primary_key=True),
        sa.Column("subject", sa.String(64), primary_key=True),
        sa.Column("window_start", INSTANT, primary_key=True),
        sa.Column("threshold", sa.SmallInteger(), primary_key=True),
        sa.Column("limit_value", sa.Numeric(), nullable=False),
        sa.Column("used", sa.Numeric(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
    )
    op.create_table(
        "usage_blocks",
        sa.Column("organization_id", sa.Uuid(), primary_key=True),
        sa.Column("subject", sa.String(64), primary_key=True),
        sa.Column("metric_id", sa.Uuid()),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("window_start", INSTANT, nullable=False),
        sa.Column("window_end", INSTANT),
        sa.Column("blocked_at", INSTANT, nullable=False),
    )


def _reservations() -> None:
    op.create_table(
        "usage_reservations",
        sa.Column("organization_id", sa.Uuid(), primary_key=True),
        sa.Column("idempotency_key", sa.Text(collation="C"), primary_key=True),
        sa.Column("organization_number", sa.Integer(), nullable=False),
        sa.Column("metric_id", sa.Uuid(), nullable=False),
        sa.Column("quantity", sa.Numeric(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("settled_at", INSTANT),
        _finite("usage_reservations", "quantity"),
    )
    op.create_index(
        "ix_usage_reservations_open", "usage_reservations", ["organization_id", "metric_id"], postgresql_where=sa.text("settled_at IS NULL")
    )
    op.create_index("ix_usage_reservations_created_at", "usage_reservations", ["created_at"])


def _counting() -> None:
    op.create_table(
        "limit_watch",
        sa.Column("organization_number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("touched_from", INSTANT),
        sa.Column("claimed_at", INSTANT),
        sa.Column("evaluated_at", INSTANT),
        sa.UniqueConstraint("organization_id", name="uq_limit_watch_organization_id"),
    )
    op.create_index("ix_limit_watch_touched", "limit_watch", ["touched_from"], postgresql_where=sa.text("touched_from IS NOT NULL"))
    op.create_table(
        "usage_totals",
        sa.Column("one", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("counted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("duplicates", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("conflicts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("quarantined_batches", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("flushes", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("one = 1", name="ck_usage_totals_single_row"),
    )
    op.execute("INSERT INTO usage_totals (one) VALUES (1)")
    for table in ("limit_watch", "usage_totals"):
        op.execute(f"ALTER TABLE {table} SET ({OFTEN})")


def downgrade() -> None:
    for table in (
        "usage_totals", "limit_watch", "usage_reservations", "usage_blocks", "limit_notices", "limit_states", "feature_overrides", "spend_caps",
    ):  # fmt: skip
        op.drop_table(table)
    op.drop_constraint("uq_usage_limits_organization_id_metric_id_period_source", "usage_limits")
    op.drop_constraint("ck_usage_limits_source_known", "usage_limits")
    op.drop_column("usage_limits", "thresholds")
    op.drop_column("usage_limits", "source")
