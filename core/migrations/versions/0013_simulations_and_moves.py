"""Price simulations with a row for each subscription; moves of many subscriptions to a plan version.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Four tables."""
    op.create_table(
        "price_simulations",
        sa.Column("id", sa.Uuid, server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("plan_version_id", sa.Uuid),
        sa.Column("document", JSONB),
        sa.Column("segment", JSONB, nullable=False),
        sa.Column("periods", sa.SmallInteger, nullable=False),
        sa.Column("as_of", INSTANT, nullable=False),
        sa.Column("started_by", sa.Text, nullable=False),
        sa.Column("subscriptions_total", sa.Integer, server_default="0", nullable=False),
        sa.Column("subscriptions_done", sa.Integer, server_default="0", nullable=False),
        sa.Column("reached_id", sa.Uuid),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.CheckConstraint("status IN ('running', 'done')", name=op.f("ck_price_simulations_status_known")),
        sa.CheckConstraint("(plan_version_id IS NULL) <> (document IS NULL)", name=op.f("ck_price_simulations_one_price_list")),
        sa.CheckConstraint("periods BETWEEN 1 AND 12", name=op.f("ck_price_simulations_periods_sane")),
        sa.ForeignKeyConstraint(["plan_version_id"], ["plan_versions.id"], name=op.f("fk_price_simulations_plan_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_simulations")),
    )
    op.create_index("ix_price_simulations_running", "price_simulations", ["created_at"], postgresql_where=sa.text("status = 'running'"))
    op.create_table(
        "price_simulation_rows",
        sa.Column("simulation_id", sa.Uuid, nullable=False),
        sa.Column("subscription_id", sa.Uuid, nullable=False),
        sa.Column("organization_id", sa.Uuid, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("periods", sa.SmallInteger, nullable=False),
        sa.Column("billed_minor", sa.BigInteger, nullable=False),
        sa.Column("simulated_minor", sa.BigInteger, nullable=False),
        sa.Column("error", sa.Text),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["price_simulations.id"], name=op.f("fk_price_simulation_rows_simulation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("simulation_id", "subscription_id", name=op.f("pk_price_simulation_rows")),
    )
    op.create_table(
        "plan_moves",
        sa.Column("id", sa.Uuid, server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("from_version_id", sa.Uuid, nullable=False),
        sa.Column("to_version_id", sa.Uuid, nullable=False),
        sa.Column("timing", sa.String(16), nullable=False),
        sa.Column("effective_on", INSTANT),
        sa.Column("increase_percent", sa.Numeric, nullable=False),
        sa.Column("as_of", INSTANT, nullable=False),
        sa.Column("started_by", sa.Text, nullable=False),
        sa.Column("subscriptions_total", sa.Integer, server_default="0", nullable=False),
        sa.Column("reached_id", sa.Uuid),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.CheckConstraint("status IN ('previewing', 'review', 'moving', 'undoing', 'done')", name=op.f("ck_plan_moves_status_known")),
        sa.CheckConstraint("timing IN ('now', 'period_end', 'date')", name=op.f("ck_plan_moves_timing_known")),
        sa.CheckConstraint("(timing = 'date') = (effective_on IS NOT NULL)", name=op.f("ck_plan_moves_date_given")),
        sa.CheckConstraint(
            "increase_percent <> 'NaN' AND increase_percent < 'Infinity' AND increase_percent >= 0",
            name=op.f("ck_plan_moves_increase_percent_finite"),
        ),
        sa.ForeignKeyConstraint(["from_version_id"], ["plan_versions.id"], name=op.f("fk_plan_moves_from_version_id")),
        sa.ForeignKeyConstraint(["to_version_id"], ["plan_versions.id"], name=op.f("fk_plan_moves_to_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_moves")),
    )
    op.create_index(
        "ix_plan_moves_unfinished",
        "plan_moves",
        ["created_at"],
        postgresql_where=sa.text("status IN ('previewing', 'moving', 'undoing')"),
    )
    op.create_table(
        "plan_move_items",
        sa.Column("move_id", sa.Uuid, nullable=False),
        sa.Column("subscription_id", sa.Uuid, nullable=False),
        sa.Column("organization_id", sa.Uuid, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("effective_at", INSTANT),
        sa.Column("due_minor", sa.BigInteger),
        sa.Column("present_minor", sa.BigInteger),
        sa.Column("next_minor", sa.BigInteger),
        sa.Column("flags", JSONB, server_default="[]", nullable=False),
        sa.Column("detail", sa.Text),
        sa.CheckConstraint("state IN ('ready', 'held', 'moved', 'failed', 'undone')", name=op.f("ck_plan_move_items_state_known")),
        sa.ForeignKeyConstraint(["move_id"], ["plan_moves.id"], name=op.f("fk_plan_move_items_move_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("move_id", "subscription_id", name=op.f("pk_plan_move_items")),
    )


def downgrade() -> None:
    """Take them away."""
    for table in ("plan_move_items", "plan_moves", "price_simulation_rows", "price_simulations"):
        op.drop_table(table)
