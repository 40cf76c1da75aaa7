"""Tables of the catalogue. A published plan version and its pricing rules never change: a new price is a new version."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Integer, String, Text, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.db import Base, Currency, Id, finite, one_of
from core.metering.models import Metric
from core.pricing.terms import Kind


class VersionStatus(StrEnum):
    DRAFT = "draft"
    LIVE = "live"
    RETIRED = "retired"
    NEGOTIATED = "negotiated"
    """Made for one customer; never on offer."""


class PlanKind(StrEnum):
    """What a subscription does with it: runs on a plan, is charged for an add-on beside it, is granted a coupon's discount."""

    PLAN = "plan"
    ADD_ON = "add_on"
    COUPON = "coupon"


class BillingMode(StrEnum):
    IN_ADVANCE = "in_advance"
    IN_ARREARS = "in_arrears"


class CreditPolicy(StrEnum):
    """What becomes of the unused part of a price billed in advance when a term ends early.

    CREDIT: it is given back at once. NEXT_INVOICE: what a change of plan or quantity makes up waits for the next invoice of the
    subscription. NONE: it is kept.
    """

    CREDIT = "credit"
    NEXT_INVOICE = "next_invoice"
    NONE = "none"


class AfterTrial(StrEnum):
    """What follows a trial that ends while the account has no payment method. With one, every trial converts."""

    CONVERT = "convert"
    CANCEL = "cancel"
    PAUSE = "pause"


class SubscriptionPlan(Base):
    """A plan customers can subscribe to; its prices are in its versions."""

    __tablename__ = "subscription_plans"
    __table_args__ = (one_of("kind", PlanKind),)

    id: Mapped[Id]
    code: Mapped[str] = mapped_column(String(100), unique=True)
    kind: Mapped[str] = mapped_column(String(16), server_default=PlanKind.PLAN.value)
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(Text, server_default="")
    currency: Mapped[Currency]
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    is_public: Mapped[bool] = mapped_column(server_default=text("true"))
    """Whether customers may choose it themselves."""
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    versions: Mapped[list[PlanVersion]] = relationship(
        back_populates="plan",
        order_by="PlanVersion.version",
        lazy="raise_on_sql",
        primaryjoin="and_(SubscriptionPlan.id == PlanVersion.plan_id, PlanVersion.organization_id.is_(None))",
    )
    """Those on the price list; what was negotiated with one customer is read with its subscription."""


class PlanVersion(Base):
    """One immutable price list of a plan. Terms of subscriptions point here and keep it until they are moved."""

    __tablename__ = "plan_versions"
    __table_args__ = (
        UniqueConstraint("plan_id", "version"),
        one_of("status", VersionStatus),
        one_of("billing_mode", BillingMode),
        one_of("credit_policy", CreditPolicy),
        one_of("trial_end_without_method", AfterTrial),
        finite("base_price", minimum=0),
        CheckConstraint("trial_period_days >= 0 AND interval_count > 0", name="periods_sane"),
        CheckConstraint("(status = 'negotiated') = (organization_id IS NOT NULL)", name="negotiated_for_one"),
        CheckConstraint("duration_cycles > 0", name="duration_positive"),
    )

    id: Mapped[Id]
    plan_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("subscription_plans.id"))
    version: Mapped[int] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(String(16))
    base_price: Mapped[Decimal]
    """Major units per billing period; the rule with code `base` charges it."""
    billing_mode: Mapped[str] = mapped_column(String(16))
    billing_period: Mapped[str] = mapped_column(String(16))
    interval_count: Mapped[int] = mapped_column(Integer, server_default="1")
    trial_period_days: Mapped[int] = mapped_column(Integer, server_default="0")
    trial_end_without_method: Mapped[str] = mapped_column(String(16), server_default="convert")
    proration: Mapped[str] = mapped_column(String(16))
    credit_policy: Mapped[str] = mapped_column(String(16))
    features: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    limits: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]
    created_by: Mapped[str] = mapped_column(Text, server_default="")
    organization_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organizations.id"))
    """The customer a negotiated version was made for."""
    duration_cycles: Mapped[int | None] = mapped_column(Integer)
    """Of a coupon: for how many billing periods it holds; None: until it is taken away."""
    customers_may_pause: Mapped[bool] = mapped_column(server_default=text("true"), default=True)
    """Whether customers may pause it themselves; operators always may."""

    plan: Mapped[SubscriptionPlan] = relationship(back_populates="versions", lazy="joined")
    rules: Mapped[list[PricingRule]] = relationship(back_populates="plan_version", order_by="PricingRule.position", lazy="selectin")

    def rules_in(self, currency: str | None) -> list[PricingRule]:
        """The prices in a currency; those in the plan's own when it has none in that one."""
        return [rule for rule in self.rules if rule.currency == currency] or [rule for rule in self.rules if rule.currency is None]

    def sells_in(self, currency: str) -> bool:
        """Whether a subscription in this currency can run on it."""
        return currency == self.plan.currency or any(rule.currency == currency for rule in self.rules)


class PricingRule(Base):
    """One price of a plan version: what (usage of a metric, a recurring fee, spend), how (`model` and `rules`), when (`billing_mode`).

    `rules` is the JSON of core.pricing.models.to_json: the keys of the model, `model` included. The other columns mean what they mean in
    core.pricing.terms.Rule; `interval` and `proration` None: those of the version, `currency` None: that of the plan.
    """

    __tablename__ = "pricing_rules"
    __table_args__ = (
        UniqueConstraint("plan_version_id", "code", "currency", postgresql_nulls_not_distinct=True),
        one_of("billing_mode", BillingMode),
        one_of("kind", Kind),
        finite("included", minimum=0),
        finite("overage_factor", minimum=0),
        CheckConstraint(
            "quantity_min >= 0 AND quantity_min < 'Infinity' AND quantity_max >= coalesce(quantity_min, 0) AND quantity_max < 'Infinity'",
            name="quantity_bounds",
        ),
        CheckConstraint("(kind = 'usage') = (metric_id IS NOT NULL)", name="usage_has_metric"),
        CheckConstraint("(interval IS NULL) = (interval_count IS NULL) AND interval_count > 0", name="cycle_whole"),
    )

    id: Mapped[Id]
    plan_version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("plan_versions.id"))
    code: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(16))
    metric_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("metrics.id"))
    model: Mapped[str] = mapped_column(String(32))
    rules: Mapped[dict[str, Any]]
    billing_mode: Mapped[str] = mapped_column(String(16))
    position: Mapped[int] = mapped_column(Integer)
    licensed: Mapped[str | None] = mapped_column(String(100))
    interval: Mapped[str | None] = mapped_column(String(16))
    interval_count: Mapped[int | None] = mapped_column(Integer)
    included: Mapped[Decimal] = mapped_column(server_default="0", default=Decimal(0))
    covers: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    overage_factor: Mapped[Decimal] = mapped_column(server_default="1", default=Decimal(1))
    proration: Mapped[str | None] = mapped_column(String(32))
    currency: Mapped[str | None] = mapped_column(String(3))
    quantity_min: Mapped[Decimal | None]
    quantity_max: Mapped[Decimal | None]
    """Bounds of the quantity it is multiplied by; None: none."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    plan_version: Mapped[PlanVersion] = relationship(back_populates="rules", lazy="raise_on_sql")
    metric: Mapped[Metric | None] = relationship(lazy="joined")
