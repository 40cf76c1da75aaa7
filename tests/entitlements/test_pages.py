"""Limits through the doors: the API, the customer's page, the operator's page."""

from __future__ import annotations

import uuid

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core.identity.models import OperatorRole, Organization, Role
from core.identity.permissions import Scope
from core.metering.models import Metric
from tests.conftest import Clock
from tests.factories import make_metric, make_organization, make_plan, make_subscription, use
from tests.people import bearer, make_key, make_member, make_user, sign_in

API = "/api/v1"


@pytest.fixture
def calls(session: Session, clock: Clock) -> Metric:
    return make_metric(session, "calls")


@pytest.fixture
def customer(session: Session, calls: Metric, clock: Clock) -> Organization:
    organization = make_organization(session)
    prices = [(calls, {"model": "per_unit", "unit_price": "0.10"})]
    make_subscription(session, organization, make_plan(session, prices=prices, limits={calls.code: 1000}, features={"sso": True}))
    use(session, organization, calls, clock.now(), 90)
    return organization


def test_a_product_asks_holds_and_gives_back(client: FlaskClient, session: Session, customer: Organization, calls: Metric) -> None:
    headers = bearer(make_key(session, customer))

    def check(**query: str) -> dict[str, object]:
        answer = client.get(f"{API}/entitlements/check", query_string=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json or {})

    found = check(metric=calls.code, quantity="910")
    assert (found["allowed"], found["reason"], found["limit"], found["used"], found["remaining"], found["window"], found["resets_at"]) == (
        True, "within_limit", "1000", "90", "910", "monthly", "2026-07-01T00:00:00Z",
    )  # fmt: skip
    assert check(metric=calls.code, quantity="910.5")["allowed"] is False
    assert (check(feature="sso")["allowed"], check(feature="saml")["allowed"]) == (True, False)
    for query in ({}, {"metric": calls.code, "feature": "sso"}, {"metric": calls.code, "quantity": "-1"}):
        assert client.get(f"{API}/entitlements/check", query_string=query, headers=headers).status_code == 422

    held = client.post(f"{API}/entitlements/consume", json={"metric": calls.code, "quantity": 900, "key": "job-1"}, headers=headers)
    assert held.json is not None
    assert (held.status_code, held.json["allowed"], held.json["remaining"], held.json["expires_at"]) == (
        200,
        True,
        "10",
        "2026-06-15T12:05:00Z",
    )
    refused = client.post(f"{API}/entitlements/consume", json={"metric": calls.code, "quantity": "11", "key": "job-2"}, headers=headers)
    assert refused.json is not None
    assert (refused.json["allowed"], refused.json["reason"], refused.json["expires_at"]) == (False, "limit_reached", None)
    again = client.post(f"{API}/entitlements/consume", json={"metric": calls.code, "quantity": "1", "key": "job-1"}, headers=headers)
    assert (again.status_code, again.json and again.json["code"]) == (409, "reservation_mismatch")
    assert client.delete(f"{API}/entitlements/reservations/job-1", headers=headers).status_code == 204
    assert client.delete(f"{API}/entitlements/reservations/job-1", headers=headers).status_code == 404
    assert check(metric=calls.code)["remaining"] == "910"


