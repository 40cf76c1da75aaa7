"""Archived days of usage, and legal holds that keep them from being purged.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "usage_archives",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), primary_key=True),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Numeric(), nullable=False),
        sa.Column("contents", postgresql.JSONB(), nullable=False),
        sa.Column("archived_at", INSTANT, nullable=False),
        sa.Column("verified_at", INSTANT),
        sa.Column("purged_at", INSTANT),
        sa.Column("kept_rows", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("kept_digest", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("restored_at", INSTANT),
        sa.CheckConstraint("purged_at IS NULL OR verified_at IS NOT NULL", name="ck_usage_archives_verified_before_purged"),
        sa.CheckConstraint("octet_length(sha256) = 32", name="ck_usage_archives_sha256_whole"),
    )
    op.create_index("ix_usage_archives_day", "usage_archives", ["day"])
    op.create_table(
        "legal_holds",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), primary_key=True),
        sa.Column(
            "organization_id",
            sa.Uuid(),
            sa.ForeignKey("organizations.id", name="fk_legal_holds_organization_id"),
            nullable=False,
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("placed_at", INSTANT, nullable=False),
        sa.Column("released_at", INSTANT),
    )
    op.create_index(
        "uq_legal_holds_organization_id_standing",
        "legal_holds",
        ["organization_id"],
        unique=True,
        postgresql_where=sa.text("released_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("legal_holds")
    op.drop_table("usage_archives")
