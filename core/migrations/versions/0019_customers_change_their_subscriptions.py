"""What customers may change themselves: bounds of a licensed quantity, whether they may pause; quotes for add-ons.

Revision ID: 0019
Revises: 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

BOUNDS = "quantity_min >= 0 AND quantity_min < 'Infinity' AND quantity_max >= coalesce(quantity_min, 0) AND quantity_max < 'Infinity'"


def upgrade() -> None:
    """Add columns with the meaning everything had before."""
    for column in ("quantity_min", "quantity_max"):
        op.add_column("pricing_rules", sa.Column(column, sa.Numeric))
    op.create_check_constraint(op.f("ck_pricing_rules_quantity_bounds"), "pricing_rules", BOUNDS)
    op.add_column("plan_versions", sa.Column("customers_may_pause", sa.Boolean, server_default=sa.true(), nullable=False))
    op.add_column("plan_change_quotes", sa.Column("subject", sa.String(16), server_default="plan", nullable=False))
    op.create_check_constraint(op.f("ck_plan_change_quotes_subject_known"), "plan_change_quotes", "subject IN ('plan', 'add_on')")
    op.add_column("plan_change_quotes", sa.Column("item_id", sa.Uuid))


def downgrade() -> None:
    """Take them away."""
    op.drop_column("plan_change_quotes", "item_id")
    op.drop_column("plan_change_quotes", "subject")
    op.drop_column("plan_versions", "customers_may_pause")
    for column in ("quantity_max", "quantity_min"):
        op.drop_column("pricing_rules", column)
