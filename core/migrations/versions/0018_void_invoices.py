"""Invoices that were taken back are found by subscription: what they billed is owed again, however long ago its cycle ended.

Revision ID: 0018
Revises: 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index the void invoices."""
    op.execute("CREATE INDEX ix_invoices_void ON invoices (subscription_id) WHERE status = 'void'")


def downgrade() -> None:
    """Drop the index."""
    op.execute("DROP INDEX ix_invoices_void")
