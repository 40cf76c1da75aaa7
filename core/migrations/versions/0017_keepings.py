"""What was archived and forgotten each day.

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
COUNTS = (
    *("archived_days", "archived_events", "archived_bytes", "purged_days", "purged_events", "kept_events"),
    *("purged_log_days", "purged_requests", "purged_rejections"),
)


def upgrade() -> None:
    op.create_table(
        "usage_keepings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        *(sa.Column(name, sa.BigInteger(), nullable=False, server_default="0") for name in COUNTS),
        sa.Column("left", JSONB(), nullable=False, server_default=sa.text("'[]'")),
        comment="Each daily run of archiving and purging usage: what went, and what was left and why",
    )
    op.create_index(
        "uq_usage_keepings_open", "usage_keepings", [sa.text("(finished_at IS NULL)")], unique=True, postgresql_where="finished_at IS NULL"
    )
    op.execute("INSERT INTO usage_keepings (started_at, finished_at) VALUES (now(), now())")  # the first run is tomorrow's


def downgrade() -> None:
    op.drop_table("usage_keepings")
