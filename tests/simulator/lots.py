"""The credit of a simulated customer, played a second time: what was granted or given back, what invoices used, what expired."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import select

from core.db import transaction
from core.invoicing.credit_models import AccountCredit
from core.invoicing.models import Invoice
from tests.simulator.kernel import Divergence

NEVER = datetime.max.replace(tzinfo=UTC)
USUAL_PRIORITY = 50


@dataclass
class Lot:
    """Credit that came at once, in minor units; `source` is the invoice that gave it back, or the grant."""

    source: uuid.UUID
    left: int
    priority: int = USUAL_PRIORITY
    expires: datetime = NEVER


@dataclass
class Wallet:
    """One customer's credit in the order in which things happened."""

    organization_id: uuid.UUID
    lots: list[Lot] = field(default_factory=list)
    used: dict[uuid.UUID, list[tuple[Lot, int]]] = field(default_factory=dict)

    def granted(self, credit: AccountCredit) -> None:
        """A grant, from now on."""
        self.lots.append(Lot(credit.id, credit.amount_minor, credit.priority, credit.expires_at or NEVER))

    def voided(self, invoice_id: uuid.UUID, at: datetime) -> None:
        """What the invoice used comes back for good."""
        self._expire(at)
        for lot, amount in self.used.get(invoice_id, []):
            lot.left, lot.expires = lot.left + amount, NEVER

    def observe(self) -> None:
        """Play the invoices that were finalized since, and find what the product used and gave back."""
        row = Invoice
        with transaction() as session:
            issued = session.execute(
                select(row.id, row.total_minor, row.credit_applied_minor, row.finalized_at)
                .where(row.organization_id == self.organization_id, row.finalized_at.is_not(None), row.id.not_in(self.used))
                .order_by(row.year, row.sequence)
            ).all()
        for invoice_id, total, applied, at in issued:
            self._expire(at)
            self.used[invoice_id] = drawn = self._draw(total)
            if total < 0:
                self.lots.append(Lot(invoice_id, -total))
            if sum(amount for _, amount in drawn) != applied:
                raise Divergence(f"invoice {invoice_id} over {total} used {applied} of credit, not {[amount for _, amount in drawn]}")

    def compare(self, now: datetime) -> None:
        """Each credit has left what it should have; what has expired has nothing."""
        self.observe()
        self._expire(now)
        with transaction() as session:
            rows = session.scalars(select(AccountCredit).where(AccountCredit.organization_id == self.organization_id)).all()
            stored = {row.source_invoice_id or row.id: row.remaining_minor for row in rows}
        expected = {lot.source: lot.left for lot in self.lots}
        if stored != expected:
            raise Divergence(f"at {now} the credits left are {stored}, they should be {expected}")

    def _draw(self, total: int) -> list[tuple[Lot, int]]:
        drawn = []
        for lot in sorted(self.lots, key=lambda lot: (lot.priority, lot.expires)):
            amount = min(lot.left, total)
            if amount > 0:
                lot.left, total = lot.left - amount, total - amount
                drawn.append((lot, amount))
        return drawn

    def _expire(self, at: datetime) -> None:
        for lot in self.lots:
            if lot.expires <= at:
                lot.left = 0
