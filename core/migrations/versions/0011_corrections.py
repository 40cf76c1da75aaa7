"""Corrections of usage: what an event was before it was voided or amended; files of past usage, staged, applied and reverted.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
NOT_NEGATIVE = "{0} >= 0 AND {0} < 'Infinity'"


def upgrade() -> None:
    _corrections()
    _backfills()


def _corrections() -> None:
    op.create_table(
        "usage_corrections",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("actor_label", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("backfill_id", sa.Uuid()),
        sa.Column("organization_number", sa.Integer(), nullable=False),
        sa.Column("event_number", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("idempotency_key", sa.Text(collation="C"), nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("subscription_id", sa.Uuid()),
        sa.Column("unit", sa.Text()),
        sa.Column("old_timestamp", INSTANT, nullable=False),
        sa.Column("old_quantity", sa.Numeric(), nullable=False),
        sa.Column("old_properties", sa.LargeBinary(), nullable=False),
        sa.Column("new_timestamp", INSTANT),
        sa.Column("new_quantity", sa.Numeric()),
        sa.Column("new_properties", sa.LargeBinary()),
        sa.CheckConstraint("kind IN ('void', 'amend', 'revert')", name="ck_usage_corrections_kind_known"),
        sa.CheckConstraint(NOT_NEGATIVE.format("old_quantity"), name="ck_usage_corrections_old_quantity_finite"),
        sa.CheckConstraint(NOT_NEGATIVE.format("new_quantity"), name="ck_usage_corrections_new_quantity_finite"),
        sa.CheckConstraint("(kind = 'amend') = (new_timestamp IS NOT NULL)", name="ck_usage_corrections_amend_whole"),
        comment="Each stored event that was voided, amended or reverted: what it was, what it became, who, when and why; append-only",
    )
    op.create_index("ix_usage_corrections_key", "usage_corrections", ["organization_number", "idempotency_key"])
    op.create_index("ix_usage_corrections_event", "usage_corrections", ["batch_id", "position"])


def _backfills() -> None:
    op.create_table(
        "usage_backfills",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("organization_id", sa.Uuid(), sa.ForeignKey("organizations.id"), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("file_name", sa.String(255), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("staged_at", INSTANT, nullable=False),
        sa.Column("staged_by", sa.Text(), nullable=False),
        sa.Column("staged_by_label", sa.Text(), nullable=False),
        sa.Column("applied_at", INSTANT),
        sa.Column("applied_by_label", sa.Text()),
        sa.Column("reverted_at", INSTANT),
        sa.Column("reverted_by_label", sa.Text()),
        sa.Column("batch_ids", postgresql.ARRAY(sa.BigInteger()), server_default="{}", nullable=False),
        sa.Column("segment_ids", postgresql.ARRAY(sa.BigInteger()), server_default="{}", nullable=False),
        sa.CheckConstraint("status IN ('staged', 'applied', 'reverted', 'discarded')", name="ck_usage_backfills_status_known"),
        comment="Files of past usage of one organization; their events count from the moment they are applied",
    )
    op.create_index("ix_usage_backfills_organization_id", "usage_backfills", ["organization_id"])
    op.create_table(
        "usage_backfill_rows",
        sa.Column("backfill_id", sa.Uuid(), sa.ForeignKey("usage_backfills.id"), primary_key=True),
        sa.Column("line", sa.Integer(), primary_key=True),
        sa.Column("timestamp", INSTANT),
        sa.Column("event_number", sa.Integer()),
        sa.Column("quantity", sa.Numeric()),
        sa.Column("idempotency_key", sa.Text(collation="C")),
        sa.Column("event", sa.LargeBinary(), nullable=False),
        sa.Column("fault", sa.String(50)),
        sa.Column("pointer", sa.Text()),
        sa.Column("detail", sa.Text()),
        sa.CheckConstraint("(fault IS NULL) = (quantity IS NOT NULL)", name="ck_usage_backfill_rows_fault_or_event"),
        comment="The lines of a staged file: an event that would count, or what is wrong with the line",
    )


def downgrade() -> None:
    for name in ("usage_backfill_rows", "usage_backfills", "usage_corrections"):
        op.drop_table(name)
