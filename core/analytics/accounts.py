"""Accounts as operators see them: filtered pages with plan and dues, and the sums of one account. For operators only."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, raiseload

from core.db import among
from core.identity.models import Membership, Organization, OrganizationStatus, User
from core.invoicing.models import Invoice, InvoiceStatus
from core.payments.models import BillingTransaction, PaymentMethod, TransactionStatus, TransactionType
from core.subscriptions.models import Subscription, SubscriptionStatus

STATES = ("overdue", "past_due", "trialing", "no_subscription", "no_method", "suspended", "closed")
"""What a list of accounts can be narrowed to."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One line of the list; amounts are minor units of the account's currency, `overdue_minor` is part of `due_minor`."""

    organization: Organization
    plan: str | None
    subscription_status: str | None
    due_minor: int
    overdue_minor: int
    paid_minor: int


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one account, minor units: what it has paid (charges less refunds) with how many invoices, what is open, since when."""

    paid_minor: int
    invoices_paid: int
    open_minor: int
    overdue_minor: int
    oldest_due: date | None


def page(
    session: Session, *, on: date, text: str = "", state: str = "", after: uuid.UUID | None = None, limit: int = 50
) -> Sequence[AccountRow]:
    """Newest first, those behind the id `after`, at most `limit`; `state` is one of STATES, overdue is as of the day `on`.

    Four statements whatever the number of rows.
    """
    wanted = select(Organization).order_by(Organization.id.desc()).limit(limit)
    if text:
        wanted = wanted.where(named(text))
    if state in STATES:
        wanted = wanted.where(_in_state(state, on))
    if after is not None:
        wanted = wanted.where(Organization.id < after)
    found = session.scalars(wanted).all()
    ids = [organization.id for organization in found]
    plans, owed, paid = _plans(session, ids), _owed(session, ids, on), _paid(session, ids)
    rows = []
    for row in found:
        (plan, status), (due, overdue) = plans.get(row.id, (None, None)), owed.get(row.id, (0, 0))
        rows.append(AccountRow(row, plan, status, due, overdue, paid.get(row.id, 0)))
    return rows


def named(text: str) -> ColumnElement[bool]:
    """Whether an account goes by `text`: part of its name, begin of its slug, an e-mail of it or of its people, tax id, external id."""
    people = (
        select(Membership.id)
        .join(User, User.id == Membership.user_id)
        .where(Membership.organization_id == Organization.id, User.email.startswith(text.lower(), autoescape=True))
    )
    return or_(
        Organization.name.icontains(text, autoescape=True),
        Organization.slug.startswith(text.lower(), autoescape=True),
        Organization.billing_email.icontains(text, autoescape=True),
        Organization.external_id == text,
        func.replace(Organization.tax_id, " ", "") == text.replace(" ", "").upper(),
        people.exists(),
    )


def sums(session: Session, organization_id: uuid.UUID, *, on: date) -> Sums:
    """What the account has paid and owes, as of the day `on`."""
    open_ = Invoice.status == InvoiceStatus.OPEN
    row = session.execute(
        select(
            func.count().filter(Invoice.status == InvoiceStatus.PAID),
            func.coalesce(func.sum(Invoice.amount_due_minor).filter(open_), 0),
            func.coalesce(func.sum(Invoice.amount_due_minor).filter(open_, Invoice.due_date < on), 0),
            func.min(Invoice.due_date).filter(open_, Invoice.amount_due_minor > 0),
        ).where(Invoice.organization_id == organization_id)
    ).one()
    paid = _paid(session, [organization_id]).get(organization_id, 0)
    return Sums(paid, int(row[0]), int(row[1]), int(row[2]), row[3])


def _plans(session: Session, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, tuple[str, str]]:
    """The plan's name and the status of each account's newest subscription, one that runs before one that ended."""
    rows = session.scalars(
        select(Subscription)
        .where(among(Subscription.organization_id, ids))
        .ext(distinct_on(Subscription.organization_id))
        .order_by(Subscription.organization_id, Subscription.status == SubscriptionStatus.CANCELED, Subscription.id.desc())
        .options(raiseload(Subscription.terms))
    )
    return {row.organization_id: (row.plan.name, row.status) for row in rows}


def _owed(session: Session, ids: Collection[uuid.UUID], on: date) -> dict[uuid.UUID, tuple[int, int]]:
    late = Invoice.due_date < on
    rows = session.execute(
        select(
            Invoice.organization_id,
            func.sum(Invoice.amount_due_minor),
            func.coalesce(func.sum(Invoice.amount_due_minor).filter(late), 0),
        )
        .where(among(Invoice.organization_id, ids), Invoice.status == InvoiceStatus.OPEN)
        .group_by(Invoice.organization_id)
    )
    return {organization_id: (int(due), int(overdue)) for organization_id, due, overdue in rows}


def _paid(session: Session, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, int]:
    amount = BillingTransaction.amount_minor
    charged = func.coalesce(func.sum(amount).filter(BillingTransaction.type == TransactionType.CHARGE), 0)
    refunded = func.coalesce(func.sum(amount).filter(BillingTransaction.type == TransactionType.REFUND), 0)
    rows = session.execute(
        select(BillingTransaction.organization_id, charged - refunded)
        .where(among(BillingTransaction.organization_id, ids), BillingTransaction.status == TransactionStatus.SUCCEEDED)
        .group_by(BillingTransaction.organization_id)
    )
    return {organization_id: int(minor) for organization_id, minor in rows}


def _in_state(state: str, on: date) -> ColumnElement[bool]:
    running = select(Subscription.id).where(
        Subscription.organization_id == Organization.id, Subscription.status != SubscriptionStatus.CANCELED
    )
    match state:
        case "overdue":
            late = Invoice.status == InvoiceStatus.OPEN, Invoice.due_date < on
            return select(Invoice.id).where(Invoice.organization_id == Organization.id, *late).exists()
        case "past_due" | "trialing":
            return running.where(Subscription.status == SubscriptionStatus(state)).exists()
        case "no_subscription":
            return ~running.exists()
        case "no_method":
            saved = PaymentMethod.organization_id == Organization.id, PaymentMethod.removed_at.is_(None)
            return ~select(PaymentMethod.id).where(*saved).exists()
        case _:
            return Organization.status == OrganizationStatus(state)
