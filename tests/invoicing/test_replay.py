"""An issued invoice replayed: identical as it was issued, and every figure somebody changed is shown."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.errors import Conflict, NotFound
from core.invoicing import draft, manual, void
from core.invoicing.models import Invoice
from core.invoicing.replay import find, replay
from core.subscriptions import plan_change
from tests.factories import make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.books import issued

START, CHANGE, NEXT = (datetime(2026, month, day, tzinfo=UTC) for month, day in ((6, 1), (6, 11), (7, 1)))
PART = "jsonb_set(detail, '{{parts,0,{}}}', '\"{}\"')"
TIERS = {"model": "graduated", "tiers": [{"up_to": "1000", "unit_price": "0"}, {"up_to": None, "unit_price": "0.017"}]}


@pytest.fixture
def invoices(session: Session) -> list[Invoice]:
    """A first invoice, one after an upgrade, and a renewal with usage and a line written by hand."""
    organization, calls = make_organization(session, tax_rate_percent=Decimal(19)), make_metric(session)
    starter, pro = make_plan(session, base_price="100.00", prices=[(calls, TIERS)]), make_plan(session, base_price="230.00", prices=[])
    subscription = make_subscription(session, organization, starter, start_at=START)
    found = [issued(session, subscription, START)]
    use(session, organization, calls, START, 4321)
    plan_change.apply(session, subscription, to=pro, at=CHANGE, actor=SYSTEM)
    found.append(issued(session, subscription, CHANGE))
    drafted = draft.bill(session, subscription.id, as_of=NEXT, actor=SYSTEM)
    assert drafted is not None
    training = {"description": "Training", "quantity": "3", "unit_price": "33.335"}
    manual.add_line(session, organization.id, drafted.id, line=training, at=NEXT, actor=SYSTEM)
    found.append(issued(session, subscription, NEXT))
    return found


def tamper(session: Session, table: str, change: str, invoice: Invoice) -> None:
    """Change what is stored, as whoever has the database's password could."""
    session.flush()
    session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
    session.execute(text(f"UPDATE {table} SET {change}"), {"id": str(invoice.id)})
    session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))
    session.expire_all()


def test_issued_invoices_are_identical(session: Session, invoices: list[Invoice]) -> None:
    for invoice in invoices:
        found = replay(session, invoice.organization_id, invoice.id)
        assert (found.differences, found.unpriced) == ((), ())
        assert (found.number, found.is_identical) == (invoice.invoice_number, True)
    assert sum(found.lines for found in (replay(session, i.organization_id, i.id) for i in invoices)) == 6
    assert find(session, str(invoices[0].invoice_number)).id == invoices[0].id


@pytest.mark.parametrize(
    ("table", "change", "where"),
    [
        ("invoice_lines", "amount_minor = amount_minor + 1 WHERE invoice_id = :id AND metric_id IS NOT NULL", "amount"),
        ("invoice_lines", f"detail = {PART.format('quantity', '4320')} WHERE invoice_id = :id AND metric_id IS NOT NULL", "owed"),
        ("invoice_lines", f"detail = {PART.format('fraction', '1/2')} WHERE invoice_id = :id AND metric_id IS NULL", "fraction"),
        ("invoice_taxes", "tax_minor = tax_minor - 1 WHERE invoice_id = :id", "content, hash"),
        ("invoices", "subtotal_minor = subtotal_minor - 1, tax_minor = tax_minor + 1 WHERE id = :id", "sums, tax"),
        (
            "pricing_rules",
            "rules = jsonb_set(rules, '{tiers,1,unit_price}', '\"9\"') WHERE kind = 'usage' AND :id <> ''",
            "price list",
        ),
    ],
)
def test_every_figure_that_was_changed_is_shown(session: Session, invoices: list[Invoice], table: str, change: str, where: str) -> None:
    changed = invoices[1]
    tamper(session, table, change, changed)
    found = replay(session, changed.organization_id, changed.id)
    assert not found.is_identical
    assert any(difference.where.endswith(where) for difference in found.differences), found.differences


def test_what_was_billed_before_is_known_also_when_it_was_taken_back_the_same_instant(session: Session, invoices: list[Invoice]) -> None:
    first, second = invoices[0], invoices[1]
    void.void_invoice(session, first.id, at=CHANGE, actor=SYSTEM)
    assert replay(session, second.organization_id, second.id).is_identical
    assert replay(session, first.organization_id, first.id).is_identical


def test_a_stranger_an_unknown_number_and_a_draft_are_refused(session: Session, invoices: list[Invoice]) -> None:
    with pytest.raises(NotFound):
        replay(session, make_organization(session).id, invoices[0].id)
    with pytest.raises(NotFound):
        replay(session, invoices[0].organization_id, uuid.uuid4())
    with pytest.raises(NotFound):
        find(session, "VV-1999-000001")
    organization = make_organization(session)
    subscription = make_subscription(session, organization, make_plan(session), start_at=START)
    drafted = draft.bill(session, subscription.id, as_of=START, actor=SYSTEM)
    assert drafted is not None
    with pytest.raises(Conflict):
        replay(session, organization.id, drafted.id)
