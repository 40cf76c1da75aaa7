"""Writing the books: balanced transactions, each about one business fact, posted once.

The database refuses what this module must never do: a transaction that does not sum to zero per currency, a second one of the same
kind about the same subject, a change or a deletion of a posting.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Session

from core.db import copy_rows, new_id
from core.ledger import accounts
from core.ledger.models import AccountCode, LedgerTransaction, Posting

Entries = Sequence[tuple[AccountCode, int]]
"""(account, signed minor units): positive debits, negative credits; zeros are left out."""


class Subject(Protocol):
    """The row a ledger transaction is about."""

    __tablename__: str

    @property
    def id(self) -> uuid.UUID: ...


class Unbalanced(ValueError):
    """The entries do not sum to zero."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One business fact for the books: `entries` in minor units of `currency`, about the row `subject_id` of `subject_type`."""

    organization_id: uuid.UUID
    kind: str
    subject_type: str
    subject_id: uuid.UUID
    entries: Entries
    currency: str
    at: datetime
    description: str


def post(
    session: Session,
    *,
    organization_id: uuid.UUID,
    kind: str,
    subject: Subject,
    entries: Entries,
    currency: str,
    at: datetime,
    description: str,
) -> uuid.UUID | None:
    """Post one fact; returns the ledger transaction's id, None when every entry is zero. `Unbalanced` if they do not sum to zero."""
    fact = Fact(organization_id, kind, subject.__tablename__, subject.id, entries, currency, at, description)
    return post_all(session, [fact])[0]


def post_all(session: Session, facts: Sequence[Fact]) -> list[uuid.UUID | None]:
    """Post many facts with two bulk writes, in order; None stands for a fact that moves nothing."""
    for fact in facts:
        if sum(amount for _, amount in fact.entries):
            raise Unbalanced(f"{fact.kind} {fact.subject_id}: the entries sum to {sum(amount for _, amount in fact.entries)}")
    numbered = [(new_id() if any(amount for _, amount in fact.entries) else None, fact) for fact in facts]
    moving = [(transaction_id, fact) for transaction_id, fact in numbered if transaction_id is not None]
    account = accounts.ids(session, {(f.organization_id, code, f.currency) for _, f in moving for code, amount in f.entries if amount})
    copy_rows(session, LedgerTransaction, [_transaction(transaction_id, fact) for transaction_id, fact in moving])
    copy_rows(
        session,
        Posting,
        [
            {
                "organization_id": fact.organization_id,
                "ledger_transaction_id": transaction_id,
                "ledger_account_id": account[fact.organization_id, code, fact.currency],
                "amount_minor": amount,
                "currency": fact.currency,
            }
            for transaction_id, fact in moving
            for code, amount in fact.entries
            if amount
        ],
    )
    return [transaction_id for transaction_id, _ in numbered]


def _transaction(transaction_id: uuid.UUID, fact: Fact) -> dict[str, object]:
    return {
        "id": transaction_id,
        "organization_id": fact.organization_id,
        "kind": fact.kind,
        "subject_type": fact.subject_type,
        "subject_id": fact.subject_id,
        "description": fact.description,
        "posted_at": fact.at,
    }
