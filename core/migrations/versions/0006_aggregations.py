"""Aggregations: what a metric can be told, the state behind the exact ones, daily sums, progress of counting the past, recounts.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
BEFORE = ("count", "sum", "max", "latest", "unique_count")
AGGREGATIONS = ("count", "sum", "max", "min", "avg", "latest", "unique_count", "weighted_sum", "percentile")
BUCKET_SIZES = ("hour", "day", "week", "month")
BUCKET_TOTALS = ("sum", "max", "min", "avg")
FUNCTIONS = ("up", "down", "half_up")
METRIC_COLUMNS = (
    "expression", "operation_property", "percentile", "recurring", "bucket_size", "bucket_total", "rounding", "rounding_precision",
    "counted_through",
)  # fmt: skip
FINITE = "quantity > '-Infinity' AND quantity < 'Infinity'"
NOT_NEGATIVE = "quantity >= 0 AND quantity < 'Infinity'"


def upgrade() -> None:
    _metrics()
    op.drop_constraint("ck_usage_rollups_quantity_finite", "usage_rollups")
    op.create_check_constraint("ck_usage_rollups_quantity_finite", "usage_rollups", FINITE)
    op.add_column("usage_rollups", sa.Column("moment", sa.Numeric()))
    op.add_column("usage_unique_values", sa.Column("removed", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("usage_unique_values", sa.Column("last_batch", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("usage_unique_values", sa.Column("last_position", sa.SmallInteger(), server_default="0", nullable=False))
    op.create_table(
        "usage_value_counts",
        *_bucket("hour"),
        sa.Column("value", sa.Numeric(), primary_key=True),
        sa.Column("events", sa.BigInteger(), nullable=False),
        comment="The exact multiset behind a percentile: how many events had which value",
    )
    op.create_table(
        "usage_daily",
        *_bucket("day"),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Numeric(), nullable=False),
        sa.Column("first_at", INSTANT, nullable=False),
        sa.Column("last_at", INSTANT, nullable=False),
        sa.Column("last_batch", sa.BigInteger(), nullable=False),
        sa.Column("last_position", sa.SmallInteger(), nullable=False),
        sa.Column("moment", sa.Numeric()),
        sa.CheckConstraint(FINITE, name="ck_usage_daily_quantity_finite"),
        comment="The hourly rollups added up by UTC day, complete for the days before usage_state.daily_through",
    )
    op.create_table(
        "usage_recounts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("until", INSTANT, nullable=False),
        sa.Column("compared", sa.BigInteger(), nullable=False),
        sa.Column("differences", postgresql.JSONB(), nullable=False),
        comment="Each recount of stored events against the rollups and what it found; an empty list: all was right",
    )
    op.create_index("ix_usage_recounts_at", "usage_recounts", ["at"])


def _metrics() -> None:
    op.drop_constraint("ck_metrics_aggregation_known", "metrics")
    op.create_check_constraint("ck_metrics_aggregation_known", "metrics", _among("aggregation", AGGREGATIONS))
    op.add_column("metrics", sa.Column("expression", sa.Text()))
    op.add_column("metrics", sa.Column("operation_property", sa.String(100)))
    op.add_column("metrics", sa.Column("percentile", sa.Numeric()))
    op.add_column("metrics", sa.Column("recurring", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("metrics", sa.Column("bucket_size", sa.String(10)))
    op.add_column("metrics", sa.Column("bucket_total", sa.String(10)))
    op.add_column("metrics", sa.Column("rounding", sa.String(10)))
    op.add_column("metrics", sa.Column("rounding_precision", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("metrics", sa.Column("counted_through", INSTANT))
    op.create_check_constraint("ck_metrics_bucket_size_known", "metrics", _among("bucket_size", BUCKET_SIZES))
    op.create_check_constraint("ck_metrics_bucket_total_known", "metrics", _among("bucket_total", BUCKET_TOTALS))
    op.create_check_constraint("ck_metrics_rounding_known", "metrics", _among("rounding", FUNCTIONS))
    op.create_check_constraint("ck_metrics_percentile_range", "metrics", "percentile > 0 AND percentile <= 100")
    op.create_check_constraint("ck_metrics_bucket_whole", "metrics", "(bucket_size IS NULL) = (bucket_total IS NULL)")


def _among(column: str, members: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(member) for member in members)})"


def _bucket(time: str) -> list[sa.Column]:
    return [
        sa.Column("organization_number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("metric_number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column(time, INSTANT, primary_key=True),
        sa.Column("group_key", sa.Text(collation="C"), server_default="", primary_key=True),
    ]


def downgrade() -> None:
    op.drop_table("usage_recounts")
    op.drop_table("usage_daily")
    op.drop_table("usage_value_counts")
    for column in ("last_position", "last_batch", "removed"):
        op.drop_column("usage_unique_values", column)
    op.drop_column("usage_rollups", "moment")
    op.drop_constraint("ck_usage_rollups_quantity_finite", "usage_rollups")
    op.create_check_constraint("ck_usage_rollups_quantity_finite", "usage_rollups", NOT_NEGATIVE)
    for column in reversed(METRIC_COLUMNS):
        op.drop_column("metrics", column)
    op.drop_constraint("ck_metrics_aggregation_known", "metrics")
    op.create_check_constraint("ck_metrics_aggregation_known", "metrics", _among("aggregation", BEFORE))
