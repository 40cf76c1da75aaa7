"""Drafts of plan versions: written by several people, published once or discarded.

Revision ID: 0020
Revises: 0019
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """One table."""
    op.create_table(
        "plan_drafts",
        sa.Column("id", sa.Uuid, server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("plan_code", sa.String(100), server_default="", nullable=False),
        sa.Column("based_on_id", sa.Uuid),
        sa.Column("document", JSONB, nullable=False),
        sa.Column("usage", JSONB, server_default="{}", nullable=False),
        sa.Column("revision", sa.Integer, server_default="1", nullable=False),
        sa.Column("editors", JSONB, server_default="[]", nullable=False),
        sa.Column("note", sa.Text, server_default="", nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_by", sa.Text, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("closed_by", sa.Text),
        sa.Column("closed_at", INSTANT),
        sa.Column("plan_version_id", sa.Uuid),
        sa.CheckConstraint("status IN ('open', 'proposed', 'published', 'discarded')", name=op.f("ck_plan_drafts_status_known")),
        sa.CheckConstraint("(status = 'published') = (plan_version_id IS NOT NULL)", name=op.f("ck_plan_drafts_published_as")),
        sa.CheckConstraint("(status IN ('published', 'discarded')) = (closed_at IS NOT NULL)", name=op.f("ck_plan_drafts_closed_when")),
        sa.CheckConstraint("revision > 0", name=op.f("ck_plan_drafts_revision_counts")),
        sa.ForeignKeyConstraint(["based_on_id"], ["plan_versions.id"], name=op.f("fk_plan_drafts_based_on_id")),
        sa.ForeignKeyConstraint(["plan_version_id"], ["plan_versions.id"], name=op.f("fk_plan_drafts_plan_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_drafts")),
    )
    op.create_index("ix_plan_drafts_open", "plan_drafts", ["plan_code"], postgresql_where=sa.text("status IN ('open', 'proposed')"))


def downgrade() -> None:
    """Take it away."""
    op.drop_table("plan_drafts")
