"""Sealed runs of idempotency keys: what no longer fits into the aggregator's memory.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "usage_dedup_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("newest_on", sa.Date(), nullable=False),
        sa.Column("keys", sa.Integer(), nullable=False),
        sa.Column("offsets", sa.LargeBinary(), nullable=False),
        sa.Column("remainders", sa.LargeBinary(), nullable=False),
        comment="Keys that left memory, one row per sealed table, with its filter (runs.Filter)",
    )
    op.create_table(
        "usage_dedup_pages",
        sa.Column("run_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("page", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("keys", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "page", name="pk_usage_dedup_pages"),
        comment="The keys of a run by the first bits of their hash: runs.ENTRY records",
    )
    for table, column in (("usage_dedup_runs", "offsets"), ("usage_dedup_runs", "remainders"), ("usage_dedup_pages", "keys")):
        op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.drop_table("usage_dedup_pages")
    op.drop_table("usage_dedup_runs")
