"""Tables of invoicing. A finalized invoice's content never changes (trigger); corrections are new documents."""

from __future__ import annotations

import uuid
from datetime import date, datetime
from decimal import Decimal
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
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.db import Base, Currency, Id, MinorUnits, finite, one_of


class InvoiceStatus(StrEnum):
    DRAFT = "draft"
    OPEN = "open"
    PAID = "paid"
    VOID = "void"
    UNCOLLECTIBLE = "uncollectible"


class InvoiceReason(StrEnum):
    """Why the invoice exists; part of what makes a second one for the same subscription and period impossible."""

    START = "start"
    PERIOD = "period"
    CHANGE = "change"
    TERMINATION = "termination"
    MANUAL = "manual"


class LineKind(StrEnum):
    CHARGE = "charge"
    ADJUSTMENT = "adjustment"
    CREDIT = "credit"
    MANUAL = "manual"


TRANSITIONS: dict[InvoiceStatus, frozenset[InvoiceStatus]] = {
    InvoiceStatus.DRAFT: frozenset({InvoiceStatus.OPEN, InvoiceStatus.PAID, InvoiceStatus.VOID}),
    InvoiceStatus.OPEN: frozenset({InvoiceStatus.PAID, InvoiceStatus.VOID, InvoiceStatus.UNCOLLECTIBLE}),
    InvoiceStatus.UNCOLLECTIBLE: frozenset({InvoiceStatus.PAID, InvoiceStatus.VOID}),
    InvoiceStatus.PAID: frozenset({InvoiceStatus.OPEN}),
    InvoiceStatus.VOID: frozenset(),
}


class NumberSeries(Base):
    """The counter of one gapless series of one legal entity; its row is locked last, in the finalizing transaction."""

    __tablename__ = "number_series"

    entity: Mapped[str] = mapped_column(String(64), primary_key=True)
    series: Mapped[str] = mapped_column(String(16), primary_key=True)
    year: Mapped[int] = mapped_column(Integer, primary_key=True)
    last_number: Mapped[int] = mapped_column(Integer, server_default="0")


class Invoice(Base):
    """One invoice. Amounts are minor units of `currency`; total = subtotal + tax; due = total − credit applied − paid."""

    __tablename__ = "invoices"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        ForeignKeyConstraint(["organization_id", "subscription_id"], ["subscriptions.organization_id", "subscriptions.id"]),
        one_of("status", InvoiceStatus),
        one_of("reason", InvoiceReason),
        CheckConstraint("total_minor = subtotal_minor + tax_minor", name="total_adds_up"),
        CheckConstraint("amount_due_minor = greatest(total_minor, 0) - credit_applied_minor - amount_paid_minor", name="due_adds_up"),
        CheckConstraint("amount_paid_minor >= 0 AND credit_applied_minor >= 0 AND amount_due_minor >= 0", name="nothing_negative"),
        CheckConstraint("(status = 'draft') = (finalized_at IS NULL) OR status = 'void'", name="finalized_has_date"),
        CheckConstraint("finalized_at IS NULL OR invoice_number IS NOT NULL", name="finalized_has_number"),
        UniqueConstraint("entity", "series", "year", "sequence"),
        Index("ix_invoices_organization_id_created_at", "organization_id", "created_at"),
        Index("ix_invoices_subscription_id", "subscription_id"),
        Index("ix_invoices_run_id", "run_id"),
        Index("ix_invoices_void", "subscription_id", postgresql_where=text("status = 'void'")),
        Index("ix_invoices_collect", "next_collect_at", postgresql_where=text("status = 'open' AND next_collect_at IS NOT NULL")),
        Index(
            "uq_invoices_one_draft_per_subscription",
            "subscription_id",
            unique=True,
            postgresql_where=text("status = 'draft' AND subscription_id IS NOT NULL"),
        ),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    subscription_id: Mapped[uuid.UUID | None]
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("invoice_runs.id"))
    invoice_number: Mapped[str | None] = mapped_column(String(50), unique=True)
    entity: Mapped[str | None] = mapped_column(String(64))
    series: Mapped[str | None] = mapped_column(String(16))
    year: Mapped[int | None] = mapped_column(Integer)
    sequence: Mapped[int | None] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(String(50))
    reason: Mapped[str] = mapped_column(String(16))
    currency: Mapped[Currency]
    subtotal_minor: Mapped[MinorUnits]
    tax_minor: Mapped[MinorUnits]
    total_minor: Mapped[MinorUnits]
    credit_applied_minor: Mapped[MinorUnits] = mapped_column(server_default="0")
    amount_paid_minor: Mapped[MinorUnits] = mapped_column(server_default="0")
    amount_due_minor: Mapped[MinorUnits]
    billing_period_start: Mapped[datetime | None]
    billing_period_end: Mapped[datetime | None]
    timezone: Mapped[str] = mapped_column(String(64))
    issue_date: Mapped[date | None]
    due_date: Mapped[date | None]
    finalized_at: Mapped[datetime | None]
    paid_at: Mapped[datetime | None]
    voided_at: Mapped[datetime | None]
    held_reason: Mapped[str | None] = mapped_column(Text)
    """Set while a reviewer holds the draft back from finalizing."""
    reviewed_by: Mapped[str | None] = mapped_column(Text)
    auto_finalize_at: Mapped[datetime | None]
    """When the sweep finalizes the draft by itself; None: a person does."""
    seller: Mapped[dict[str, Any] | None]
    buyer: Mapped[dict[str, Any] | None]
    """Seller and buyer as they were at finalization."""
    content_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    po_number: Mapped[str | None] = mapped_column(String(100))
    memo: Mapped[str | None] = mapped_column(Text)
    payment_method_id: Mapped[uuid.UUID | None]
    next_collect_at: Mapped[datetime | None]
    collect_attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"), onupdate=text("now()"))

    lines: Mapped[list[InvoiceLine]] = relationship(back_populates="invoice", order_by="InvoiceLine.position", lazy="raise_on_sql")
    taxes: Mapped[list[InvoiceTax]] = relationship(back_populates="invoice", order_by="InvoiceTax.position", lazy="raise_on_sql")


