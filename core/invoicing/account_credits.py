"""Account credits: a negative invoice becomes one, later invoices use them up, in order of priority, expiry and age."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text, true
from sqlalchemy.orm import Session

from core.db import among, copy_rows, new_id
from core.invoicing import grants
from core.invoicing.credit_models import AccountCredit, CreditApplication


@dataclass(frozen=True, slots=True)
class Claim:
    """An invoice that may use credit: at most `total_minor` of `currency`."""

    invoice_id: uuid.UUID
    organization_id: uuid.UUID
    currency: str
    total_minor: int


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a credit, minor units; `expires_at` None: for good."""

    name: str
    currency: str
    remaining_minor: int
    expires_at: datetime | None


def grant(session: Session, claims: Sequence[Claim], *, at: datetime) -> None:
    """Turn the negative totals into credits on the accounts."""
    copy_rows(
        session,
        AccountCredit,
        [
            {
                "id": new_id(),
                "organization_id": claim.organization_id,
                "source_invoice_id": claim.invoice_id,
                "currency": claim.currency,
                "amount_minor": -claim.total_minor,
                "remaining_minor": -claim.total_minor,
                "created_at": at,
            }
            for claim in claims
            if claim.total_minor < 0
        ],
    )


def apply(session: Session, claims: Sequence[Claim], *, at: datetime) -> dict[uuid.UUID, int]:
    """Use the accounts' credits for the invoices in order; returns what each invoice got, in minor units (0 left out).

    The credits stay locked until the transaction ends: two invoices cannot use the same one. Those that have expired are taken back.
    """
    owing = [claim for claim in claims if claim.total_minor > 0]
    found = session.execute(
        select(AccountCredit.id, AccountCredit.organization_id, AccountCredit.currency, AccountCredit.remaining_minor)
        .add_columns(AccountCredit.expires_at)
        .where(among(AccountCredit.organization_id, {claim.organization_id for claim in owing}), AccountCredit.remaining_minor > 0)
        .order_by(AccountCredit.priority, AccountCredit.expires_at.asc().nulls_last(), AccountCredit.created_at, AccountCredit.id)
        .with_for_update()
    ).all()
    expired = {credit.id for credit in found if credit.expires_at is not None and credit.expires_at <= at}
    if expired:
        grants.expire(session, session.scalars(select(AccountCredit).where(among(AccountCredit.id, expired))).all(), at=at)
    available = [credit for credit in found if credit.id not in expired]
    left = {credit.id: credit.remaining_minor for credit in available}
    used: list[dict[str, object]] = []
    applied: dict[uuid.UUID, int] = {}
    for claim in owing:
        open_minor = claim.total_minor
        for credit in available:
            if (credit.organization_id, credit.currency) != (claim.organization_id, claim.currency):
                continue
            amount = min(open_minor, left[credit.id])
            if amount > 0:
                left[credit.id] -= amount
                open_minor -= amount
                used.append(_application(credit.id, claim, amount))
        if open_minor < claim.total_minor:
            applied[claim.invoice_id] = claim.total_minor - open_minor
    copy_rows(session, CreditApplication, used)
    _set_remaining(session, {credit.id: left[credit.id] for credit in available if left[credit.id] != credit.remaining_minor})
    return applied


def give_back(session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID, *, at: datetime) -> None:
    """An invoice is void: the credits it used are worth what they were, and no longer expire. The applications stay as history.

    What was left of them and has expired is gone all the same.
    """
    rows = session.execute(
        select(AccountCredit, CreditApplication.amount_minor)
        .join(CreditApplication, CreditApplication.account_credit_id == AccountCredit.id)
        .where(CreditApplication.organization_id == organization_id, CreditApplication.invoice_id == invoice_id)
        .order_by(AccountCredit.id)
        .with_for_update(of=AccountCredit)
        .execution_options(populate_existing=True)
    ).all()
    late = [credit for credit, _ in rows if credit.remaining_minor and credit.expires_at is not None and credit.expires_at <= at]
    grants.expire(session, late, at=at)
    for credit, used in rows:
        credit.remaining_minor, credit.expires_at = credit.remaining_minor + used, None
    session.flush()


def balance(session: Session, organization_id: uuid.UUID, *, at: datetime | None = None) -> dict[str, int]:
    """Credit left on the account, minor units by currency; with `at`, without what has expired by then."""
    return totals(lasting(session, organization_id, at=at))


def totals(credits_left: Iterable[Left]) -> dict[str, int]:
    """The sum of the credits by currency, minor units."""
    found: dict[str, int] = {}
    for credit in credits_left:
        found[credit.currency] = found.get(credit.currency, 0) + credit.remaining_minor
    return found


def lasting(session: Session, organization_id: uuid.UUID, *, at: datetime | None = None) -> Sequence[Left]:
    """What is left of each credit of the account, what expires soonest first; with `at`, without what has expired by then."""
    lasts = true() if at is None else AccountCredit.expires_at.is_(None) | (AccountCredit.expires_at > at)
    rows = session.execute(
        select(AccountCredit.name, AccountCredit.currency, AccountCredit.remaining_minor, AccountCredit.expires_at)
        .where(AccountCredit.organization_id == organization_id, AccountCredit.remaining_minor > 0, lasts)
        .order_by(AccountCredit.expires_at.asc().nulls_last(), AccountCredit.id)
    )
    return [Left(*row) for row in rows]


def _application(credit_id: uuid.UUID, claim: Claim, amount: int) -> dict[str, object]:
    return {
        "organization_id": claim.organization_id,
        "account_credit_id": credit_id,
        "invoice_id": claim.invoice_id,
        "amount_minor": amount,
    }


def _set_remaining(session: Session, remaining: Mapping[uuid.UUID, int]) -> None:
    if remaining:
        statement = text(
            "UPDATE account_credits SET remaining_minor = left_over.remaining FROM unnest(:id ::uuid[], :remaining ::bigint[])"
            " AS left_over(id, remaining) WHERE account_credits.id = left_over.id"
        )
        session.execute(statement, {"id": list(remaining), "remaining": list(remaining.values())})
