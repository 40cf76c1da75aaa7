"""What the portal's forms do, sent as a browser without JavaScript sends them: pay, change plan, keys, details; each at most once."""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from core import config
from core.audit import AuditEvent
from core.identity.models import ApiKey
from core.invoicing import listing, queries
from core.invoicing.models import Invoice
from core.payments import methods
from core.payments.models import BillingTransaction
from core.subscriptions import plan_change
from core.subscriptions.queries import current_subscription
from tests.conftest import Clock
from tests.fakes.fixtures import ProviderFake, provider_fake
from tests.portal import story
from tests.portal.conftest import SignIn
from tests.portal.story import Story


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderFake]:
    """A payment provider over HTTP."""
    with provider_fake() as running:
        yield running


@pytest.fixture
def card(provider: ProviderFake, quillmark: Story, now: datetime) -> Iterator[ProviderFake]:
    """The provider, configured, with a saved Visa of the customer's."""
    before = config.current()
    config.use(
        replace(before, stripe_api_key=provider.api_key, stripe_api_base=provider.url, stripe_webhook_secrets=(provider.webhook_secret,))
    )
    methods.attach(quillmark.organization.id, provider_token="pm_card_visa", at=now, actor=story.SETUP)
    yield provider
    config.use(before)


def form(token: str, **fields: Any) -> dict[str, Any]:
    """A form as rendered: with its CSRF token and an idempotency key of its own."""
    return {"csrf_token": token, "idempotency_key": str(uuid.uuid4()), **fields}


def open_invoice(session: Session, quillmark: Story) -> Invoice:
    """The one that is to be paid."""
    return listing.open_invoices(session, quillmark.organization.id)[0]


def test_paying_charges_once_however_often_it_is_sent(
    client: FlaskClient, session: Session, quillmark: Story, card: ProviderFake, enter: SignIn
) -> None:
    token, invoice = enter(quillmark.organization), open_invoice(session, quillmark)
    number, due = invoice.invoice_number, invoice.amount_due_minor
    sent = form(token)
    answers = [client.post(f"/portal/invoices/{number}/payments", data=data) for data in (sent, sent, form(token))]
    assert [(answer.status_code, answer.headers["Location"]) for answer in answers] == [(303, f"/portal/invoices/{number}")] * 3
    charges = [charge for charge in card.charges() if charge["amount"] == due]
    assert len(charges) == 1
    page = client.get(f"/portal/invoices/{number}").text
    assert "Paid on 22 Nov 2026 with Visa •• 4242" in page
    assert session.scalars(select(BillingTransaction).where(BillingTransaction.invoice_id == invoice.id)).one().amount_minor == due


def test_a_declined_payment_says_why_and_what_next(
    client: FlaskClient, session: Session, quillmark: Story, card: ProviderFake, enter: SignIn
) -> None:
    token, number = enter(quillmark.organization), open_invoice(session, quillmark).invoice_number
    card.mode("decline:insufficient_funds", next=1)
    client.post(f"/portal/invoices/{number}/payments", data=form(token))
    page = client.get(f"/portal/invoices/{number}").text
    assert "was declined on 22 Nov" in page
    assert "Nothing was charged" in page
    assert "failed, invoice is 7 days overdue" in client.get("/portal/").text
    card.heal()


def test_saving_a_card_goes_to_the_provider_and_back(client: FlaskClient, quillmark: Story, card: ProviderFake, enter: SignIn) -> None:
    token = enter(quillmark.organization)
    begun = client.post("/portal/payment-methods", data=form(token))
    assert begun.status_code == 303
    assert begun.headers["Location"].startswith("/portal/payment-methods/setup/")
    page = client.get(begun.headers["Location"])
    link = re.findall(r'<a class="button primary large" href="([^"]+)"', page.text)[0]
    assert link.startswith(card.url)
    assert client.get("/portal/payment-methods/return?session_id=cs_nobody").status_code == 404


