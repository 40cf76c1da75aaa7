"""Plan level: licensed quantities, cycles, allowances and commitments of a price; add-ons and coupons; agreements; granted credits.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OLD_KINDS, KINDS = "('recurring', 'usage')", "('recurring', 'usage', 'discount', 'commitment')"
OLD_STATUSES, STATUSES = "('draft', 'live', 'retired')", "('draft', 'live', 'retired', 'negotiated')"
ACCOUNTS = "('accounts_receivable', 'revenue', 'tax_payable', 'provider_clearing', 'customer_credit', 'bad_debt')"
FINITE = "{0} <> 'NaN' AND {0} < 'Infinity' AND {0} >= 0"
RULE_COLUMNS = ("licensed", "interval", "interval_count", "included", "covers", "overage_factor", "proration", "currency")
CONTRACT_COLUMNS = ("contract_ends_at", "contract_interval", "contract_count", "contract_renews", "notice_days")


def upgrade() -> None:
    """Add columns with the meaning everything had before, and the table of what is attached to subscriptions."""
    _prices()
    _plans()
    _subscriptions()
    _items()
    op.alter_column("account_credits", "source_invoice_id", nullable=True)
    op.add_column("account_credits", sa.Column("name", sa.String(255), server_default="", nullable=False))
    op.add_column("account_credits", sa.Column("priority", sa.Integer, server_default="50", nullable=False))
    op.add_column("account_credits", sa.Column("expires_at", sa.DateTime(timezone=True)))
    _change_check("ledger_accounts", "code_known", f"code IN {ACCOUNTS[:-1]}, 'promotional_credit')")


def _prices() -> None:
    for column in (
        sa.Column("licensed", sa.String(100)),
        sa.Column("interval", sa.String(16)),
        sa.Column("interval_count", sa.Integer),
        sa.Column("included", sa.Numeric, server_default="0", nullable=False),
        sa.Column("covers", postgresql.JSONB),
        sa.Column("overage_factor", sa.Numeric, server_default="1", nullable=False),
        sa.Column("proration", sa.String(32)),
        sa.Column("currency", sa.String(3)),
    ):
        op.add_column("pricing_rules", column)
    _change_check("pricing_rules", "kind_known", f"kind IN {KINDS}")
    for column in ("included", "overage_factor"):
        op.create_check_constraint(op.f(f"ck_pricing_rules_{column}_finite"), "pricing_rules", FINITE.format(column))
    op.create_check_constraint(
        op.f("ck_pricing_rules_cycle_whole"), "pricing_rules", "(interval IS NULL) = (interval_count IS NULL) AND interval_count > 0"
    )
    op.drop_constraint(op.f("uq_pricing_rules_plan_version_id_code"), "pricing_rules")
    op.create_unique_constraint(
        op.f("uq_pricing_rules_plan_version_id_code_currency"),
        "pricing_rules",
        ["plan_version_id", "code", "currency"],
        postgresql_nulls_not_distinct=True,
    )


def _plans() -> None:
    op.add_column("subscription_plans", sa.Column("kind", sa.String(16), server_default="plan", nullable=False))
    op.create_check_constraint(op.f("ck_subscription_plans_kind_known"), "subscription_plans", "kind IN ('plan', 'add_on', 'coupon')")
    op.add_column("plan_versions", sa.Column("organization_id", sa.Uuid))
    op.add_column("plan_versions", sa.Column("duration_cycles", sa.Integer))
    op.create_foreign_key(op.f("fk_plan_versions_organization_id"), "plan_versions", "organizations", ["organization_id"], ["id"])
    _change_check("plan_versions", "status_known", f"status IN {STATUSES}")
    op.create_check_constraint(
        op.f("ck_plan_versions_negotiated_for_one"), "plan_versions", "(status = 'negotiated') = (organization_id IS NOT NULL)"
    )
    op.create_check_constraint(op.f("ck_plan_versions_duration_positive"), "plan_versions", "duration_cycles > 0")


def _subscriptions() -> None:
    for table in ("subscription_terms", "plan_change_quotes"):
        op.add_column(table, sa.Column("quantities", postgresql.JSONB, server_default=sa.text("'{}'"), nullable=False))
    for column in (
        sa.Column("contract_ends_at", sa.DateTime(timezone=True)),
        sa.Column("contract_interval", sa.String(16)),
        sa.Column("contract_count", sa.Integer),
        sa.Column("contract_renews", sa.Boolean, server_default=sa.true(), nullable=False),
        sa.Column("notice_days", sa.Integer, server_default="0", nullable=False),
    ):
        op.add_column("subscriptions", column)
    op.create_check_constraint(
        op.f("ck_subscriptions_contract_whole"),
        "subscriptions",
        "(contract_ends_at IS NULL) = (contract_interval IS NULL) AND (contract_interval IS NULL) = (contract_count IS NULL)"
        " AND contract_count > 0 AND notice_days >= 0",
    )


def _items() -> None:
    op.create_table(
        "subscription_items",
        sa.Column("id", sa.Uuid, server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("organization_id", sa.Uuid, nullable=False),
        sa.Column("subscription_id", sa.Uuid, nullable=False),
        sa.Column("plan_version_id", sa.Uuid, nullable=False),
        sa.Column("quantity", sa.Numeric, server_default="1", nullable=False),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("end_at IS NULL OR end_at > start_at", name=op.f("ck_subscription_items_forward")),
        sa.CheckConstraint(FINITE.format("quantity"), name=op.f("ck_subscription_items_quantity_finite")),
        sa.ForeignKeyConstraint(
            ["organization_id", "subscription_id"],
            ["subscriptions.organization_id", "subscriptions.id"],
            name=op.f("fk_subscription_items_organization_id_subscription_id"),
        ),
        sa.ForeignKeyConstraint(["plan_version_id"], ["plan_versions.id"], name=op.f("fk_subscription_items_plan_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscription_items")),
        sa.UniqueConstraint("organization_id", "id", name=op.f("uq_subscription_items_organization_id_id")),
    )
    op.create_index("ix_subscription_items_subscription_id", "subscription_items", ["subscription_id"])


def downgrade() -> None:
    """Take them away; refused by the constraints while they are used."""
    _change_check("ledger_accounts", "code_known", f"code IN {ACCOUNTS}")
    for column in ("expires_at", "priority", "name"):
        op.drop_column("account_credits", column)
    op.alter_column("account_credits", "source_invoice_id", nullable=False)
    op.drop_table("subscription_items")
    for column in CONTRACT_COLUMNS:
        op.drop_column("subscriptions", column)
    for table in ("subscription_terms", "plan_change_quotes"):
        op.drop_column(table, "quantities")
    op.drop_column("plan_versions", "organization_id")
    op.drop_column("plan_versions", "duration_cycles")
    _change_check("plan_versions", "status_known", f"status IN {OLD_STATUSES}")
    op.drop_column("subscription_plans", "kind")
    for column in RULE_COLUMNS:
        op.drop_column("pricing_rules", column)
    op.create_unique_constraint(op.f("uq_pricing_rules_plan_version_id_code"), "pricing_rules", ["plan_version_id", "code"])
    _change_check("pricing_rules", "kind_known", f"kind IN {OLD_KINDS}")


def _change_check(table: str, name: str, condition: str) -> None:
    op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
