"""Organizations that changed lately are found by when they did, so that nobody needs to read the others again.

Revision ID: 0022
Revises: 0021
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

STAMP = """
CREATE FUNCTION organizations_stamped() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at = clock_timestamp();
  RETURN NEW;
END $$;
CREATE TRIGGER organizations_stamped BEFORE UPDATE ON organizations FOR EACH ROW EXECUTE FUNCTION organizations_stamped();
"""


def upgrade() -> None:
    """Stamp every change, whoever makes it; index the stamp."""
    op.execute(STAMP)
    op.create_index("ix_organizations_updated_at", "organizations", ["updated_at"])


def downgrade() -> None:
    """Drop both."""
    op.drop_index("ix_organizations_updated_at", "organizations")
    op.execute("DROP TRIGGER organizations_stamped ON organizations")
    op.execute("DROP FUNCTION organizations_stamped")
