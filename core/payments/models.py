"""Tables of payments. A charge attempt is committed before the provider is called; its id is the provider's idempotency key."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base, Currency, Id, MinorUnits, one_of


class TransactionType(StrEnum):
    CHARGE = "charge"
    REFUND = "refund"
    CREDIT = "credit"
    ADJUSTMENT = "adjustment"


class TransactionStatus(StrEnum):
    """`unknown`: the provider did not answer; nothing new may be tried until a lookup settles it.

    A failed charge may yet become succeeded: the provider's word that money moved outranks what we had concluded.
    """

    PENDING = "pending"
    PROCESSING = "processing"
    REQUIRES_ACTION = "requires_action"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


LIVE = (TransactionStatus.PENDING, TransactionStatus.PROCESSING, TransactionStatus.REQUIRES_ACTION, TransactionStatus.UNKNOWN)
TRANSITIONS: dict[TransactionStatus, frozenset[TransactionStatus]] = {
    TransactionStatus.PENDING: frozenset(set(TransactionStatus) - {TransactionStatus.PENDING}),
    TransactionStatus.PROCESSING: frozenset({TransactionStatus.SUCCEEDED, TransactionStatus.FAILED, TransactionStatus.REQUIRES_ACTION}),
    TransactionStatus.REQUIRES_ACTION: frozenset({TransactionStatus.SUCCEEDED, TransactionStatus.FAILED, TransactionStatus.PROCESSING}),
    TransactionStatus.UNKNOWN: frozenset(
        {TransactionStatus.SUCCEEDED, TransactionStatus.FAILED, TransactionStatus.PROCESSING, TransactionStatus.REQUIRES_ACTION}
    ),
    TransactionStatus.SUCCEEDED: frozenset(),
    TransactionStatus.FAILED: frozenset({TransactionStatus.SUCCEEDED}),
}


class PaymentCustomer(Base):
    """Who the organization is at a payment provider."""

    __tablename__ = "payment_customers"

    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    provider: Mapped[str] = mapped_column(String(16), primary_key=True)
    provider_customer_id: Mapped[str] = mapped_column(String(255), unique=True)
    created_at: Mapped[datetime]


class PaymentMethod(Base):
    """A token of a card or account kept by the provider; no card number ever reaches us."""

    __tablename__ = "payment_methods"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        UniqueConstraint("provider", "provider_payment_method_id"),
        Index(
            "uq_payment_methods_one_default",
            "organization_id",
            unique=True,
            postgresql_where=text("is_default AND removed_at IS NULL"),
        ),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    type: Mapped[str] = mapped_column(String(50))
    provider: Mapped[str] = mapped_column(String(50))
    provider_customer_id: Mapped[str | None] = mapped_column(String(255))
    provider_payment_method_id: Mapped[str] = mapped_column(String(255))
    is_default: Mapped[bool] = mapped_column(server_default=text("false"))
    last_four: Mapped[str | None] = mapped_column(String(4))
    brand: Mapped[str | None] = mapped_column(String(50))
    exp_month: Mapped[int | None] = mapped_column(Integer)
    exp_year: Mapped[int | None] = mapped_column(Integer)
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class SetupAttempt(Base):
    """A customer on the way to the provider's page to save a payment method, and back."""

    __tablename__ = "setup_attempts"

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"), index=True)
    provider: Mapped[str] = mapped_column(String(16))
    provider_session_id: Mapped[str | None] = mapped_column(String(255), unique=True)
    return_to: Mapped[str] = mapped_column(Text, server_default="")
    created_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]


class BillingTransaction(Base):
    """One movement of money, or an attempt at one. At most one attempt per invoice is live at a time (partial unique index)."""

    __tablename__ = "billing_transactions"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        ForeignKeyConstraint(["organization_id", "invoice_id"], ["invoices.organization_id", "invoices.id"]),
        ForeignKeyConstraint(["organization_id", "payment_method_id"], ["payment_methods.organization_id", "payment_methods.id"]),
        one_of("type", TransactionType),
        one_of("status", TransactionStatus),
        CheckConstraint("amount_minor > 0", name="moves_money"),
        UniqueConstraint("provider", "provider_transaction_id"),
        Index(
            "uq_billing_transactions_one_live_charge",
            "invoice_id",
            unique=True,
            postgresql_where=text("type = 'charge' AND status IN ('pending', 'processing', 'requires_action', 'unknown')"),
        ),
        Index("ix_billing_transactions_invoice_id", "invoice_id"),
        Index("ix_billing_transactions_organization_id_created_at", "organization_id", "created_at"),
        Index(
            "ix_billing_transactions_live",
            "updated_at",
            postgresql_where=text("status IN ('pending', 'processing', 'requires_action', 'unknown')"),
        ),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    invoice_id: Mapped[uuid.UUID | None]
    payment_method_id: Mapped[uuid.UUID | None]
    refunded_transaction_id: Mapped[uuid.UUID | None]
    type: Mapped[str] = mapped_column(String(50))
    status: Mapped[str] = mapped_column(String(50))
    amount_minor: Mapped[MinorUnits]
    currency: Mapped[Currency]
    provider: Mapped[str] = mapped_column(String(16))
    provider_transaction_id: Mapped[str | None] = mapped_column(String(255))
    reference: Mapped[str | None] = mapped_column(String(255))
    """The bank's or operator's reference of a payment made outside the provider."""
    action_url: Mapped[str | None] = mapped_column(Text)
    failure_code: Mapped[str | None] = mapped_column(String(64))
    failure_reason: Mapped[str | None] = mapped_column(Text)
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    created_at: Mapped[datetime]
    """Business time of the attempt (the organization's clock)."""
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp(), onupdate=func.clock_timestamp())
    settled_at: Mapped[datetime | None]


class InboundEvent(Base):
    """A provider's webhook, verified and stored as it came before anything is done with it."""

    __tablename__ = "inbound_events"
    __table_args__ = (
        UniqueConstraint("provider", "event_id"),
        Index("ix_inbound_events_pending", "id", postgresql_where=text("processed_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    provider: Mapped[str] = mapped_column(String(16))
    event_id: Mapped[str] = mapped_column(String(255))
    type: Mapped[str] = mapped_column(String(100))
    object_id: Mapped[str] = mapped_column(String(255), server_default="")
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    next_try_at: Mapped[datetime | None]
    processed_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(Text)