def test_a_plan_changes_now_for_exactly_what_was_quoted(
    client: FlaskClient, session: Session, quillmark: Story, card: ProviderFake, enter: SignIn
) -> None:
    token = enter(quillmark.organization)
    quoted = client.post("/portal/plan/change", data=form(token, plan="scale", when="now"))
    page = client.get(quoted.headers["Location"]).text
    shown = Decimal(re.findall(r'mid pay"><data value="([\d.]+)"', page)[0])
    sent = form(token)
    first, second = (client.post(quoted.headers["Location"], data=sent) for _ in range(2))
    assert (first.status_code, first.headers["Location"]) == (second.status_code, second.headers["Location"])
    number = re.findall(r"/invoices/([^?]+)", first.headers["Location"])[0]
    invoice = queries.invoice_by_number(session, quillmark.organization.id, number)
    assert (invoice.total_minor, invoice.status) == (int(shown * 100), "paid")
    assert [charge["amount"] for charge in card.charges()].count(invoice.total_minor) == 1
    subscription = current_subscription(session, quillmark.organization.id)
    assert subscription is not None
    assert subscription.plan.code == "scale"


def test_an_expired_quote_is_made_anew_and_nothing_happens(
    client: FlaskClient, session: Session, quillmark: Story, enter: SignIn, clock: Clock
) -> None:
    token = enter(quillmark.organization)
    quoted = client.post("/portal/plan/change", data=form(token, plan="scale", when="now")).headers["Location"]
    clock.advance(minutes=16)
    answer = client.post(quoted, data=form(token))
    assert answer.status_code == 409
    assert "Nothing was changed" in answer.text
    assert re.findall(r'action="(/portal/plan/change/[^"]+)"', answer.text)[0] != quoted
    subscription = current_subscription(session, quillmark.organization.id)
    assert subscription is not None
    assert subscription.plan.code == "build"


def test_a_change_for_later_is_shown_and_undone(
    client: FlaskClient, session: Session, quillmark: Story, enter: SignIn, now: datetime
) -> None:
    token = enter(quillmark.organization)
    quoted = client.post("/portal/plan/change", data=form(token, plan="starter", when="period_end")).headers["Location"]
    done = client.post(quoted, data=form(token))
    assert done.headers["Location"] == "/portal/plan?done=scheduled"
    assert 'From <time datetime="2026-12-01">1 Dec 2026</time>: Starter' in client.get("/portal/plan").text
    client.post("/portal/plan/scheduled-change/undo", data=form(token))
    subscription = current_subscription(session, quillmark.organization.id)
    assert subscription is not None
    assert plan_change.scheduled_change(subscription, at=now) is None
    kinds = session.scalars(select(AuditEvent.kind).where(AuditEvent.subject_id == str(subscription.id))).all()
    assert {"subscription.plan_change_scheduled", "subscription.plan_change_undone"} <= set(kinds)


def test_a_date_is_asked_for_where_it_is_missing(client: FlaskClient, quillmark: Story, enter: SignIn) -> None:
    token = enter(quillmark.organization)
    answer = client.post("/portal/plan/change", data=form(token, plan="scale", when="date"))
    assert answer.status_code == 422
    assert 'id="f-date-error"' in answer.text
    assert "<title>Error: " in answer.text


def test_cancelling_can_be_taken_back_until_it_is_time(client: FlaskClient, quillmark: Story, enter: SignIn) -> None:
    token = enter(quillmark.organization)
    client.post("/portal/plan/cancellation", data=form(token, when="period_end", reason="Trying another tool"))
    page = client.get("/portal/plan").text
    assert "Cancels, 1 Dec" in page
    client.post("/portal/plan/cancellation/undo", data=form(token))
    assert "Cancels" not in client.get("/portal/plan").text


