"""Tables of subscriptions: the subscription, its terms (what held from when to when), plan-change quotes."""

from __future__ import annotations

import uuid
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.catalog.models import AfterTrial, PlanVersion, SubscriptionPlan
from core.db import Base, Currency, Id, MinorUnits, finite, one_of


class SubscriptionStatus(StrEnum):
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    CANCELED = "canceled"


class AnchorMode(StrEnum):
    ANNIVERSARY = "anniversary"
    CALENDAR = "calendar"


class SuspensionCause(StrEnum):
    """Why access is off: UNPAID, after dunning, ends when the invoice is paid; what an OPERATOR suspended only an operator reinstates."""

    UNPAID = "unpaid"
    OPERATOR = "operator"


TRANSITIONS: dict[SubscriptionStatus, frozenset[SubscriptionStatus]] = {
    SubscriptionStatus.TRIALING: frozenset(
        {SubscriptionStatus.ACTIVE, SubscriptionStatus.PAUSED, SubscriptionStatus.SUSPENDED, SubscriptionStatus.CANCELED}
    ),
    SubscriptionStatus.ACTIVE: frozenset(
        {SubscriptionStatus.PAST_DUE, SubscriptionStatus.PAUSED, SubscriptionStatus.SUSPENDED, SubscriptionStatus.CANCELED}
    ),
    SubscriptionStatus.PAST_DUE: frozenset({SubscriptionStatus.ACTIVE, SubscriptionStatus.SUSPENDED, SubscriptionStatus.CANCELED}),
    SubscriptionStatus.PAUSED: frozenset({SubscriptionStatus.ACTIVE, SubscriptionStatus.CANCELED}),
    SubscriptionStatus.SUSPENDED: frozenset(
        {SubscriptionStatus.TRIALING, SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.CANCELED}
    ),
    SubscriptionStatus.CANCELED: frozenset({SubscriptionStatus.ACTIVE}),
}


