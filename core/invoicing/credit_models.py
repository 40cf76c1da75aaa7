"""Tables of credit: what a customer may set against later invoices, and what invoices used of it."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Integer, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base, Currency, Id, MinorUnits
from core.pricing.credits import PRIORITY


class AccountCredit(Base):
    """Money the customer may set against later invoices: what an invoice with a negative total gave back, or a grant, until it expires.

    Credits are used by `priority`, lowest first, then soonest expiry, then oldest.
    """

    __tablename__ = "account_credits"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        ForeignKeyConstraint(["organization_id", "source_invoice_id"], ["invoices.organization_id", "invoices.id"]),
        UniqueConstraint("source_invoice_id"),
        CheckConstraint("remaining_minor >= 0 AND remaining_minor <= amount_minor", name="never_overdrawn"),
        Index("ix_account_credits_expires_at", "expires_at", postgresql_where=text("remaining_minor > 0 AND expires_at IS NOT NULL")),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID]
    source_invoice_id: Mapped[uuid.UUID | None]
    """The invoice whose negative total it is; None for a grant."""
    name: Mapped[str] = mapped_column(String(255), server_default="")
    priority: Mapped[int] = mapped_column(Integer, server_default="50", default=PRIORITY)
    expires_at: Mapped[datetime | None]
    expiry_told_at: Mapped[datetime | None]
    """When the customer was told that it is about to expire."""
    currency: Mapped[Currency]
    amount_minor: Mapped[MinorUnits]
    remaining_minor: Mapped[MinorUnits]
    created_at: Mapped[datetime]


class CreditApplication(Base):
    """Part of an account credit that an invoice used."""

    __tablename__ = "credit_applications"
    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "account_credit_id"], ["account_credits.organization_id", "account_credits.id"]),
        ForeignKeyConstraint(["organization_id", "invoice_id"], ["invoices.organization_id", "invoices.id"]),
        UniqueConstraint("account_credit_id", "invoice_id"),
        CheckConstraint("amount_minor > 0", name="applies_something"),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID]
    account_credit_id: Mapped[uuid.UUID]
    invoice_id: Mapped[uuid.UUID]
    amount_minor: Mapped[MinorUnits]
