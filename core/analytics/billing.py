"""How billing goes, one currency at a time: recurring revenue, receivables by age, what was collected and invoiced. For operators only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    DateTime,
    Integer,
    and_,
    case,
    column,
    false,
    func,
    or_,
    select,
    true,
    union_all,
    values,
)
from sqlalchemy.orm import Session, joinedload

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


@dataclass(frozen=True, slots=True)
class Invoiced:
    """Net amounts by the first day of the month of issue, and with tax what was invoiced in the last 90 days; minor units."""

    months: Mapping[date, int]
    sales_minor: int

    def days_outstanding(self, open_minor: int) -> Decimal | None:
        """How many days of sales are open: open amount over what was invoiced in the last 90 days; None without invoices."""
        return Decimal(open_minor) / Decimal(self.sales_minor) * SALES_DAYS if self.sales_minor > 0 else None


def currencies(session: Session) -> list[str]:
    """The currencies accounts are billed in, the commonest first."""
    currency = Organization.currency
    rows = session.execute(select(currency).group_by(currency).order_by(func.count().desc(), currency))
    return [row[0] for row in rows]


def recurring(session: Session, currency: str, *, at: Sequence[datetime]) -> list[Recurring]:
    """The monthly recurring revenue of the terms and add-ons that hold at each of these instants.

    Each recurring price at its quantity, over the months of its period; discounts and commitments are not in it.
    """
    rows = session.execute(_held(currency, at)).all()
    wanted = select(PlanVersion).where(PlanVersion.id.in_({row.plan_version_id for row in rows})).options(joinedload(PlanVersion.rules))
    by_id = {version.id: version for version in session.scalars(wanted).unique()} if rows else {}
    found = []
    for place in range(len(at)):
        mine = [row for row in rows if row.place == place]
        fees = (_monthly(by_id[row.plan_version_id], currency, row.quantity, row.quantities) * row.number for row in mine)
        total = sum(fees, Fraction(0))
        minor = round_half_up(Decimal(total.numerator) / Decimal(total.denominator), currency)
        found.append(Recurring(minor, sum(row.number for row in mine if row.is_term)))
    return found


def _held(currency: str, at: Sequence[datetime]) -> CompoundSelect[Any]:
    """Version, quantity, named quantities and number of what holds at each instant on terms that are paid for: the terms, and add-ons."""
    term, item = SubscriptionTerm, SubscriptionItem
    moments = values(column("place", Integer), column("at", DateTime(timezone=True)), name="moments").data(list(enumerate(at)))
    running = (Subscription.currency == currency, ~term.is_trial, _holds(term, moments.c.at))
    terms = (
        select(moments.c.place, term.plan_version_id, term.quantity, term.quantities, func.count().label("number"), true().label("is_term"))
        .join(term, _holds(term, moments.c.at))
        .join(Subscription, Subscription.id == term.subscription_id)
        .where(*running)
        .group_by(moments.c.place, term.plan_version_id, term.quantity, term.quantities)
    )
    items = (
        select(moments.c.place, item.plan_version_id, item.quantity, term.quantities, func.count(), false())
        .join(item, _holds(item, moments.c.at))
        .join(Subscription, Subscription.id == item.subscription_id)
        .join(term, term.subscription_id == item.subscription_id)
        .where(*running)
        .group_by(moments.c.place, item.plan_version_id, item.quantity, term.quantities)
    )
    return union_all(terms, items)


def _holds(part: type[SubscriptionTerm] | type[SubscriptionItem], at: ColumnElement[datetime]) -> ColumnElement[bool]:
    return and_(part.start_at <= at, or_(part.end_at.is_(None), part.end_at > at))


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


def invoiced(session: Session, currency: str, *, since: date, on: date) -> Invoiced:
    """What was issued from the day `since` on, and in the last 90 days up to `on`; void invoices are left out."""
    month, recent = func.date_trunc("month", Invoice.issue_date), Invoice.issue_date > on - timedelta(days=SALES_DAYS)
    rows = session.execute(
        select(month, func.sum(Invoice.subtotal_minor), func.coalesce(func.sum(Invoice.total_minor).filter(recent), 0))
        .where(or_(Invoice.issue_date >= since, recent), Invoice.currency == currency, Invoice.status != InvoiceStatus.VOID)
        .group_by(month)
    ).all()
    months = {at.date(): int(minor) for at, minor, _ in rows if at.date() >= since}
    return Invoiced(months, sum(int(recently) for _, _, recently in rows))
