"""What the product has stored of a simulated customer, held against the model: terms, items, issued lines, replayed invoices."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.db import transaction
from core.invoicing import quote, replay
from core.invoicing.models import Invoice, InvoiceLine, InvoiceStatus
from core.invoicing.quote import QuoteChanged
from core.subscriptions.models import PlanChangeQuote, SubscriptionItem, SubscriptionTerm
from tests.simulator.held import Beside
from tests.simulator.kernel import Divergence
from tests.simulator.model import Life
from tests.simulator.owing import Key, owed


class Customer:
    """One organization and the model of its running subscription; earlier subscriptions are kept to be checked again."""

    def __init__(self, organization_id: uuid.UUID, token: str, life: Life) -> None:
        self.id, self.token, self.life = organization_id, token, life
        self.subscription_id: uuid.UUID | None = None
        self.lives: dict[uuid.UUID, Life] = {}
        self.events: dict[str, tuple[str, datetime, Decimal]] = {}
        self.sent = 0

    @property
    def usage(self) -> dict[str, list[tuple[datetime, Decimal]]]:
        """What its events say now, by metric."""
        found: dict[str, list[tuple[datetime, Decimal]]] = {}
        for metric, at, quantity in self.events.values():
            found.setdefault(metric, []).append((at, quantity))
        return found


def confirm_as_shown(session: Session, shown: PlanChangeQuote, at: datetime) -> None:
    """What the customer was shown is what is charged, to the minor unit."""
    try:
        invoice = quote.confirm(session, shown.organization_id, shown.id, at=at, actor=SYSTEM)
    except QuoteChanged as changed:
        raise Divergence(f"at {at} a quote of {shown.total_minor} became {changed.total_minor}: {changed.errors}") from changed
    if invoice is not None and invoice.total_minor != shown.total_minor:
        raise Divergence(f"at {at} {shown.total_minor} were quoted and {invoice.total_minor} invoiced")


class Comparing:
    """The comparisons of a world: `versions` are plan versions by code, `rule_names` (plan, price) by id of the rule."""

    customer: Customer
    now: datetime
    versions: dict[str, uuid.UUID]
    rule_names: dict[str, tuple[str, str]]

    def compare_terms(self) -> None:
        """What is stored as terms and items is what the model has lived and plans to."""
        with transaction() as session:
            rows = session.scalars(
                select(SubscriptionTerm)
                .where(SubscriptionTerm.subscription_id == self.customer.subscription_id)
                .order_by(SubscriptionTerm.start_at)
            ).all()
            seats = [Decimal(row.quantities.get("seats", 0)) for row in rows]
            stored = [
                (row.start_at, row.end_at, row.plan_version_id, row.quantity, held, row.is_trial)
                for row, held in zip(rows, seats, strict=True)
            ]
            kept = session.scalars(select(SubscriptionItem).where(SubscriptionItem.subscription_id == self.customer.subscription_id))
            items = sorted((row.start_at, row.plan_version_id, row.quantity, row.end_at) for row in kept)
        life = self.customer.life
        expected = [(s.start, s.end, self.versions[s.plan.name], s.held.units, s.held.seats, s.is_trial) for s in life.stretches]
        if stored != expected:
            raise Divergence(f"at {self.now} the terms are {stored}, they should be {expected}")
        beside = sorted((item.start, self.versions[item.plan.name], item.units, item.end) for item in life.beside)
        if items != beside:
            raise Divergence(f"at {self.now} the items are {items}, they should be {beside}")

    def item_id(self, item: Beside) -> uuid.UUID:
        """The stored row of an item."""
        row = SubscriptionItem
        wanted = (
            row.subscription_id == self.customer.subscription_id,
            row.plan_version_id == self.versions[item.plan.name],
            row.start_at == item.start,
            row.quantity == item.units,
        )
        with transaction() as session:
            return session.scalars(select(row.id).where(*wanted).order_by(row.id)).first() or uuid.uuid4()

    def compare_lines(self, subscription_id: uuid.UUID) -> None:
        """Issued lines add up to what is owed; under a plan that gives nothing back they may be more, and discounts larger."""
        customer = self.customer
        line = InvoiceLine
        with transaction() as session:
            rows = session.execute(
                select(line.pricing_rule_id, line.cycle_start, func.sum(line.amount_minor))
                .join(Invoice, Invoice.id == line.invoice_id)
                .where(line.subscription_id == subscription_id, Invoice.status.not_in((InvoiceStatus.DRAFT, InvoiceStatus.VOID)))
                .group_by(line.pricing_rule_id, line.cycle_start)
            ).all()
        billed: dict[Key, int] = {(*self.rule_names[str(rule)], start): int(minor) for rule, start, minor in rows}
        owes = owed(customer.lives[subscription_id], self.now, customer.usage)
        for key in sorted(billed.keys() | owes.keys()):
            minor, entry = billed.get(key, 0), owes.get(key)
            wanted = entry.minor if entry else 0
            larger = minor < wanted if entry and entry.kind == "discount" else minor > wanted
            if minor != wanted and not (entry is not None and not entry.credits and larger):
                raise Divergence(f"at {self.now} {key} of {subscription_id} is billed {minor}, owed {wanted}")

    def compare_replays(self) -> None:
        """Every issued invoice comes out again, figure by figure, from what is stored with it."""
        with transaction() as session:
            issued = select(Invoice.id).where(Invoice.organization_id == self.customer.id, Invoice.finalized_at.is_not(None))
            for invoice_id in session.scalars(issued):
                again = replay.replay(session, self.customer.id, invoice_id)
                if again.differences or again.unpriced:
                    raise Divergence(f"replay of {again.number}: {again.differences} {again.unpriced}")
