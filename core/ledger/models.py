"""Tables of the ledger. Postings are signed minor units, debit positive; a trigger refuses a transaction that does not sum to zero."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base, Currency, Id, MinorUnits, one_of


class AccountCode(StrEnum):
    """The chart of accounts; one account per code, organization and currency."""

    RECEIVABLE = "accounts_receivable"
    REVENUE = "revenue"
    TAX_PAYABLE = "tax_payable"
    CASH_CLEARING = "provider_clearing"
    CUSTOMER_CREDIT = "customer_credit"
    WRITE_OFF = "bad_debt"
    PROMOTION = "promotional_credit"


class LedgerAccount(Base):
    """One account of one organization in one currency."""

    __tablename__ = "ledger_accounts"
    __table_args__ = (
        UniqueConstraint("organization_id", "code", "currency"),
        UniqueConstraint("organization_id", "id"),
        one_of("code", AccountCode),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    code: Mapped[str] = mapped_column(String(32))
    currency: Mapped[Currency]


class LedgerTransaction(Base):
    """One business fact in the books. (kind, subject_id) is unique: posting twice is impossible."""

    __tablename__ = "ledger_transactions"
    __table_args__ = (
        UniqueConstraint("kind", "subject_id"),
        UniqueConstraint("organization_id", "id"),
        Index("ix_ledger_transactions_posted_at", "organization_id", "posted_at"),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    kind: Mapped[str] = mapped_column(String(32))
    subject_type: Mapped[str] = mapped_column(String(32))
    subject_id: Mapped[uuid.UUID]
    description: Mapped[str] = mapped_column(Text)
    posted_at: Mapped[datetime]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Posting(Base):
    """One side of a ledger transaction: `amount_minor` > 0 debits, < 0 credits the account."""

    __tablename__ = "postings"
    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "ledger_transaction_id"], ["ledger_transactions.organization_id", "ledger_transactions.id"]
        ),
        ForeignKeyConstraint(["organization_id", "ledger_account_id"], ["ledger_accounts.organization_id", "ledger_accounts.id"]),
        CheckConstraint("amount_minor <> 0", name="moves_something"),
        Index("ix_postings_ledger_transaction_id", "ledger_transaction_id"),
        Index("ix_postings_ledger_account_id", "ledger_account_id"),
    )

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID]
    ledger_transaction_id: Mapped[uuid.UUID]
    ledger_account_id: Mapped[uuid.UUID]
    amount_minor: Mapped[MinorUnits]
    currency: Mapped[Currency]
