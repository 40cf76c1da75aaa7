"""Seats, add-ons, coupons and commitments through the API alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.api.conftest import Api, organization_body, plan_body
from tests.conftest import Clock

SEATS = {"licensed": "seats", "model": "per_unit", "unit_price": "10"}


@pytest.fixture
def customer(api: Api, clock: Clock) -> str:
    """A customer in UTC on 1 June."""
    clock.at(datetime(2026, 6, 1, tzinfo=UTC))
    api.made("/billing/organizations", organization_body(external_id="crm-1", tax_rate_percent="0", timezone="UTC"))
    return "crm-1"


def test_seats_are_sold_changed_for_a_quoted_amount_and_explained(api: Api, clock: Clock, customer: str) -> None:
    api.made("/billing/plans", plan_body("team", prices=[SEATS]))
    body = {"organization_id": customer, "plan": "team", "quantities": {"seats": "5"}}
    started = api.made("/billing/subscriptions", body)
    assert started["quantities"] == {"seats": "5"}
    first = api.made("/billing/invoices", {"subscription_id": started["id"]})
    api.made(f"/billing/invoices/{first['id']}/finalization", None)

    clock.at(datetime(2026, 6, 16, tzinfo=UTC))
    path = f"/billing/subscriptions/{started['id']}/plan-change"
    quote = api.made(path, {"quantities": {"seats": "8"}, "preview": True})["quote"]
    assert [(line["code"], line["amount"]) for line in quote["lines"]] == [("seats", "15.00")]
    done = api.made(path, {"quote_id": quote["id"]})
    assert (done["invoice"]["total"], done["subscription"]["quantities"]) == ("15.00", {"seats": "8"})
    detail = quote["lines"][0]["detail"]
    assert [(part["quantity"], part["fraction"], part["amount"]) for part in detail["parts"]] == [("5", "1/2", "25"), ("8", "1/2", "40")]

    wrong = api.post(path, {"quantities": {"seets": "1"}}).get_json()
    assert wrong["errors"] == [{"pointer": "/quantities/seets", "detail": 'Plan has no price for "seets"; did you mean seats?'}]


def test_an_add_on_and_a_coupon_are_attached_changed_and_taken_away(api: Api, clock: Clock, customer: str) -> None:
    api.made("/billing/plans", plan_body("team"))
    api.made("/billing/plans", plan_body("support", kind="add_on", base_price="30"))
    off = [{"code": "off", "model": "discount", "percent_off": "10"}]
    api.made("/billing/plans", plan_body("launch", kind="coupon", base_price="0", duration_cycles=3, prices=off))
    refused = api.post("/billing/subscriptions", {"organization_id": customer, "plan": "support"})
    assert refused.get_json()["errors"][0]["pointer"] == "/plan"
    started = api.made("/billing/subscriptions", {"organization_id": customer, "plan": "team"})
    path = f"/billing/subscriptions/{started['id']}/items"
    coupon = api.made(path, {"plan": "launch"})
    assert (coupon["kind"], coupon["start_at"], coupon["end_at"]) == ("coupon", "2026-06-01T00:00:00Z", "2026-09-01T00:00:00Z")
    assert api.post(path, {"plan": "launch"}).get_json()["code"] == "already_attached"
    support = api.made(path, {"plan": "support", "quantity": "2"})
    drafted = api.made("/billing/invoices", {"subscription_id": started["id"]})
    assert [(line["code"], line["amount"]) for line in drafted["lines"]] == [("base", "100.00"), ("base", "60.00"), ("off", "-16.00")]

    clock.advance(days=1)
    changed = api.call("PATCH", f"{path}/{support['id']}", {"quantity": "3"}).get_json()
    assert (changed["quantity"], changed["id"] == support["id"]) == ("3", False)
    assert api.post(f"{path}", {"plan": "team"}).get_json()["errors"][0]["pointer"] == "/plan"
    left = api.call("DELETE", f"{path}/{changed['id']}").get_json()
    assert [item["plan"] for item in left["items"]] == ["launch"]
    assert api.call("PATCH", f"{path}/{support['id']}", {"quantity": "4"}).status_code == 409


def test_an_add_on_and_a_coupon_are_quoted_and_charged_as_quoted(api: Api, customer: str) -> None:
    api.made("/billing/plans", plan_body("team"))
    api.made("/billing/plans", plan_body("support", kind="add_on", base_price="30"))
    off = [{"code": "off", "model": "discount", "percent_off": "10"}]
    api.made("/billing/plans", plan_body("launch", kind="coupon", base_price="0", prices=off))
    started = api.made("/billing/subscriptions", {"organization_id": customer, "plan": "team"})
    path = f"/billing/subscriptions/{started['id']}"
    api.made("/billing/invoices", {"subscription_id": started["id"]})
    for wrong, pointer in (({}, "/plan"), ({"plan": "team"}, "/plan"), ({"plan": "support", "quantity": "0"}, "/quantity")):
        assert api.post(f"{path}/items/quote", wrong).get_json()["errors"][0]["pointer"] == pointer
    assert api.post(f"{path}/items/quote", {"item_id": started["id"]}).get_json()["errors"][0]["pointer"] == "/item_id"

    for given, lines in (
        ({"plan": "support", "quantity": "2"}, [("base", "60.00")]),
        ({"plan": "launch"}, [("off", "-16.00")]),
    ):
        quote = api.made(f"{path}/items/quote", given)
        assert [(line["code"], line["amount"]) for line in quote["lines"]] == lines
        done = api.made(f"{path}/plan-change", {"quote_id": quote["id"]})
        assert done["invoice"]["total"] == quote["total"]
    held = {item["plan"]: item for item in done["subscription"]["items"]}
    assert (held["support"]["quantity"], held["launch"]["end_at"]) == ("2", None)
    assert api.post(f"{path}/items/quote", {"item_id": held["launch"]["id"], "quantity": "3"}).status_code == 422
    ended = [api.made(f"{path}/items/quote", {"item_id": held[code]["id"], "quantity": "0"}) for code in ("support", "launch")]
    assert [quote["effective_at"] == started["current_period_end"] for quote in ended] == [False, True]
    assert [line["amount"] for line in ended[0]["lines"]] == ["-60.00", "6.00"]  # with the tenth that was taken off


def test_no_plan_bills_what_an_add_on_bills_already(api: Api, customer: str) -> None:
    api.made("/billing/metrics", {"code": "calls", "name": "Calls", "aggregation": "sum"})
    calls = [{"code": "calls", "metric": "calls", "model": "per_unit", "unit_price": "1"}]
    for code, given in (("plain", {}), ("metered", {"prices": calls}), ("more-calls", {"kind": "add_on", "prices": calls})):
        api.made("/billing/plans", plan_body(code, **given))
    started = api.made("/billing/subscriptions", {"organization_id": customer, "plan": "plain"})
    path = f"/billing/subscriptions/{started['id']}"
    attached = api.made(f"{path}/items", {"plan": "more-calls"})
    refused = api.post(f"{path}/plan-change", {"plan": "metered", "preview": True})
    assert (refused.status_code, refused.get_json()["code"]) == (409, "already_billed")
    api.call("DELETE", f"{path}/items/{attached['id']}")
    assert api.made(f"{path}/plan-change", {"plan": "metered", "preview": True})["quote"]["lines"]

    other = api.made("/billing/subscriptions", {"organization_id": customer, "plan": "metered"})
    path = f"/billing/subscriptions/{other['id']}"
    api.made(f"{path}/plan-change", {"plan": "plain", "when": "period_end"})
    api.made(f"{path}/items", {"plan": "more-calls", "when": "period_end"})
    refused = api.call("DELETE", f"{path}/plan-change")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "already_billed")


def test_an_agreement_has_its_own_prices_phases_and_term(api: Api, clock: Clock, customer: str) -> None:
    api.made("/billing/plans", plan_body("team", prices=[SEATS]))
    cheaper = [{"code": "seats", "licensed": "seats", "model": "per_unit", "unit_price": "7.50"}]
    body = {
        "organization_id": customer,
        "plan": "team",
        "quantities": {"seats": "10"},
        "overrides": {"base_price": "80", "prices": cheaper},
        "phases": [{"start_at": "2026-09-01", "overrides": {"base_price": "90"}, "quantities": {"seats": "20"}}],
        "contract": {"interval": "year", "notice_days": 30},
    }
    wrong = api.post("/billing/subscriptions", {**body, "phases": [{"start_at": "2026-05-01", "quantity": "2"}]}).get_json()
    assert [error["pointer"] for error in wrong["errors"]] == ["/phases/0/start_at"]
    started = api.made("/billing/subscriptions", body)
    assert started["contract"]["ends_at"] == "2027-06-01T00:00:00Z"
    assert started["scheduled_change"]["quantities"] == {"seats": "20"}
    drafted = api.made("/billing/invoices", {"subscription_id": started["id"]})
    assert [(line["code"], line["amount"]) for line in drafted["lines"]] == [("base", "80.00"), ("seats", "75.00")]
    plan = api.get("/billing/plans/team").get_json()
    assert [version["status"] for version in plan["versions"]] == ["live"]  # what was agreed is nobody else's to see

    other = api.made("/billing/organizations", organization_body(external_id="crm-2", timezone="UTC"))
    foreign = api.post("/billing/subscriptions", {"organization_id": other["id"], "plan": started["plan"]["version_id"]})
    assert foreign.get_json()["errors"] == [{"pointer": "/plan", "detail": "There is no such plan version."}]
    path = f"/billing/subscriptions/{started['id']}/cancellation"
    assert api.post(path, {"when": "now"}).get_json()["code"] == "under_contract"
    assert api.made(path, {})["ends_at"] == "2027-06-01T00:00:00Z"


def test_credit_is_granted_listed_and_used(api: Api, customer: str) -> None:
    body = {"organization_id": customer, "amount": "25.00", "name": "Goodwill", "expires_at": "2026-12-01T00:00:00Z"}
    assert api.post("/billing/credits", {**body, "amount": "0.001"}).get_json()["errors"][0]["pointer"] == "/amount"
    assert api.post("/billing/credits", {**body, "expires_at": "2026-01-01T00:00:00Z"}).get_json()["errors"][0]["pointer"] == "/expires_at"
    granted = api.made("/billing/credits", body)
    assert (granted["amount"], granted["remaining"], granted["priority"]) == ("25.00", "25.00", 50)
    api.made("/billing/plans", plan_body("team"))
    started = api.made("/billing/subscriptions", {"organization_id": customer, "plan": "team"})
    drafted = api.made("/billing/invoices", {"subscription_id": started["id"]})
    final = api.made(f"/billing/invoices/{drafted['id']}/finalization", None)
    assert (final["total"], final["amount_due"]) == ("100.00", "75.00")
    assert [row["remaining"] for row in api.get("/billing/credits", organization_id=customer).get_json()["data"]] == ["0.00"]


@pytest.mark.parametrize(
    ("price", "pointer"),
    [
        ({**SEATS, "included": "5"}, "/prices/0/included"),
        ({**SEATS, "billing_period": "week"}, "/prices/0/billing_period"),
        ({**SEATS, "licensed": "two words"}, "/prices/0/licensed"),
        ({"code": "minimum", "model": "commitment"}, "/prices/0/amount"),
        ({"code": "minimum", "model": "commitment", "amount": "100", "covers": ["cals"]}, "/prices/0/covers"),
        ({"code": "off", "model": "discount", "percent_off": "120"}, "/prices/0/percent_off"),
        ({"code": "off", "model": "discount", "percent_off": "10", "amount_off": "1"}, "/prices/0"),
        ({"code": "off", "model": "discount", "tiers": [{"up_to": None, "percent": "1"}]}, "/prices/0/tiers/0/percent"),
    ],
)
def test_a_wrong_condition_is_named_with_its_pointer(api: Api, price: dict[str, object], pointer: str) -> None:
    answer = api.post("/billing/plans", plan_body("wrong", prices=[price]))
    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.get_json()["errors"]]
