"""Each corruption is found by its own rule and by no other; sound books are found sound.

Triggers and foreign keys are switched off to plant a corruption, as whoever has the database's password could.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from core import audit, selfcheck
from core.audit import SYSTEM
from core.db import new_id
from core.invoicing import settle
from core.invoicing.models import Invoice, InvoiceDocument
from core.ledger import post
from core.ledger.models import AccountCode
from core.payments.models import BillingTransaction
from tests.factories import add_term, make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.books import issued

NOW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = NOW.replace(day=1)
PDF = b"%PDF-1.7"


def pay(session: Session, invoice: Invoice) -> BillingTransaction:
    """The invoice's due amount, charged and booked."""
    values = {"type": "charge", "status": "succeeded", "amount_minor": invoice.amount_due_minor, "currency": invoice.currency}
    row = BillingTransaction(
        id=new_id(), organization_id=invoice.organization_id, invoice_id=invoice.id, provider="manual", created_at=START, **values
    )
    session.add(row)
    session.flush()
    entries = [(AccountCode.CASH_CLEARING, row.amount_minor), (AccountCode.RECEIVABLE, -row.amount_minor)]
    post.post(
        session,
        organization_id=row.organization_id,
        kind="payment",
        subject=row,
        entries=entries,
        currency="EUR",
        at=START,
        description="Payment",
    )
    settle.apply_payment(session, invoice, amount_minor=row.amount_minor, at=START, actor=SYSTEM)
    return row


@pytest.fixture
def books(session: Session) -> Session:
    """A small life: an invoice paid, one open with usage, a credit from a downgrade, a printed document, a sealed trail."""
    organization, metric = make_organization(session, tax_rate_percent=Decimal(19)), make_metric(session)
    prices = [(metric, {"model": "per_unit", "unit_price": "0.10"})]
    big, small = make_plan(session, base_price="200.00", prices=prices), make_plan(session, base_price="20.00", prices=prices)
    subscription = make_subscription(session, organization, big, start_at=START)
    first = issued(session, subscription, START)
    pay(session, first)
    session.add(
        InvoiceDocument(invoice_id=first.id, organization_id=organization.id, sha256=sha256(PDF).digest(), content=PDF, rendered_at=START)
    )
    use(session, organization, metric, START, 1200)
    change = START.replace(hour=12)
    subscription.terms[0].end_at = change
    session.flush()
    add_term(session, subscription, small, start_at=change, anchor_day=START.date())
    session.expire_all()
    issued(session, subscription, change)
    other = make_subscription(session, make_organization(session), make_plan(session, base_price="50.00"), start_at=START)
    issued(session, other, START)
    used = make_subscription(session, make_organization(session), make_plan(session, base_price="0", prices=prices), start_at=START)
    use(session, session.get_one(type(organization), used.organization_id), metric, START, 30)
    used.terms[0].end_at = change
    session.flush()
    session.expire_all()
    issued(session, used, change)
    session.execute(text("UPDATE subscriptions SET next_bill_at = NULL"))
    audit.seal(session)
    session.flush()
    return session


@pytest.fixture
def superuser(books: Session) -> Session:
    """The same session with triggers and foreign keys asleep."""
    disabled = [row[0] for row in books.execute(text("SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"))]
    for table in disabled:
        books.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
    return books


def codes(session: Session) -> set[str]:
    session.expire_all()
    return {finding.code for finding in selfcheck.run(session)}


def corruptions() -> dict[str, list[str]]:
    """The statements of corruptions.sql by the code of the rule they break."""
    sections = (Path(__file__).with_name("corruptions.sql")).read_text(encoding="utf-8").split("\n-- V")[1:]
    named = ((section.split("\n", 1)) for section in sections)
    return {f"V{code}": [statement for statement in body.split(";\n") if statement.strip()] for code, body in named}


CORRUPTIONS = corruptions()


def test_sound_books_are_found_sound(books: Session) -> None:
    assert selfcheck.run(books) == []


@pytest.mark.parametrize("code", CORRUPTIONS)
def test_a_corruption_is_found_by_its_own_rule_alone(superuser: Session, code: str) -> None:
    for statement in CORRUPTIONS[code]:
        superuser.execute(text(statement))
    assert codes(superuser) == {code}


def test_every_rule_has_a_corruption_that_it_finds() -> None:
    assert set(CORRUPTIONS) == set(selfcheck.codes())


def test_the_application_cannot_plant_them(books: Session) -> None:
    with pytest.raises(Exception, match="finalized") as caught, books.begin_nested():
        books.execute(text(CORRUPTIONS["V9-content-hash"][0]))
    assert isinstance(getattr(caught.value, "orig", None), psycopg.Error)
