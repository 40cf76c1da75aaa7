"""Timelines: the day of the month periods begin on, what follows a trial without a payment method, suspension, credit on the next invoice.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

AFTER_TRIAL = "('convert', 'cancel', 'pause')"


def upgrade() -> None:
    """Add columns with the meaning everything had before."""
    for table in ("plan_versions", "subscriptions"):
        op.add_column(table, sa.Column("trial_end_without_method", sa.String(16), server_default="convert", nullable=False))
        name = op.f(f"ck_{table}_trial_end_without_method_known")
        op.create_check_constraint(name, table, f"trial_end_without_method IN {AFTER_TRIAL}")
    op.drop_constraint(op.f("ck_plan_versions_credit_policy_known"), "plan_versions")
    op.create_check_constraint(
        op.f("ck_plan_versions_credit_policy_known"), "plan_versions", "credit_policy IN ('credit', 'next_invoice', 'none')"
    )
    op.add_column("subscriptions", sa.Column("billing_day", sa.SmallInteger))
    op.add_column("subscriptions", sa.Column("suspended_at", sa.DateTime(timezone=True)))
    op.add_column("subscriptions", sa.Column("suspension_cause", sa.String(16)))
    op.create_check_constraint(op.f("ck_subscriptions_billing_day_in_month"), "subscriptions", "billing_day BETWEEN 1 AND 31")
    op.create_check_constraint(
        op.f("ck_subscriptions_suspension_cause_known"), "subscriptions", "suspension_cause IN ('unpaid', 'operator')"
    )
    op.create_check_constraint(
        op.f("ck_subscriptions_suspension_explained"),
        "subscriptions",
        "(status = 'suspended') = (suspended_at IS NOT NULL) AND (suspended_at IS NULL) = (suspension_cause IS NULL)",
    )
    op.create_index("ix_subscriptions_standing", "subscriptions", ["id"], postgresql_where=sa.text("status IN ('past_due', 'suspended')"))


def downgrade() -> None:
    """Take them away."""
    op.drop_index("ix_subscriptions_standing", "subscriptions")
    for column in ("suspension_cause", "suspended_at", "billing_day", "trial_end_without_method"):
        op.drop_column("subscriptions", column)
    op.drop_column("plan_versions", "trial_end_without_method")
    op.drop_constraint(op.f("ck_plan_versions_credit_policy_known"), "plan_versions")
    op.create_check_constraint(op.f("ck_plan_versions_credit_policy_known"), "plan_versions", "credit_policy IN ('credit', 'none')")