def test_keys_set_what_is_theirs_to_set(client: FlaskClient, session: Session, customer: Organization, calls: Metric) -> None:
    own, platform = bearer(make_key(session, customer)), bearer(make_key(session, None))
    stranger = bearer(make_key(session, make_organization(session)))
    body = {"metric": calls.code, "limit": "50", "period": "daily", "action": "notify", "thresholds": [10]}
    answer = client.put(f"{API}/limits", json=body, headers=own)
    assert answer.json is not None
    mine = next(row for row in answer.json["limits"] if row["source"] == "customer")
    assert (mine["used"], mine["reached"], mine["resets_at"]) == ("90", True, "2026-06-16T00:00:00Z")
    answer = client.put(f"{API}/limits", json={"metric": calls.code, "limit": 5000, "organization_id": str(customer.id)}, headers=platform)
    assert answer.json is not None
    assert {row["source"] for row in answer.json["limits"]} == {"customer", "operator"}  # the plan's gave way
    theirs = next(row for row in answer.json["limits"] if row["source"] == "operator")
    assert client.delete(f"{API}/limits/{theirs['id']}", headers=own).status_code == 404
    for headers in (stranger, bearer(make_key(session, customer, scopes=[Scope.BILLING_READ]))):
        assert client.delete(f"{API}/limits/{mine['id']}", headers=headers).status_code in (403, 404)
    for path in (f"/entitlements/check?metric={calls.code}&organization_id={customer.id}", f"/limits?organization_id={customer.id}"):
        assert client.get(API + path, headers=stranger).status_code == 404

    answer = client.put(f"{API}/spend-caps", json={"amount": "150.00"}, headers=own)
    assert answer.json is not None
    [cap] = answer.json["caps"]
    assert (cap["spent"], cap["action"], cap["reached"], cap["currency"]) == ("209.00", "block", True, "EUR")
    for wrong in (
        {"amount": "0"},
        {"amount": "1.005"},
        {"amount": "-3"},
        {"amount": "5", "thresholds": [0]},
        {"amount": "5", "action": "stop"},
    ):
        assert client.put(f"{API}/spend-caps", json=wrong, headers=own).status_code == 422, wrong
    assert client.delete(f"{API}/spend-caps/{cap['id']}", headers=stranger).status_code == 404
    assert client.delete(f"{API}/spend-caps/{cap['id']}", headers=own).status_code == 204
    feature = {"value": True, "organization_id": str(customer.id)}
    assert client.put(f"{API}/entitlements/features/saml", json=feature, headers=own).status_code == 403
    assert client.put(f"{API}/entitlements/features/saml", json=feature, headers=platform).status_code == 200


def test_a_customer_sets_and_lifts_a_cap_on_the_page(client: FlaskClient, session: Session, customer: Organization, calls: Metric) -> None:
    token = sign_in(client, session, make_member(session, customer, Role.BILLING), customer)

    def send(path: str, **form: str) -> tuple[int, str]:
        answer = client.post(f"/portal/{path}", data={"csrf_token": token, **form}, follow_redirects=True)
        return answer.status_code, answer.text

    status, page = send("spend-caps", cap_amount="150.00", cap_action="block", cap_thresholds="50, 100")
    assert status == 200
    assert "The spend cap is set" in page
    assert "Spend cap is reached: new usage is refused since 15 Jun 2026, 12:00" in page
    assert "€59.00" in page  # what came in past it
    assert "Spend cap reached: new usage is refused" in client.get("/portal/").text
    status, page = send("spend-caps", cap_amount="15.005", cap_action="block", cap_thresholds="50")
    assert (status, "EUR has 2 decimals." in page, 'value="15.005"' in page) == (422, True, True)
    status, page = send("limits", metric=calls.code, value="80", period="monthly", action="notify", thresholds="80,x")
    assert (status, "Give percentages such as 50, 80, 100." in page) == (422, True)
    status, page = send("limits", metric=calls.code, value="80", period="monthly", action="notify", thresholds="80 %, 100")
    assert (status, "The limit is set" in page) == (200, True)
    status, page = send("spend-caps", cap_amount="500", cap_action="block", cap_thresholds="50, 100")
    assert (status, "new usage is refused since" in page) == (200, False)
    viewer = make_member(session, customer, Role.VIEWER)
    token = sign_in(client, session, viewer, customer)
    assert send("spend-caps", cap_amount="1", cap_action="block", cap_thresholds="50")[0] == 403


def test_an_operator_replaces_the_plans_limit(client: FlaskClient, session: Session, customer: Organization, calls: Metric) -> None:
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.FINANCE), site="admin")
    address = f"/admin/accounts/{customer.id}/limits"
    assert "sso <b>yes</b>" in client.get(address).text
    form = {"csrf_token": token, "metric": calls.code, "value": "90", "period": "monthly", "action": "block"}
    page = client.post(address, data=form, follow_redirects=True).text
    assert "refused now" in page
    assert client.post(address, data={**form, "value": "many"}).status_code == 422
    assert client.post(address, data={**form, "metric": "none"}).status_code == 422
    assert client.post(address, data={**form, "period": "yearly"}).status_code == 422
    assert client.post(f"{address}/{uuid.uuid4()}/removal", data=form).status_code == 404
