"""Reading the books: balances are sums of postings, never stored."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.ledger.models import AccountCode, LedgerAccount, LedgerTransaction, Posting


@dataclass(frozen=True, slots=True)
class Entry:
    """One posting as a reader sees it: debit positive, minor units of `currency`."""

    ledger_transaction_id: uuid.UUID
    kind: str
    description: str
    posted_at: datetime
    account: AccountCode
    amount_minor: int
    currency: str


def balances(session: Session, organization_id: uuid.UUID) -> dict[tuple[AccountCode, str], int]:
    """Balance of each account of the organization in minor units by (code, currency); debit positive."""
    rows = session.execute(
        select(LedgerAccount.code, LedgerAccount.currency, func.sum(Posting.amount_minor))
        .join(Posting, Posting.ledger_account_id == LedgerAccount.id)
        .where(LedgerAccount.organization_id == organization_id)
        .group_by(LedgerAccount.code, LedgerAccount.currency)
    )
    return {(AccountCode(code), currency): int(total) for code, currency, total in rows}


def entries(session: Session, organization_id: uuid.UUID, *, subject_ids: Sequence[uuid.UUID]) -> list[Entry]:
    """The postings about the given subjects (an invoice, its payments), in order of posting."""
    rows = session.execute(
        select(
            LedgerTransaction.id,
            LedgerTransaction.kind,
            LedgerTransaction.description,
            LedgerTransaction.posted_at,
            LedgerAccount.code,
            Posting.amount_minor,
            Posting.currency,
        )
        .join(Posting, Posting.ledger_transaction_id == LedgerTransaction.id)
        .join(LedgerAccount, LedgerAccount.id == Posting.ledger_account_id)
        .where(LedgerTransaction.organization_id == organization_id, LedgerTransaction.subject_id.in_(subject_ids))
        .order_by(LedgerTransaction.posted_at, LedgerTransaction.id, Posting.amount_minor.desc())
    )
    return [Entry(r.id, r.kind, r.description, r.posted_at, AccountCode(r.code), r.amount_minor, r.currency) for r in rows]
