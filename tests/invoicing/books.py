"""Reading an invoice in tests the way a person reads it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.invoicing import draft, finalize
from core.invoicing.models import Invoice, InvoiceLine
from core.subscriptions.models import Subscription


def amounts(session: Session, invoice: Invoice) -> dict[str, int]:
    """The amounts of the lines by the first part of their code; lines of one code are added up."""
    found: dict[str, int] = {}
    wanted = select(InvoiceLine.code, InvoiceLine.amount_minor).where(InvoiceLine.invoice_id == invoice.id).order_by(InvoiceLine.position)
    for code, amount in session.execute(wanted):
        name = code.split("-")[0]
        found[name] = found.get(name, 0) + amount
    return found


def invoice_now(session: Session, subscription: Subscription, at: datetime) -> Invoice | None:
    """Bill the subscription and finalize what is due; None when nothing is."""
    made = draft.bill(session, subscription.id, as_of=at, actor=SYSTEM)
    return None if made is None else finalize.finalize_invoice(session, made.id, at=at, actor=SYSTEM)


def issued(session: Session, subscription: Subscription, at: datetime) -> Invoice:
    """The same, where an invoice must come of it."""
    invoice = invoice_now(session, subscription, at)
    assert invoice is not None
    return invoice


class Statements:
    """Counts the statements SQLAlchemy sends inside the block."""

    def __init__(self, session: Session) -> None:
        self._engine, self.count = session.connection().engine, 0

    def _seen(self, *_: object) -> None:
        self.count += 1

    def __enter__(self) -> Statements:
        event.listen(self._engine, "before_cursor_execute", self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._seen)
