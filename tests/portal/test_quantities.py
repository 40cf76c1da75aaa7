"""Seats and add-ons in the customer's hands: a price first, then exactly that, and what is planned can be taken back."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.catalog import publish
from core.identity.models import Organization
from core.subscriptions import lifecycle
from core.subscriptions.models import Subscription
from tests.conftest import Clock
from tests.factories import START, make_organization
from tests.invoicing.books import invoice_now, issued
from tests.portal.conftest import SignIn

MIDDLE = datetime(2026, 6, 16, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
SEATS = {"licensed": "seats", "name": "Seats", "model": "per_unit", "unit_price": "10.00", "quantity_min": "2", "quantity_max": "50"}


def offer(session: Session, code: str, **given: Any) -> None:
    """Publish a monthly plan in euros, a part of a month measured in days."""
    values = {"name": code.capitalize(), "currency": "EUR", "billing_period": "month", "base_price": "0", "proration": "days", **given}
    publish.create_version(session, code=code, **values, actor=SYSTEM, at=START)


@pytest.fixture
def team(session: Session, clock: Clock) -> Subscription:
    """Five seats of a plan of 50.00 and 10.00 a seat, June invoiced; two add-ons are on offer, one of them not to customers."""
    offer(session, "team", base_price="50.00", prices=[SEATS])
    offer(session, "solo")
    offer(session, "support", base_price="30.00", kind="add_on")
    offer(session, "secret", base_price="1.00", kind="add_on", is_public=False)
    customer = make_organization(session)
    started = lifecycle.start(session, customer.id, plan="team", at=START, actor=SYSTEM, quantities={"seats": 5})
    assert issued(session, started, START).total_minor == 10_000
    clock.at(MIDDLE)
    return started


@pytest.fixture
def token(session: Session, team: Subscription, enter: SignIn) -> str:
    """The owner, signed in."""
    return enter(session.get_one(Organization, team.organization_id))


def send(client: FlaskClient, token: str, path: str, **fields: Any) -> Any:
    """A form as a browser sends it."""
    return client.post(f"/portal/plan{path}", data={"csrf_token": token, "idempotency_key": str(uuid.uuid4()), **fields})


def shown_total(page: str) -> str:
    """The amount beside the button."""
    return re.findall(r'mid pay"><data value="([\d.-]+)"', page)[0]


def test_more_seats_cost_exactly_what_the_quote_says(client: FlaskClient, session: Session, team: Subscription, token: str) -> None:
    asked = client.get(f"/portal/plan/change?plan={team.terms[0].plan_version_id}").text
    assert 'name="quantities_seats"' in asked
    assert "2 to 50." in asked
    version = str(team.terms[0].plan_version_id)
    for wrong, said in (("51", "at most 50"), ("1", "at least 2"), ("many", "number")):
        refused = send(client, token, "/change", plan=version, when="now", quantities_seats=wrong)
        assert (refused.status_code, 'href="#f-quantities_seats"' in refused.text, said in refused.text) == (422, True, True), wrong
    quoted = send(client, token, "/change", plan=version, when="now", quantities_seats="8").headers["Location"]
    page = client.get(quoted).text
    assert shown_total(page) == "15.00"  # three more for half of June
    assert re.search(r"1 Jul 2026.*?Seats.*?€130\.00", page, re.S)
    for _ in range(2):
        confirmed = client.post(quoted, data={"csrf_token": token, "idempotency_key": "confirm-seats"})
        assert confirmed.status_code == 303
    session.expire_all()
    assert team.terms[-1].quantities == {"seats": "8"}
    assert issued(session, team, JULY).total_minor == 13_000


def test_fewer_seats_wait_for_the_period_end_and_can_be_taken_back(
    client: FlaskClient, session: Session, team: Subscription, token: str
) -> None:
    quoted = send(client, token, "/change", plan=str(team.terms[0].plan_version_id), when="period_end", quantities_seats="3").location
    assert "Nothing is charged today" in client.get(quoted).text
    assert client.post(quoted, data={"csrf_token": token, "idempotency_key": "fewer-seats"}).status_code == 303
    page = client.get("/portal/plan").text
    assert "other quantities" in page
    assert re.search(r"1 Jul 2026</time><span class=\"sub\">then 3", page)
    assert send(client, token, "/scheduled-change/undo").status_code == 303
    assert "other quantities" not in client.get("/portal/plan").text
    assert issued(session, team, JULY).total_minor == 10_000


def test_an_add_on_is_bought_held_in_another_number_and_ended(
    client: FlaskClient, session: Session, team: Subscription, token: str, clock: Clock, enter: SignIn
) -> None:
    page = client.get("/portal/plan").text
    assert "Add Support" in page
    assert "Secret" not in page
    assert client.get("/portal/plan/add-ons/secret").status_code == 404
    assert client.get("/portal/plan/add-ons/solo").status_code == 404
    quoted = send(client, token, "/add-ons/support", when="now", quantity="2").headers["Location"]
    assert shown_total(client.get(quoted).text) == "30.00"
    number = client.post(quoted, data={"csrf_token": token, "idempotency_key": "buy-support"}).headers["Location"]
    assert "/portal/invoices/" in number
    session.expire_all()
    [item] = team.items
    assert send(client, token, f"/items/{item.id}", when="now", quantity="2").status_code == 422
    fewer = send(client, token, f"/items/{item.id}", when="period_end", quantity="1").headers["Location"]
    client.post(fewer, data={"csrf_token": token, "idempotency_key": "fewer-support"})
    session.expire_all()
    assert [(held.quantity, held.end_at) for held in team.items] == [(2, JULY), (1, None)]
    assert send(client, token, f"/items/{item.id}/undo").status_code == 303
    session.expire_all()
    assert [(held.quantity, held.end_at) for held in team.items] == [(2, None)]
    clock.at(datetime(2026, 6, 26, tzinfo=UTC))
    token = enter(session.get_one(Organization, team.organization_id))
    ended = send(client, token, f"/items/{item.id}", when="now", act="end").headers["Location"]
    assert shown_total(client.get(ended).text) == "10.00"
    assert "Credit to your account" in client.get(ended).text
    client.post(ended, data={"csrf_token": token, "idempotency_key": "end-support"})
    assert "Add Support" in client.get("/portal/plan").text
    assert issued(session, team, JULY).total_minor == 10_000
    assert invoice_now(session, team, JULY) is None


def test_the_minimum_of_another_plan_is_kept(client: FlaskClient, session: Session, team: Subscription, token: str) -> None:
    solo = send(client, token, "/change", plan="solo", when="now").headers["Location"]
    client.post(solo, data={"csrf_token": token, "idempotency_key": "to-solo-now"})
    offer(session, "crew", base_price="5.00", prices=[{**SEATS, "quantity_min": "9"}])
    refused = send(client, token, "/change", plan="crew", when="now")
    assert (refused.status_code, "at least 9" in refused.text) == (422, True)
    assert client.get("/portal/plan/change?plan=crew").text.count('value="9"') == 1
