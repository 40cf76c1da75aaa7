"""Credit that is about to expire is told to the customer once, and found by its date.

Revision ID: 0021
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Remember who was told; index what may expire."""
    op.add_column("account_credits", sa.Column("expiry_told_at", sa.DateTime(timezone=True)))
    op.execute(
        "CREATE INDEX ix_account_credits_expires_at ON account_credits (expires_at) WHERE remaining_minor > 0 AND expires_at IS NOT NULL"
    )


def downgrade() -> None:
    """Drop both."""
    op.execute("DROP INDEX ix_account_credits_expires_at")
    op.drop_column("account_credits", "expiry_told_at")
