"""Credit granted to an account, for goodwill or as a promotion: used by its invoices in order of priority until it expires.

A grant is an expense of ours and a debt to the customer; what expires unused is neither any more. Both are posted.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.audit import SYSTEM, Actor
from core.catalog.reader import Reader
from core.db import new_id
from core.errors import Invalid
from core.identity.models import Organization
from core.invoicing.credit_models import AccountCredit
from core.ledger import post
from core.ledger.models import AccountCode
from core.pricing.credits import PRIORITY

PRIORITY_MAX = 100
PAGE_SIZE_MAX = 200


def grant(
    session: Session,
    organization: Organization,
    *,
    amount_minor: int,
    name: str,
    at: datetime,
    actor: Actor,
    priority: int = PRIORITY,
    expires_at: datetime | None = None,
    reason: str | None = None,
) -> AccountCredit:
    """Grant `amount_minor` of the account's currency; invoices use credit of the lowest priority first. Invalid with pointers."""
    reader = Reader()
    if amount_minor <= 0:
        reader.fault("/amount", "must be more than 0")
    if expires_at is not None and expires_at <= at:
        reader.fault("/expires_at", "must be ahead")
    reader.whole("/priority", priority, least=0, most=PRIORITY_MAX)
    name = reader.text("/name", name)
    if reader.faults:
        raise Invalid("The credit cannot be granted like this.", errors=tuple(reader.faults))
    credit = AccountCredit(
        id=new_id(),
        organization_id=organization.id,
        name=name,
        priority=priority,
        expires_at=expires_at,
        currency=organization.currency,
        amount_minor=amount_minor,
        remaining_minor=amount_minor,
        created_at=at,
    )
    session.add(credit)
    session.flush()
    entries = [(AccountCode.PROMOTION, amount_minor), (AccountCode.CUSTOMER_CREDIT, -amount_minor)]
    post.post(
        session,
        organization_id=credit.organization_id,
        kind="credit_granted",
        subject=credit,
        entries=entries,
        currency=credit.currency,
        at=at,
        description=f"Credit granted: {name}",
    )
    facts: dict[str, Any] = {"name": name, "amount_minor": amount_minor, "currency": credit.currency}
    facts |= {"priority": priority, "expires_at": expires_at}
    audit.record(session, actor, "credit.granted", credit, at=at, reason=reason, **facts)
    return credit


def expire(session: Session, due: Sequence[AccountCredit], *, at: datetime) -> None:
    """Take back what is left of expired credits, whose rows the caller has locked; what was used of them stays."""
    facts, told = [], []
    for credit in due:
        lost = credit.remaining_minor
        entries = [(AccountCode.CUSTOMER_CREDIT, lost), (AccountCode.PROMOTION, -lost)]
        about = (credit.organization_id, "credit_expired", credit.__tablename__, credit.id)
        facts.append(post.Fact(*about, entries, credit.currency, at, f"Credit expired: {credit.name}"))
        told.append(audit.entry(SYSTEM, "credit.expired", credit, at=at, amount_minor=lost, currency=credit.currency, name=credit.name))
        credit.amount_minor, credit.remaining_minor = credit.amount_minor - lost, 0
    session.flush()
    post.post_all(session, facts)
    audit.record_all(session, told)


def of_account(
    session: Session, organization_id: uuid.UUID, *, before_id: uuid.UUID | None = None, limit: int = 50
) -> Sequence[AccountCredit]:
    """The organization's credits, newest first."""
    wanted = select(AccountCredit).where(AccountCredit.organization_id == organization_id)
    if before_id is not None:
        wanted = wanted.where(AccountCredit.id < before_id)
    return session.scalars(wanted.order_by(AccountCredit.id.desc()).limit(min(limit, PAGE_SIZE_MAX))).all()
