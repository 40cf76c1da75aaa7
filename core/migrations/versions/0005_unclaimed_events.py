"""Events that no metric reads yet, and subscriptions found by their external id.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Remember who sent an event name before a metric read it."""
    op.create_table(
        "usage_unclaimed_names",
        sa.Column("organization_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("event_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("organization_number", "event_number", name=op.f("pk_usage_unclaimed_names")),
        comment="Event names an organization sent while no metric read them (lenient mode); the events are in usage_events",
    )
    op.create_index("ix_subscriptions_external_id", "subscriptions", ["external_id"], postgresql_where=sa.text("external_id IS NOT NULL"))


def downgrade() -> None:
    """Forget it."""
    op.drop_index("ix_subscriptions_external_id", "subscriptions")
    op.drop_table("usage_unclaimed_names")
