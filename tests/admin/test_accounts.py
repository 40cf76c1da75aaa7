"""Accounts: found, created, understood on one page; subscribed, billed by hand and given keys from there."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import audit
from core.identity import queries as identity
from core.identity.models import OperatorRole
from core.invoicing import queries as invoicing
from core.subscriptions import queries as subscriptions
from tests.admin.conftest import Count, Enter
from tests.factories import make_organization
from tests.people import make_member, sign_in
from tests.portal.story import Story

FORM = {
    "name": "Halden Robotics AG",
    "slug": "halden",
    "billing_email": "ap@halden.example",
    "currency": "eur",
    "timezone": "Europe/Zurich",
    "line1": "Bahnhofstrasse 1",
    "postal_code": "8001",
    "city": "Zürich",
    "country": "CH",
    "idempotency_key": "new-account-halden",
}


@pytest.mark.parametrize("words", ["quill", "finance@quillmark", "DE 136695976", "lena@"])
def test_accounts_are_found_by_what_people_know(client: FlaskClient, session: Session, enter: Enter, quillmark: Story, words: str) -> None:
    make_member(session, quillmark.organization, email="lena@quillmark.example")
    make_organization(session, name="Somebody Else")
    enter(OperatorRole.SUPPORT)
    shown = client.get("/admin/accounts", query_string={"q": words}).text
    assert "Quillmark GmbH" in shown
    assert "Somebody Else" not in shown


def test_the_list_narrows_to_what_is_overdue(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    make_organization(session, name="Owes Nothing")
    enter()
    shown = client.get("/admin/accounts?state=overdue", headers={"HX-Request": "true"}).text
    assert shown.lstrip().startswith('<div id="accounts">')
    assert "Quillmark" in shown
    assert "Owes Nothing" not in shown


def test_the_list_pages_by_key(client: FlaskClient, session: Session, enter: Enter) -> None:
    for number in range(52):
        make_organization(session, name=f"Page {number:02}")
    enter()
    first = client.get("/admin/accounts").text
    more = re.search(r'href="([^"]*after=[^"]*)"', first)
    assert more is not None
    second = client.get(more[1].replace("&amp;", "&")).text
    assert "Page 51" in first
    assert "Page 51" not in second
    assert "Page 00" in second


def test_an_account_is_created_once_and_refused_politely(client: FlaskClient, session: Session, enter: Enter) -> None:
    token = enter(OperatorRole.BILLING_OPS)
    refused = client.post("/admin/accounts", data={**FORM, "csrf_token": token, "timezone": "Mars/Base", "city": ""})
    assert refused.status_code == 422
    assert "Halden Robotics AG" in refused.text
    made = client.post("/admin/accounts", data={**FORM, "csrf_token": token})
    again = client.post("/admin/accounts", data={**FORM, "csrf_token": token})
    assert made.status_code == 303
    assert made.location == again.location
    found = identity.organization_by_reference(session, "halden")
    assert (found.currency, found.timezone) == ("EUR", "Europe/Zurich")


def test_the_360_shows_the_customers_own_figures(client: FlaskClient, enter: Enter, quillmark: Story) -> None:
    enter(OperatorRole.SUPPORT)
    shown = client.get(f"/admin/accounts/{quillmark.organization.id}").text
    for words in ("Quillmark GmbH", "overdue", "Statement so far", "Output tokens", "INV-2026-0003", "DE136695976, valid form", "Forecast"):
        assert words in shown
    assert "Change plan" not in shown


@pytest.mark.parametrize("part", ["usage", "mails", "timeline"])
def test_late_parts_are_pages_and_fragments(client: FlaskClient, enter: Enter, quillmark: Story, part: str) -> None:
    enter()
    address = f"/admin/accounts/{quillmark.organization.id}/{part}"
    assert "<h1>" in client.get(address).text
    fragment = client.get(address, headers={"HX-Request": "true"}).text
    assert fragment.lstrip().startswith(f'<div id="{part}">')


def test_a_subscription_is_started_from_the_account(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    other = make_organization(session, name="New Customer", timezone="Europe/Berlin")
    token = enter(OperatorRole.BILLING_OPS)
    address = f"/admin/accounts/{other.id}/subscriptions"
    assert "Scale" in client.get(f"{address}/new").text
    form = {"csrf_token": token, "idempotency_key": "start-scale-1", "plan": "scale", "anchor": "calendar"}
    refused = client.post(address, data={**form, "quantity": "-1"})
    assert refused.status_code == 422
    begun = client.post(address, data=form)
    assert begun.status_code == 303
    found = subscriptions.current_subscription(session, other.id)
    assert found is not None
    assert found.plan.code == "scale"
    assert str(found.id) in begun.location
    assert "Scale" in client.get(begun.location).text


def test_an_invoice_by_hand_needs_lines_and_a_reason(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    token = enter(OperatorRole.BILLING_OPS)
    address = f"/admin/accounts/{quillmark.organization.id}/invoices"
    form = {
        "csrf_token": token,
        "idempotency_key": "by-hand-0001",
        "description": ["Migration", ""],
        "quantity": ["2", ""],
        "unit_price": ["450.00", ""],
        "unit": ["days", ""],
    }
    short = client.post(address, data={**form, "reason": "no"})
    assert short.status_code == 422
    assert "Migration" in short.text
    wrong = client.post(address, data={**form, "unit_price": ["cheap", ""], "reason": "Agreed with Lena on 20 Nov"})
    assert wrong.status_code == 422
    assert 'id="e-lines_0_unit_price"' in wrong.text
    made = client.post(address, data={**form, "reason": "Agreed with Lena on 20 Nov"})
    assert made.status_code == 303
    [draft] = [row for row in invoicing.invoices(session, quillmark.organization.id) if row.reason == "manual"]
    assert draft.subtotal_minor == 90_000
    reasons = [row.reason for row in audit.search(session, audit.Search(text=str(draft.id)))]
    assert "Agreed with Lena on 20 Nov" in reasons


def test_a_key_is_shown_once(client: FlaskClient, enter: Enter, quillmark: Story) -> None:
    token = enter(OperatorRole.BILLING_OPS)
    account = f"/admin/accounts/{quillmark.organization.id}"
    assert client.post(f"{account}/keys", data={"csrf_token": token, "name": ""}).status_code == 422
    made = client.post(f"{account}/keys", data={"csrf_token": token, "name": "prod-eu", "scopes": "usage:write", "mode": "live"}).text
    secret = re.search(r"vv_live_[0-9A-Za-z]{43}", made)
    assert secret is not None
    shown = client.get(account).text
    assert "prod-eu" in shown
    assert secret[0] not in shown


PAGES = ("", "/subscriptions/new", "/invoices/new", "/keys/new", "/event?key=x", "/usage", "/mails", "/timeline")


@pytest.mark.parametrize("address", PAGES)
def test_strangers_find_nothing(client: FlaskClient, session: Session, enter: Enter, quillmark: Story, address: str) -> None:
    path = f"/admin/accounts/{quillmark.organization.id}{address}"
    sign_in(client, session, make_member(session, quillmark.organization), quillmark.organization)
    assert client.get(path).status_code == 404
    enter()
    assert client.get(path.replace(str(quillmark.organization.id), "00000000-0000-7000-8000-000000000000")).status_code == 404


def test_support_looks_and_changes_nothing(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    token = enter(OperatorRole.SUPPORT)
    account = f"/admin/accounts/{quillmark.organization.id}"
    for path in ("/admin/accounts", f"{account}/subscriptions", f"{account}/invoices", f"{account}/keys"):
        assert client.post(path, data={"csrf_token": token, "idempotency_key": "never-happens"}).status_code == 403


def test_the_list_takes_as_many_statements_for_many_rows(session: Session, enter: Enter, statements: Count, quillmark: Story) -> None:
    enter()
    few = statements("/admin/accounts")
    for _ in range(20):
        make_organization(session)
    assert statements("/admin/accounts") == few
