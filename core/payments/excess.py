"""Money that arrived although nothing was due any more: it becomes credit on the account, and a refund takes it from there first.

It happens when the provider reports late that a charge went through after all, and another payment came first.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.invoicing.credit_models import AccountCredit
from core.invoicing.models import Invoice
from core.payments.models import BillingTransaction

EXCESS = "excess_minor"
"""Key in a row's `extra`: the part of a charge that settled nothing, the part of a refund that came from credit."""


def keep(session: Session, row: BillingTransaction, invoice: Invoice, *, excess_minor: int, at: datetime) -> None:
    """Turn the excess of a charge into credit, which later invoices use up."""
    row.extra = {**row.extra, EXCESS: excess_minor}
    credit = _credit(session, row)
    if credit is None:
        credit = AccountCredit(
            organization_id=invoice.organization_id,
            source_invoice_id=invoice.id,
            currency=row.currency,
            amount_minor=0,
            remaining_minor=0,
            created_at=at,
        )
        session.add(credit)
    credit.amount_minor += excess_minor
    credit.remaining_minor += excess_minor
    session.flush()


def used(session: Session, charge: BillingTransaction) -> int:
    """How much of the charge's excess later invoices have used, so that it cannot be refunded any more; minor units."""
    excess = int(charge.extra.get(EXCESS, 0))
    credit = _credit(session, charge) if excess else None
    return 0 if credit is None else min(excess, credit.amount_minor - credit.remaining_minor)


def release(session: Session, refund: BillingTransaction, charge: BillingTransaction) -> int:
    """Take a refund from the charge's credit as far as that goes; returns how much that is, in minor units."""
    credit = _credit(session, charge) if charge.extra.get(EXCESS) else None
    taken = 0 if credit is None else min(refund.amount_minor, credit.remaining_minor)
    if credit is not None and taken:
        credit.remaining_minor -= taken
        credit.amount_minor -= taken
        refund.extra = {**refund.extra, EXCESS: taken}
        session.flush()
    return taken


def _credit(session: Session, row: BillingTransaction) -> AccountCredit | None:
    return session.scalars(
        select(AccountCredit)
        .where(AccountCredit.organization_id == row.organization_id, AccountCredit.source_invoice_id == row.invoice_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