def test_the_plan_is_paused_resumed_left_and_taken_up_again(client: FlaskClient, session: Session, quillmark: Story, enter: SignIn) -> None:
    token = enter(quillmark.organization)
    for act, becomes, says in (("pause", "paused", "Paused. Nothing is charged"), ("resume", "active", "Your plan goes on")):
        asked = client.get(f"/portal/plan/acts/{act}")
        assert ("What it changes" in asked.text) == (act == "pause")  # usage and fee up to now; nothing more when it goes on
        sent = form(token, reason="Quiet months")
        answers = [client.post(f"/portal/plan/acts/{act}", data=sent) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [303, 303]
        assert says in client.get(answers[0].location).text
        session.expire_all()
        found = current_subscription(session, quillmark.organization.id)
        assert found is not None
        assert found.status == becomes
    refused = client.post("/portal/plan/acts/resume", data=form(token))
    assert (refused.status_code, "Possible now" in refused.text) == (409, True)
    client.post("/portal/plan/cancellation", data=form(token, when="now"))
    assert "Start again" in client.get("/portal/plan").text
    assert client.get("/portal/plan/acts/pause").status_code == 303
    assert client.post("/portal/plan/acts/reactivate", data=form(token)).status_code == 303
    assert "Welcome back" in client.get("/portal/plan?done=back").text
    assert client.get("/portal/plan/acts/suspend").status_code == 404


def test_a_key_is_shown_once_and_revoked(client: FlaskClient, session: Session, quillmark: Story, enter: SignIn) -> None:
    token = enter(quillmark.organization)
    made = client.post("/portal/settings/keys", data=form(token, name="prod-eu", mode="live", scopes=["usage:write"], days="90"))
    secret = re.findall(r'value="(vv_live_\w+)"', made.text)[0]
    assert secret not in client.get("/portal/settings/keys").text
    key = session.scalars(select(ApiKey).where(ApiKey.organization_id == quillmark.organization.id)).one()
    assert (key.scopes, key.expires_at is not None) == (["usage:write"], True)
    assert "never been used" in client.get(f"/portal/settings/keys/{key.id}/revocation").text
    client.post(f"/portal/settings/keys/{key.id}/revocation", data=form(token))
    session.expire_all()
    assert key.revoked_at is not None


def test_a_key_without_a_purpose_is_refused_at_its_fields(client: FlaskClient, quillmark: Story, enter: SignIn) -> None:
    answer = client.post("/portal/settings/keys", data=form(enter(quillmark.organization), name="", mode="live"))
    assert answer.status_code == 422
    assert re.findall(r'href="#f-(\w+)"', answer.text) == ["name", "scopes"]


def test_billing_details_are_saved_checked_and_not_lost(client: FlaskClient, session: Session, quillmark: Story, enter: SignIn) -> None:
    token = enter(quillmark.organization)
    page = client.get("/portal/settings/billing").text
    version = re.findall(r'name="version" value="([^"]+)"', page)[0]
    fields = {"name": "Quillmark SE", "billing_email": "ap@quillmark.example", "line1": "Neuer Wall 1", "city": "Hamburg", "country": "DE"}
    wrong = client.post("/portal/settings/billing", data=form(token, version=version, **{**fields, "billing_email": "nobody"}))
    assert wrong.status_code == 422
    assert "Quillmark SE" in wrong.text
    assert client.post("/portal/settings/billing", data=form(token, version=version, **fields)).status_code == 303
    session.expire_all()
    assert quillmark.organization.name == "Quillmark SE"
    stale = client.post("/portal/settings/billing", data=form(token, version="2020-01-01T00:00:00+00:00", **fields))
    assert stale.status_code == 409
    assert "Somebody has changed these details" in stale.text


def test_the_tax_number_says_its_effect(client: FlaskClient, quillmark: Story, enter: SignIn) -> None:
    enter(quillmark.organization)
    asked = client.get("/portal/settings/billing/tax?tax_id=FR40303265045&country=FR").text
    assert "reverse charge" in asked
    assert "does not look like" in client.get("/portal/settings/billing/tax?tax_id=12&country=DE").text


def rows_of(answer: Any) -> list[dict[str, str]]:
    """The rows of a CSV answer."""
    assert answer.mimetype == "text/csv"
    return list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"))))


def test_the_csv_of_a_view_adds_up_to_its_page(client: FlaskClient, quillmark: Story, enter: SignIn) -> None:
    enter(quillmark.organization)
    for query in ("metric=output_tokens&group=project", "metric=input_tokens&period=previous", "metric=requests&period=7&per=hour"):
        page = client.get(f"/portal/usage?{query}").text
        total = re.findall(r'<tr id="total">.*?</tr>', page, re.S)[0]
        shown = Decimal(re.findall(r'value="([^"]+)"', total)[-1])
        rows = rows_of(client.get(f"/portal/usage.csv?{query}"))
        assert sum(Decimal(row["cost_EUR"]) for row in rows) == shown, query
        if "group" in query:
            groups = [name for name in rows[0] if name.startswith("cost: ")]
            assert len(groups) == 5
            assert all(sum(Decimal(row[name]) for name in groups) == Decimal(row["cost_EUR"]) for row in rows)


def test_a_view_of_a_whole_period_equals_its_invoice_line(client: FlaskClient, session: Session, quillmark: Story, enter: SignIn) -> None:
    enter(quillmark.organization)
    page = client.get("/portal/usage?metric=output_tokens&period=previous").text
    invoice = queries.invoice_by_number(session, quillmark.organization.id, str(open_invoice(session, quillmark).invoice_number))
    line = next(line for line in invoice.lines if line.code == "output_tokens")
    shown = Decimal(re.findall(r'<p class="mid">.*?value="([^"]+)"', page, re.S)[0])
    assert int(shown * 100) == line.amount_minor
    assert "invoice line “Output tokens”" in page
    days = rows_of(client.get(f"/portal/invoices/{invoice.invoice_number}/lines/{line.id}.csv"))
    assert len(days) == 31
    assert sum(Decimal(day["cost_EUR"]) for day in days) == shown
    assert '<div class="recon">' in client.get(f"/portal/invoices/{invoice.invoice_number}/lines/{line.id}").text


def test_the_overview_says_what_the_statement_says(client: FlaskClient, quillmark: Story, enter: SignIn) -> None:
    enter(quillmark.organization)
    page = client.get("/portal/").text
    headline = re.findall(r'<p class="big"><data value="([^"]+)"', page)[0]
    foot = re.findall(r"Spend so far</th>.*?value=\"([^\"]+)\"", page, re.S)[0]
    assert headline == foot
    rows = rows_of(client.get("/portal/statement.csv"))
    assert [row["net"] for row in rows if row["charge"] == "Net"] == [headline]
    assert "Day 22 of 30" in page
    assert "likely" in page


def test_bad_questions_are_answered_politely(client: FlaskClient, quillmark: Story, enter: SignIn) -> None:
    enter(quillmark.organization)
    wrong = client.get("/portal/usage?period=custom&from=2026-11-20&to=2026-11-01")
    assert wrong.status_code == 422
    assert "The last day must not be before the first" in wrong.text
    for query in ("metric=nothing&measure=x&per=y&group=z&compare=q&zone=Mars", "period=90&per=hour", "period=custom&from=&to=x"):
        assert client.get(f"/portal/usage?{query}").status_code in (200, 422), query
    for path in (
        "/invoices?year=abc&status=x&after=zz",
        "/invoices.csv?year=99999",
        "/settings/audit?after=x&subject=y",
        "/usage/events?day=x&after=%%%",
    ):
        assert client.get(f"/portal{path}").status_code in (200, 422), path
    assert client.get("/portal/invoices/INV-1").status_code == 404
