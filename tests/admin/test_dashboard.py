"""The dashboard's figures against amounts known from the data, its work queue, and the search box."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert
from sqlalchemy.orm import Session

from core import clock
from core.analytics import billing, work
from core.identity.models import OperatorRole
from core.invoicing.models import Invoice
from core.metering.rejections.tables import usage_rejections
from core.subscriptions.models import Subscription
from tests.admin.conftest import Count, Enter
from tests.factories import add_term, make_metric, make_organization, make_plan, make_subscription
from tests.people import make_key, make_member
from tests.portal.story import Story

SAVEPOINTS = 2  # what a request in a test begins and ends with
AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def _open(session: Session, due: date, minor: int, *, draft: bool = False, currency: str = "EUR", **given: Any) -> Invoice:
    """An invoice by hand of a new account, issued on 1 Oct 2026 unless `issued` says otherwise; or a draft."""
    organization = make_organization(session, currency=currency)
    issued: dict[str, Any] = {
        "issue_date": given.get("issued", date(2026, 10, 1)),
        "finalized_at": AT,
        "invoice_number": f"T-{organization.number}",
    }
    invoice = Invoice(
        organization_id=organization.id,
        status="draft" if draft else "open",
        reason="manual",
        currency=currency,
        subtotal_minor=minor,
        tax_minor=0,
        total_minor=minor,
        amount_due_minor=minor,
        timezone="UTC",
        due_date=due,
        **({} if draft else issued),
    )
    session.add(invoice)
    session.flush()
    return invoice


def _recurring(session: Session, currency: str, at: datetime) -> billing.Recurring:
    return billing.recurring(session, currency, at=(at,))[0]


def test_recurring_revenue_counts_fees_by_the_month(session: Session) -> None:
    metric = make_metric(session)
    monthly = make_plan(session, base_price="99.00", prices=[(metric, {"model": "per_unit", "unit_price": "5"})])
    yearly = make_plan(session, base_price="1200.00", billing_period="year")
    for version in (monthly, monthly, yearly):
        make_subscription(session, make_organization(session), version, start_at=AT - timedelta(days=40))
    ended = make_subscription(session, make_organization(session), monthly, start_at=AT - timedelta(days=60))
    ended.terms[0].end_at = AT - timedelta(days=30)
    trial = make_subscription(session, make_organization(session), monthly, start_at=AT - timedelta(days=3))
    trial.terms[0].is_trial = True
    make_subscription(session, make_organization(session, currency="USD"), make_plan(session, currency="USD", base_price="7.00"))
    session.flush()
    now = _recurring(session, "EUR", AT)
    assert (now.minor, now.subscriptions) == (2 * 99_00 + 100_00, 3)
    assert _recurring(session, "EUR", AT - timedelta(days=45)).minor == 99_00
    assert _recurring(session, "USD", AT).minor == 7_00


def test_a_change_of_plan_moves_recurring_revenue_at_its_instant(session: Session) -> None:
    small, large = make_plan(session, base_price="10.00"), make_plan(session, base_price="30.00")
    subscription: Subscription = make_subscription(session, make_organization(session), small, start_at=AT - timedelta(days=20))
    subscription.terms[0].end_at = AT
    session.flush()
    add_term(session, subscription, large, start_at=AT)
    assert [one.minor for one in billing.recurring(session, "EUR", at=(AT, AT - timedelta(seconds=1)))] == [30_00, 10_00]


@pytest.mark.parametrize(("days", "place"), [(-1, 0), (0, 0), (1, 1), (30, 1), (31, 2), (60, 2), (61, 3), (90, 3), (91, 4), (400, 4)])
def test_receivables_fall_into_their_age(session: Session, days: int, place: int) -> None:
    today = AT.date()
    _open(session, today - timedelta(days=days), 12_34)
    found = billing.receivables(session, "EUR", on=today)
    assert [age.minor for age in found.ages] == [12_34 if at == place else 0 for at in range(5)]
    assert found.overdue_minor == (12_34 if place else 0)


def test_invoiced_months_leave_void_and_other_currencies_out(session: Session) -> None:
    _open(session, AT.date(), 100, issued=date(2026, 10, 31))
    _open(session, AT.date(), 20, issued=date(2026, 11, 1))
    _open(session, AT.date(), 9, issued=date(2026, 11, 1), currency="USD")
    assert billing.invoiced(session, "EUR", since=date(2026, 10, 1), on=AT.date()).months == {date(2026, 10, 1): 100, date(2026, 11, 1): 20}


def test_collected_follows_the_payments(session: Session, quillmark: Story) -> None:
    paid = billing.collected(session, "EUR", since=datetime(2026, 1, 1, tzinfo=UTC), until=AT)
    invoices = session.query(Invoice).filter(Invoice.status == "paid").all()
    assert paid == sum(invoice.total_minor for invoice in invoices)
    assert paid > 0
    assert billing.collected(session, "EUR", since=AT, until=AT + timedelta(days=1)) == 0


def test_the_page_shows_the_figures_and_the_queue(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    row = {"received_at": clock.now(), "position": 0, "code": "unknown_metric", "pointer": "", "detail": "", "event": b"{}"}
    session.execute(insert(usage_rejections), [row, row])
    enter()
    shown = client.get("/admin/").text
    assert "€99.00" in shown
    assert "Rejected events, 24 h" in shown
    assert "2 unknown metric" in shown
    queue = client.get("/admin/", headers={"HX-Request": "true"}).text
    assert queue.lstrip().startswith('<section id="queue"')


def test_the_queue_knows_drafts_and_their_money(session: Session) -> None:
    invoice = _open(session, AT.date(), 5_00, draft=True)
    assert [(kind.key, kind.count, kind.money) for kind in work.waiting(session, rejected_since=AT)] == [("drafts", 1, (("EUR", 5_00),))]
    invoice.held_reason = "Waiting"
    session.flush()
    assert [kind.key for kind in work.waiting(session, rejected_since=AT)] == ["held"]


def test_a_role_sees_the_work_it_may_see(client: FlaskClient, enter: Enter, quillmark: Story) -> None:
    enter(OperatorRole.USER_ADMIN)
    shown = client.get("/admin/").text
    assert "Receivables" not in shown
    assert "Ingestion" not in shown


def test_the_page_takes_as_many_statements_for_many_rows(session: Session, enter: Enter, statements: Count) -> None:
    _open(session, AT.date(), 100)
    make_subscription(session, make_organization(session), make_plan(session), start_at=AT - timedelta(days=400))
    enter()
    few = statements("/admin/")
    assert few <= 12 + SAVEPOINTS
    for _ in range(15):
        _open(session, AT.date(), 100)
    assert statements("/admin/") == few


def test_an_exact_hit_opens_at_once(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    enter(OperatorRole.SUPPORT)
    account = f"/admin/accounts/{quillmark.organization.id}"
    for words in ("quillmark", "finance@quillmark.example", "DE136695976", str(quillmark.organization.id)):
        assert client.get("/admin/search", query_string={"q": words}).location == account
    invoice = session.query(Invoice).filter(Invoice.invoice_number == "INV-2026-0002").one()
    assert client.get("/admin/search?q=inv-2026-0002").location == f"/admin/invoices/{invoice.id}"
    assert client.get(f"/admin/search?q={quillmark.subscription.id}").location == f"/admin/subscriptions/{quillmark.subscription.id}"


def test_parts_of_names_are_listed_by_kind(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    make_member(session, quillmark.organization)
    token = make_key(session, quillmark.organization)
    enter()
    assert "Quillmark GmbH" in client.get("/admin/search?q=quill").text
    assert "INV-2026-0001" in client.get("/admin/search?q=2026-000").text
    assert "API keys" in client.get("/admin/search", query_string={"q": token[:12]}).text
    assert "Nothing goes by" in client.get("/admin/search", query_string={"q": "100%_'; --"}).text
    assert client.get("/admin/search", query_string={"q": "x" * 5_000 + "\x00"}).status_code == 200


def test_search_shows_no_more_than_the_role_sees(client: FlaskClient, enter: Enter, quillmark: Story) -> None:
    enter(OperatorRole.USER_ADMIN)
    answer = client.get("/admin/search?q=quillmark")
    assert answer.status_code == 200
    assert "Quillmark GmbH" not in answer.text