class Subscription(Base):
    """A customer's running agreement. Its truth is its terms; `plan_id` and `current_period_*` are snapshots that verify checks.

    `next_bill_at` is when the billing sweep looks at it again (None: never): the first instant something may fall due.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        one_of("status", SubscriptionStatus),
        one_of("anchor_mode", AnchorMode),
        CheckConstraint(
            "(contract_ends_at IS NULL) = (contract_interval IS NULL) AND (contract_interval IS NULL) = (contract_count IS NULL)"
            " AND contract_count > 0 AND notice_days >= 0",
            name="contract_whole",
        ),
        one_of("trial_end_without_method", AfterTrial),
        one_of("suspension_cause", SuspensionCause),
        CheckConstraint("billing_day BETWEEN 1 AND 31", name="billing_day_in_month"),
        CheckConstraint(
            "(status = 'suspended') = (suspended_at IS NOT NULL) AND (suspended_at IS NULL) = (suspension_cause IS NULL)",
            name="suspension_explained",
        ),
        Index("ix_subscriptions_standing", "id", postgresql_where=text("status IN ('past_due', 'suspended')")),
        Index("ix_subscriptions_due", "next_bill_at", postgresql_where=text("next_bill_at IS NOT NULL")),
        Index("ix_subscriptions_external_id", "external_id", postgresql_where=text("external_id IS NOT NULL")),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    plan_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("subscription_plans.id"))
    external_id: Mapped[str | None] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(50))
    currency: Mapped[Currency]
    anchor_mode: Mapped[str] = mapped_column(String(16))
    billing_day: Mapped[int | None] = mapped_column(SmallInteger)
    """Day of the month on which periods of months begin, in place of `anchor_mode`; 29 to 31 fall on the last day of a shorter month."""
    started_at: Mapped[datetime]
    trial_end: Mapped[datetime | None]
    trial_end_without_method: Mapped[str] = mapped_column(String(16), server_default="convert")
    """What follows the trial when the account has no payment method by then."""
    current_period_start: Mapped[datetime | None]
    current_period_end: Mapped[datetime | None]
    next_bill_at: Mapped[datetime | None]
    billed_through: Mapped[datetime | None]
    """Everything that fell due up to this instant has been put on an invoice."""
    cancel_at_period_end: Mapped[bool] = mapped_column(server_default=text("false"))
    canceled_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    suspended_at: Mapped[datetime | None]
    suspension_cause: Mapped[str | None] = mapped_column(String(16))
    payment_method_id: Mapped[uuid.UUID | None]
    contract_ends_at: Mapped[datetime | None]
    """End of the agreed contract term; None: the customer may leave with any period."""
    contract_interval: Mapped[str | None] = mapped_column(String(16))
    contract_count: Mapped[int | None] = mapped_column(Integer)
    contract_renews: Mapped[bool] = mapped_column(server_default=text("true"), default=True)
    notice_days: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    """A cancellation less than this long before the end of the contract holds from the end of the next."""
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    plan: Mapped[SubscriptionPlan] = relationship(lazy="joined")
    terms: Mapped[list[SubscriptionTerm]] = relationship(
        back_populates="subscription", order_by="SubscriptionTerm.start_at", lazy="selectin"
    )
    items: Mapped[list[SubscriptionItem]] = relationship(
        back_populates="subscription", order_by="(SubscriptionItem.start_at, SubscriptionItem.id)", lazy="selectin"
    )


class SubscriptionTerm(Base):
    """From `start_at` (inclusive) to `end_at` (exclusive, None: open) this plan version and quantity held. Terms never overlap."""

    __tablename__ = "subscription_terms"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        ForeignKeyConstraint(["organization_id", "subscription_id"], ["subscriptions.organization_id", "subscriptions.id"]),
        CheckConstraint("end_at IS NULL OR end_at > start_at", name="forward"),
        finite("quantity", minimum=0),
        ExcludeConstraint(
            ("subscription_id", "="), (func.tstzrange(text("start_at"), text("end_at")), "&&"), name="ex_subscription_terms_overlap"
        ),
        Index("ix_subscription_terms_subscription_id", "subscription_id"),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID]
    subscription_id: Mapped[uuid.UUID]
    plan_version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("plan_versions.id"))
    start_at: Mapped[datetime]
    end_at: Mapped[datetime | None]
    quantity: Mapped[Decimal] = mapped_column(server_default="1")
    quantities: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    """Licensed quantities with names of their own, as decimal strings."""
    is_trial: Mapped[bool] = mapped_column(server_default=text("false"))
    anchor_day: Mapped[date]
    """Local calendar day the cycles hang on."""
    interval: Mapped[str] = mapped_column(String(16))
    interval_count: Mapped[int] = mapped_column(Integer, server_default="1")
    timezone: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    subscription: Mapped[Subscription] = relationship(back_populates="terms", lazy="raise_on_sql")
    plan_version: Mapped[PlanVersion] = relationship(lazy="joined")


class SubscriptionItem(Base):
    """What a subscription holds beside its plan: an add-on it is charged for, or a coupon, from `start_at` up to `end_at`."""

    __tablename__ = "subscription_items"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        ForeignKeyConstraint(["organization_id", "subscription_id"], ["subscriptions.organization_id", "subscriptions.id"]),
        CheckConstraint("end_at IS NULL OR end_at > start_at", name="forward"),
        finite("quantity", minimum=0),
        Index("ix_subscription_items_subscription_id", "subscription_id"),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID]
    subscription_id: Mapped[uuid.UUID]
    plan_version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("plan_versions.id"))
    quantity: Mapped[Decimal] = mapped_column(server_default="1")
    start_at: Mapped[datetime]
    end_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    subscription: Mapped[Subscription] = relationship(back_populates="items", lazy="raise_on_sql")
    plan_version: Mapped[PlanVersion] = relationship(lazy="joined")


class QuoteSubject(StrEnum):
    """What a quote is about: the plan with its quantities, or one add-on or coupon beside it."""

    PLAN = "plan"
    ADD_ON = "add_on"


class PlanChangeQuote(Base):
    """A locked preview of a change: confirming it charges exactly `total_minor`, or is refused when `digest` no longer holds.

    Of an add-on `plan_version_id` is its version, `quantity` how many there will be (0: none), `item_id` the one held (None: a new one).
    """

    __tablename__ = "plan_change_quotes"
    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "subscription_id"], ["subscriptions.organization_id", "subscriptions.id"]),
        one_of("subject", QuoteSubject),
        Index("ix_plan_change_quotes_subscription_id", "subscription_id"),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID]
    subscription_id: Mapped[uuid.UUID]
    plan_version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("plan_versions.id"))
    quantity: Mapped[Decimal] = mapped_column(server_default="1")
    quantities: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    effective_at: Mapped[datetime]
    when: Mapped[str] = mapped_column(String(16))
    currency: Mapped[Currency]
    subtotal_minor: Mapped[MinorUnits]
    tax_minor: Mapped[MinorUnits]
    total_minor: Mapped[MinorUnits]
    content: Mapped[dict[str, Any]]
    """Every line with its explanation, tax included: what the page showed."""
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    subject: Mapped[str] = mapped_column(String(16), server_default=QuoteSubject.PLAN.value, default=QuoteSubject.PLAN.value)
    item_id: Mapped[uuid.UUID | None]