class InvoiceLine(Base):
    """One line, tax excluded. (pricing_rule_id, cycle_start) is the key under which pricing asks what was billed."""

    __tablename__ = "invoice_lines"
    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "invoice_id"], ["invoices.organization_id", "invoices.id"], ondelete="CASCADE"),
        UniqueConstraint("invoice_id", "position"),
        UniqueConstraint("subscription_id", "pricing_rule_id", "cycle_start", "invoice_id"),
        one_of("kind", LineKind),
        finite("quantity"),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID]
    invoice_id: Mapped[uuid.UUID]
    position: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(16))
    subscription_id: Mapped[uuid.UUID | None]
    pricing_rule_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("pricing_rules.id"))
    metric_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("metrics.id"))
    code: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(255))
    cycle_start: Mapped[datetime | None]
    cycle_end: Mapped[datetime | None]
    window_start: Mapped[datetime | None]
    window_end: Mapped[datetime | None]
    """The service period of the line; usage lines count the events of exactly this window."""
    quantity: Mapped[Decimal]
    unit: Mapped[str] = mapped_column(String(50), server_default="")
    amount_minor: Mapped[MinorUnits]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    """The explanation: model, tiers walked, proration fraction with both dates, exact amount before rounding, owed and billed before."""

    invoice: Mapped[Invoice] = relationship(back_populates="lines", lazy="raise_on_sql")


class InvoiceTax(Base):
    """Tax of one rate group of an invoice, rounded once for the group."""

    __tablename__ = "invoice_taxes"
    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "invoice_id"], ["invoices.organization_id", "invoices.id"], ondelete="CASCADE"),
        UniqueConstraint("invoice_id", "position"),
        finite("rate_percent", minimum=0),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID]
    invoice_id: Mapped[uuid.UUID]
    position: Mapped[int] = mapped_column(Integer)
    name: Mapped[str] = mapped_column(String(64))
    treatment: Mapped[str] = mapped_column(String(32))
    rate_percent: Mapped[Decimal]
    taxable_minor: Mapped[MinorUnits]
    tax_minor: Mapped[MinorUnits]
    note: Mapped[str] = mapped_column(Text, server_default="")
    """The sentence the law asks for, such as the reverse-charge mention."""

    invoice: Mapped[Invoice] = relationship(back_populates="taxes", lazy="raise_on_sql")


class InvoiceDocument(Base):
    """The PDF of a finalized invoice, rendered once and stored with its SHA-256."""

    __tablename__ = "invoice_documents"
    __table_args__ = (ForeignKeyConstraint(["organization_id", "invoice_id"], ["invoices.organization_id", "invoices.id"]),)

    invoice_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[uuid.UUID]
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    rendered_at: Mapped[datetime]


class RunStatus(StrEnum):
    RATING = "rating"
    REVIEW = "review"
    FINALIZING = "finalizing"
    DONE = "done"


class InvoiceRun(Base):
    """One pass over everything due at `as_of`: rate into drafts, review, finalize. Counters are progress; the invoices are the truth."""

    __tablename__ = "invoice_runs"
    __table_args__ = (one_of("status", RunStatus),)

    id: Mapped[Id]
    status: Mapped[str] = mapped_column(String(16))
    as_of: Mapped[datetime]
    started_by: Mapped[str] = mapped_column(Text)
    subscriptions_due: Mapped[int] = mapped_column(Integer, server_default="0")
    subscriptions_done: Mapped[int] = mapped_column(Integer, server_default="0")
    finalize_total: Mapped[int] = mapped_column(Integer, server_default="0")
    finalize_done: Mapped[int] = mapped_column(Integer, server_default="0")
    created_at: Mapped[datetime]
    rated_at: Mapped[datetime | None]
    finalize_requested_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class RunError(Base):
    """A subscription that could not be rated; the run went on, the next run tries it again."""

    __tablename__ = "invoice_run_errors"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("invoice_runs.id"), index=True)
    organization_id: Mapped[uuid.UUID]
    subscription_id: Mapped[uuid.UUID]
    detail: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    resolved_at: Mapped[datetime | None]
