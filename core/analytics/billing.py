"""How billing goes, one currency at a time: recurring revenue, receivables by age, what was collected and invoiced. For operators only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session

from core.catalog.models import PlanVersion
from core.identity.models import Organization
from core.invoicing.models import Invoice, InvoiceStatus
from core.money import round_half_up
from core.payments.models import BillingTransaction, TransactionStatus, TransactionType
from core.periods import Interval
from core.pricing.charge import charge
from core.pricing.terms import Kind
from core.subscriptions import timeline
from core.subscriptions.models import Subscription, SubscriptionItem, SubscriptionTerm

MONTHS = {
    Interval.DAY: Fraction(12, 365),
    Interval.WEEK: Fraction(12 * 7, 365),
    Interval.MONTH: Fraction(1),
    Interval.QUARTER: Fraction(3),
    Interval.HALF_YEAR: Fraction(6),
    Interval.YEAR: Fraction(12),
}
AGES = (0, 30, 60, 90)
"""Days overdue up to which an amount belongs to an age; more than the last is the oldest age."""
SALES_DAYS = 90


@dataclass(frozen=True, slots=True)
class Recurring:
    """Recurring fees of the running subscriptions for a month, minor units, usage and trials excluded."""

    minor: int
    subscriptions: int


@dataclass(frozen=True, slots=True)
class Age:
    """Open amounts that are `above` to `up_to` days overdue (None: no bound); `above` None: not due yet. Minor units."""

    above: int | None
    up_to: int | None
    invoices: int
    minor: int


@dataclass(frozen=True, slots=True)
class Receivables:
    """Everything open, by age, the youngest first."""

    ages: tuple[Age, ...]

    @property
    def minor(self) -> int:
        """All of it."""
        return sum(age.minor for age in self.ages)

    @property
    def invoices(self) -> int:
        """How many invoices."""
        return sum(age.invoices for age in self.ages)

    @property
    def overdue_minor(self) -> int:
        """What is past its due date."""
        return sum(age.minor for age in self.ages if age.above is not None)


def currencies(session: Session) -> list[str]:
    """The currencies accounts are billed in, the commonest first."""
    currency = Organization.currency
    rows = session.execute(select(currency).group_by(currency).order_by(func.count().desc(), currency))
    return [row[0] for row in rows]


def recurring(session: Session, currency: str, *, at: datetime) -> Recurring:
    """The monthly recurring revenue of the terms and add-ons that hold at `at`.

    Each recurring price at its quantity, over the months of its period; discounts and commitments are not in it.
    """
    term = SubscriptionTerm
    rows = session.execute(
        select(term.plan_version_id, term.quantity, term.quantities, func.count())
        .join(Subscription, Subscription.id == term.subscription_id)
        .where(Subscription.currency == currency, ~term.is_trial)
        .where(term.start_at <= at, or_(term.end_at.is_(None), term.end_at > at))
        .group_by(term.plan_version_id, term.quantity, term.quantities)
    ).all()
    found = [*rows, *_attached(session, currency, at)]
    versions = session.scalars(select(PlanVersion).where(PlanVersion.id.in_({row[0] for row in found}))).all() if found else []
    by_id = {version.id: version for version in versions}
    fees = (_monthly(by_id[version], currency, quantity, named) * count for version, quantity, named, count in found)
    total = sum(fees, Fraction(0))
    return Recurring(round_half_up(Decimal(total.numerator) / Decimal(total.denominator), currency), sum(row[3] for row in rows))


def _attached(session: Session, currency: str, at: datetime) -> Sequence[Any]:
    """Version, quantity, named quantities and number of the add-ons that hold at `at` on terms that are paid for."""
    term, item = SubscriptionTerm, SubscriptionItem
    return session.execute(
        select(item.plan_version_id, item.quantity, term.quantities, func.count())
        .join(Subscription, Subscription.id == item.subscription_id)
        .join(term, term.subscription_id == item.subscription_id)
        .where(Subscription.currency == currency, ~term.is_trial)
        .where(term.start_at <= at, or_(term.end_at.is_(None), term.end_at > at))
        .where(item.start_at <= at, or_(item.end_at.is_(None), item.end_at > at))
        .group_by(item.plan_version_id, item.quantity, term.quantities)
    ).all()


def _monthly(version: PlanVersion, currency: str, quantity: Decimal, named: Mapping[str, str]) -> Fraction:
    total = Fraction(0)
    for rule in timeline.rules(version, currency):
        if rule.kind is Kind.RECURRING:
            held = quantity if rule.licensed is None else Decimal(named.get(rule.licensed, "0"))
            interval, count = rule.cycle or (Interval(version.billing_period), version.interval_count)
            total += Fraction(charge(rule.model, held)) / (MONTHS[interval] * count)
    return total


def receivables(session: Session, currency: str, *, on: date) -> Receivables:
    """What is open on the day `on`, by days overdue."""
    late = on - Invoice.due_date
    overdue = ((late <= days, place) for place, days in enumerate(AGES[1:], 1))
    number = case((or_(Invoice.due_date.is_(None), late <= 0), 0), *overdue, else_=len(AGES))
    rows = session.execute(
        select(number.label("age"), func.count(), func.sum(Invoice.amount_due_minor))
        .where(Invoice.status == InvoiceStatus.OPEN, Invoice.currency == currency)
        .group_by("age")
    )
    found = {age: (count, int(minor)) for age, count, minor in rows}
    bounds = ((None, 0), *zip(AGES, (*AGES[1:], None), strict=True))
    return Receivables(tuple(Age(above, up_to, *found.get(place, (0, 0))) for place, (above, up_to) in enumerate(bounds)))


def collected(session: Session, currency: str, *, since: datetime, until: datetime) -> int:
    """Successful charges less refunds settled in [since, until), minor units."""
    amount = BillingTransaction.amount_minor
    signed = case((BillingTransaction.type == TransactionType.REFUND, -amount), else_=amount)
    moved = BillingTransaction.type.in_((TransactionType.CHARGE, TransactionType.REFUND))
    settled = func.coalesce(BillingTransaction.settled_at, BillingTransaction.created_at)
    wanted = select(func.coalesce(func.sum(signed), 0)).where(moved, BillingTransaction.currency == currency)
    done = wanted.where(BillingTransaction.status == TransactionStatus.SUCCEEDED, settled >= since, settled < until)
    return int(session.scalar(done) or 0)


def invoiced_by_month(session: Session, currency: str, *, since: date) -> dict[date, int]:
    """Net amounts of issued invoices, minor units, by the first day of the month of their issue date; void ones are left out."""
    month = func.date_trunc("month", Invoice.issue_date)
    rows = session.execute(
        select(month, func.sum(Invoice.subtotal_minor))
        .where(Invoice.issue_date >= since, Invoice.currency == currency, Invoice.status != InvoiceStatus.VOID)
        .group_by(month)
    )
    return {at.date(): int(minor) for at, minor in rows}


def days_outstanding(session: Session, currency: str, open_minor: int, *, on: date) -> Decimal | None:
    """How many days of sales are open: open amount over what was invoiced in the last 90 days; None without invoices."""
    issued = Invoice.issue_date > on - timedelta(days=SALES_DAYS), Invoice.currency == currency, Invoice.status != InvoiceStatus.VOID
    sales = session.scalar(select(func.sum(Invoice.total_minor)).where(*issued))
    return Decimal(open_minor) / Decimal(int(sales)) * SALES_DAYS if sales and sales > 0 else None
