"""How far the log's consumers have come, when the log is not in this database.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "usage_log_offsets",
        sa.Column("topic", sa.Text(), primary_key=True),
        sa.Column("partition", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("next_offset", sa.BigInteger()),
        sa.Column("caught_up_at", INSTANT, nullable=False),
        sa.Column("retired_at", INSTANT),
    )


def downgrade() -> None:
    op.drop_table("usage_log_offsets")
