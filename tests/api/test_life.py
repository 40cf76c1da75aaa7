"""A customer's whole life through the API alone."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.api.conftest import Api, organization_body, plan_body
from tests.conftest import Clock


def test_a_customer_subscribes_is_billed_pays_by_wire_and_leaves(api: Api, clock: Clock) -> None:
    customer = api.made("/billing/organizations", organization_body(external_id="crm-1", metadata={"tier": 1, "vip": True}))
    assert customer["tax_id_valid"] is False
    assert api.get("/billing/organizations/crm-1").get_json() == customer

    metric = api.made("/billing/metrics", {"code": "calls", "name": "API calls", "aggregation": "count", "unit": "call"})
    assert metric["event_name"] == "calls"
    plan = api.made("/billing/plans", plan_body("starter", prices=[{"metric": "calls", "model": "per_unit", "unit_price": "0.01"}]))
    assert (plan["version"], [price["code"] for price in plan["versions"][0]["prices"]]) == (1, ["base", "calls"])
    assert api.made("/billing/plans", plan_body("starter"))["version"] == 2

    started = api.made("/billing/subscriptions", {"organization_id": "crm-1", "plan": "starter", "billing_anchor": "calendar"})
    assert started["plan"]["version"] == 2
    assert started["status"] == "active"
    assert api.get(f"/billing/subscriptions/{started['id']}").get_json()["current_period_end"] == "2026-06-30T22:00:00Z"

    drafted = api.made("/billing/invoices", {"subscription_id": started["id"]})
    assert drafted["status"] == "draft"
    final = api.made(f"/billing/invoices/{drafted['id']}/finalization", None)
    assert final["status"] == "open"
    assert final["invoice_number"].startswith("INV-2026-")
    assert final["lines"][0]["code"] == "base"
    assert api.get("/billing/invoices", organization_id="crm-1").get_json()["data"][0]["amount_due"] == final["total"]

    paid = api.post(f"/billing/invoices/{final['id']}/payments", {"reference": "SEPA 4711"}, key="wire-1")
    assert paid.status_code == 201, paid.text
    settled = api.get(f"/billing/invoices/{final['id']}").get_json()
    assert (settled["status"], settled["amount_due"], [each["reference"] for each in settled["payments"]]) == (
        "paid",
        "0.00",
        ["SEPA 4711"],
    )

    ended = api.made(f"/billing/subscriptions/{started['id']}/cancellation", {"when": "now", "reason": "moved away"})
    assert ended["status"] == "canceled"
    again = api.post(f"/billing/subscriptions/{started['id']}/cancellation", {"when": "now"})
    assert again.status_code == 409


def test_a_one_off_invoice_is_written_rated_and_voided(api: Api) -> None:
    customer = api.made("/billing/organizations", organization_body(tax_rate_percent="19"))
    line = {"description": "Workshop", "quantity": "2", "unit_price": "450.005", "unit": "day"}
    drafted = api.made("/billing/invoices", {"organization_id": customer["id"], "line_items": [line], "memo": "Thank you"})
    assert (drafted["subtotal"], drafted["tax"], drafted["total"]) == ("900.01", "171.00", "1071.01")
    assert api.post(f"/billing/invoices/{drafted['id']}/void", {}).status_code == 409
    api.made(f"/billing/invoices/{drafted['id']}/finalization", None)
    assert api.made(f"/billing/invoices/{drafted['id']}/void", {"reason": "Wrong customer"})["status"] == "void"


def test_lists_are_paged_without_gap_or_repetition(api: Api) -> None:
    made = [api.made("/billing/organizations", organization_body(name=f"Paged {number}"))["id"] for number in range(7)]
    seen, cursor = [], None
    while True:
        page = api.get("/billing/organizations", search="Paged", limit=3, **({"cursor": cursor} if cursor else {})).get_json()
        seen += [row["id"] for row in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


def test_an_organization_changes_only_what_is_named(api: Api) -> None:
    customer = api.made("/billing/organizations", organization_body(tax_id="DE136695976"))
    assert customer["tax_id_valid"] is True
    answer = api.call("PATCH", f"/billing/organizations/{customer['slug']}", {"name": "Renamed AG", "tax_id": None, "metadata": {"a": "b"}})
    changed = answer.get_json()
    assert answer.status_code == 200
    kept = {name: value for name, value in customer.items() if name not in {"name", "tax_id", "tax_id_valid", "metadata", "updated_at"}}
    assert changed == {**changed, **kept, "name": "Renamed AG", "tax_id": None, "tax_id_valid": False, "metadata": {"a": "b"}}


def test_a_plan_change_costs_exactly_what_its_quote_said(api: Api, clock: Clock) -> None:
    api.made("/billing/plans", plan_body("starter"))
    api.made("/billing/plans", plan_body("pro", base_price="200.00"))
    api.made("/billing/organizations", organization_body(external_id="crm-1", tax_rate_percent="19", timezone="UTC"))
    clock.at(datetime(2026, 6, 1, tzinfo=UTC))
    started = api.made("/billing/subscriptions", {"organization_id": "crm-1", "plan": "starter", "billing_anchor": "calendar"})
    path = f"/billing/subscriptions/{started['id']}/plan-change"
    first = api.made("/billing/invoices", {"subscription_id": started["id"]})
    api.made(f"/billing/invoices/{first['id']}/finalization", None)

    clock.at(datetime(2026, 6, 16, tzinfo=UTC))
    preview = api.made(path, {"plan": "pro", "preview": True})
    assert [(line["code"], line["amount"]) for line in preview["quote"]["lines"]] == [("base", "-50.00"), ("base", "100.00")]
    assert (preview["quote"]["subtotal"], preview["quote"]["tax"], preview["quote"]["total"]) == ("50.00", "9.50", "59.50")
    assert preview["subscription"]["plan"]["code"] == "starter"

    clock.advance(minutes=10)
    body = {"quote_id": preview["quote"]["id"]}
    done = api.post(path, body, key="change-1")
    assert done.status_code == 200, done.text
    assert (done.get_json()["invoice"]["total"], done.get_json()["subscription"]["plan"]["code"]) == ("59.50", "pro")
    assert api.post(path, body, key="change-1").data == done.data
    assert len(api.get("/billing/invoices", subscription_id=started["id"]).get_json()["data"]) == 2

    late = api.made(path, {"plan": "starter", "preview": True})
    clock.advance(minutes=16)
    expired = api.post(path, {"quote_id": late["quote"]["id"]})
    assert (expired.status_code, expired.get_json()["code"]) == (409, "quote_expired")

    planned = api.made(path, {"plan": "starter", "when": "period_end"})
    assert planned["subscription"]["scheduled_change"]["effective_at"] == "2026-07-01T00:00:00Z"
    assert (planned["quote"]["total"], planned["invoice"]) == ("0.00", None)
    assert api.call("DELETE", path).get_json()["scheduled_change"] is None
