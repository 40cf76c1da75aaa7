"""A customer's life, told in the order of time, on the real database through the product's own functions."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit, selfcheck
from core.audit import SYSTEM
from core.catalog.models import PlanVersion
from core.identity.models import Organization, TestClock
from core.invoicing import draft, finalize
from core.invoicing.models import Invoice, InvoiceLine, InvoiceStatus
from core.metering.models import Metric
from core.subscriptions import lifecycle, plan_change
from core.subscriptions import queries as subscriptions
from core.subscriptions.models import Subscription
from tests import factories

Told = tuple[str, str, dict[str, int]]
"""(local day of issue, status, amount by code)."""


class Story:
    """One customer on a clock of its own. `until` lets time pass: what falls due on the way is rated and finalized at its instant."""

    def __init__(self, session: Session, **organization: Any) -> None:
        self.session = session
        clock = TestClock(frozen_time=datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")), name="story")
        session.add(clock)
        self.organization: Organization = factories.make_organization(session, test_clock=clock, **organization)
        self.now = clock.frozen_time
        self.told = 0

    def local(self, month: int, day: int, hour: int = 0, year: int = 2026) -> datetime:
        """A moment on the customer's own clock."""
        return datetime(year, month, day, hour, tzinfo=ZoneInfo(self.organization.timezone))

    def until(self, moment: datetime) -> list[Told]:
        """Let time pass and tell the invoices issued on the way."""
        while (due := self._next_due(moment)) is not None:
            self.now = due
            ids = list(self.session.scalars(self._drafts(Invoice.id, due)))
            if ids:
                finalize.finalize_many(self.session, ids, at=due, actor=SYSTEM)
            else:
                draft.bill_many(self.session, list(self.session.scalars(self._due(Subscription.id, due))), as_of=due, actor=SYSTEM)
        self.now = moment
        return self.news()

    def subscribe(self, plan: PlanVersion, **given: Any) -> Subscription:
        """Subscribe now, from the first of the calendar month's cycles unless told otherwise."""
        options = {"anchor": "anniversary", "trial_period_days": 0, **given}
        named = plan.id if plan.organization_id else plan.plan.code
        started = lifecycle.start(self.session, self.organization.id, plan=named, at=self.now, actor=SYSTEM, **options)
        self.session.flush()
        return started

    def change_plan(self, to: PlanVersion, quantity: int | None = None, when: str = "now") -> None:
        """Change the plan this very moment, or plan it for the period's end."""
        units, current = None if quantity is None else Decimal(quantity), self._current()
        effective = plan_change.effective_at(current, when, at=self.now)
        plan_change.apply(self.session, current, to=to, quantity=units, at=self.now, effective_at=effective, actor=SYSTEM)
        self.session.flush()

    def cancel(self, when: str = "now") -> None:
        """Cancel now or at the end of the period."""
        lifecycle.cancel(self.session, self._current(), when=when, at=self.now, actor=SYSTEM)
        self.session.flush()

    def pause(self) -> None:
        """Pause this very moment."""
        lifecycle.pause(self.session, self._current(), at=self.now, actor=SYSTEM)
        self.session.flush()

    def resume(self) -> None:
        """Go on."""
        lifecycle.resume(self.session, self._current(), at=self.now, actor=SYSTEM)
        self.session.flush()

    def use(self, metric: Metric, at: datetime, quantity: int) -> None:
        """Usage that happened at `at`, whenever it arrives."""
        factories.use(self.session, self.organization, metric, at, quantity)

    def news(self) -> list[Told]:
        """The invoices issued since the last telling, in order of number."""
        issued = self.session.scalars(
            select(Invoice)
            .where(Invoice.organization_id == self.organization.id, Invoice.finalized_at.is_not(None))
            .order_by(Invoice.year, Invoice.sequence)
            .offset(self.told)
        ).all()
        self.told += len(issued)
        return [(str(invoice.issue_date), invoice.status, self._amounts(invoice)) for invoice in issued]

    def total(self) -> int:
        """Net of everything issued and not void, minor units."""
        issued = Invoice.organization_id == self.organization.id, Invoice.status.not_in((InvoiceStatus.DRAFT, InvoiceStatus.VOID))
        return sum(self.session.scalars(select(Invoice.subtotal_minor).where(*issued)))

    def ends_well(self) -> None:
        """Billing again bills nothing, and the books are right."""
        for subscription_id in self.session.scalars(select(Subscription.id).where(Subscription.organization_id == self.organization.id)):
            assert draft.bill(self.session, subscription_id, as_of=self.now, actor=SYSTEM) is None
        audit.seal(self.session)
        self.session.flush()
        assert selfcheck.run(self.session) == []

    def _current(self) -> Subscription:
        self.session.expire_all()
        found = subscriptions.current_subscription(self.session, self.organization.id)
        assert found is not None
        return found

    def _amounts(self, invoice: Invoice) -> dict[str, int]:
        found: dict[str, int] = {}
        for line in self.session.scalars(select(InvoiceLine).where(InvoiceLine.invoice_id == invoice.id).order_by(InvoiceLine.position)):
            name = line.code.split("-")[0] + {"credit": " back", "adjustment": " late"}.get(line.kind, "")
            found[name] = found.get(name, 0) + line.amount_minor
        return found

    def _due(self, column: Any, by: datetime) -> Any:
        return select(column).where(Subscription.organization_id == self.organization.id, Subscription.next_bill_at <= by)

    def _drafts(self, column: Any, by: datetime) -> Any:
        waiting = Invoice.organization_id == self.organization.id, Invoice.status == InvoiceStatus.DRAFT, Invoice.auto_finalize_at <= by
        return select(column).where(*waiting)

    def _next_due(self, moment: datetime) -> datetime | None:
        instants = [
            *self.session.scalars(self._due(Subscription.next_bill_at, moment)),
            *self.session.scalars(self._drafts(Invoice.auto_finalize_at, moment)),
        ]
        return max(self.now, min(instants)) if instants else None
