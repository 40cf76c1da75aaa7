"""The printed invoice: everything a finance department expects, stored once."""

import hashlib
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from pypdf import PdfReader
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.errors import Conflict
from core.invoicing import documents, draft, queries, statements
from core.invoicing.models import Invoice
from tests.factories import START, make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.books import issued

JULY = datetime(2026, 7, 1, tzinfo=UTC)


def trace_invoice(session: Session) -> Invoice:
    """A month of tokens and requests, all in arrears, 19 % tax."""
    organization = make_organization(session, name="Tracelight GmbH", tax_rate_percent=Decimal(19), tax_id="DE136695976")
    tokens = make_metric(session, "tokens", name="Input tokens", unit="tokens")
    calls = make_metric(session, "requests", name="Requests", unit="")
    tiers = [{"up_to": "10000000", "unit_price": "0.000002"}, {"up_to": None, "unit_price": "0.0000015"}]
    prices = [
        (tokens, {"model": "graduated", "tiers": tiers}),
        (calls, {"model": "package", "package_size": "1000", "package_price": "0.40"}),
    ]
    plan = make_plan(session, base_price="99.00", billing_mode="in_arrears", prices=prices)
    use(session, organization, tokens, START + timedelta(days=15), 22_361_870)
    use(session, organization, calls, START + timedelta(days=15), 19_366)
    return issued(session, make_subscription(session, organization, plan), JULY)


def test_the_pdf_holds_what_finance_needs(session: Session) -> None:
    invoice = trace_invoice(session)
    stored = documents.render(session, invoice.id, at=JULY)
    assert hashlib.sha256(stored.content).digest() == stored.sha256
    text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(stored.content)).pages).replace("\xa0", " ")
    parties = (invoice.invoice_number, "Tracelight GmbH", "DE136695976", "DE811907980", "Kantstraße 1", "10623 Berlin", "Germany")
    figures = ("99.00", "38.54", "8.00", "145.54", "19 %", "27.65", "173.19", "22,361,870", "Input tokens")
    for expected in (*parties, *figures, "1 Jul 2026", "15 Jul 2026", "1–30 Jun 2026"):
        assert str(expected) in text, expected
    assert "DE89370400440532013000" in text.replace(" ", "")


def test_it_is_printed_once_and_a_second_print_is_the_same(session: Session) -> None:
    invoice = trace_invoice(session)
    first = documents.render(session, invoice.id, at=JULY)
    assert documents.render(session, invoice.id, at=JULY + timedelta(days=1)).rendered_at == JULY
    again = documents.render_pdf(documents.as_issued(session, queries.any_invoice(session, invoice.id)))
    assert hashlib.sha256(again).digest() == first.sha256


def test_a_draft_has_no_document(session: Session) -> None:
    made = draft.bill(session, make_subscription(session, make_organization(session), make_plan(session)).id, as_of=START, actor=SYSTEM)
    assert made is not None
    with pytest.raises(Conflict):
        documents.render(session, made.id, at=START)


def test_the_statement_explains_each_charge_and_adds_up(session: Session) -> None:
    invoice = trace_invoice(session)
    loaded = queries.invoice(session, invoice.organization_id, invoice.id)
    statement = statements.of_invoice(loaded)
    assert [group.title for group in statement.groups] == ["Plan, 1–30 Jun 2026", "Usage, 1–30 Jun 2026 (UTC)"]
    rows = [row for group in statement.groups for row in group.rows]
    assert sum(row.amount_minor for row in rows) == statement.foot[0].amount_minor == 14554
    assert statement.total.amount_minor == 17319
    base, tokens, calls = rows
    assert (base.quantity, base.unit_price_text) == (Decimal(1), "€99.00")
    assert [tier.label for tier in tokens.tiers] == ["First 10,000,000", "Over 10,000,000"]
    assert sum(tier.amount for tier in tokens.tiers) == Decimal("38.542805")
    assert tokens.rounding.startswith("38.542805 rounded to €38.54")
    assert "20" in calls.formula
    assert calls.unit_price_text == "€0.40 per 1,000"
    assert statement.foot[1].label == "VAT 19\xa0% on €145.54"
