"""Every act on a subscription through the API, with what it would cost asked before."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core.identity.models import Organization
from tests.api.conftest import Api, organization_body, plan_body
from tests.conftest import Clock
from tests.people import make_key


def subscribed(api: Api, code: str, **given: Any) -> tuple[str, str]:
    """A customer with a subscription to a plan of 100.00 in advance, invoiced; (organization id, address of the subscription)."""
    customer = api.made("/billing/organizations", organization_body(timezone="UTC", tax_rate_percent="0"))
    api.made("/billing/plans", plan_body(code, **given.pop("plan_fields", {})))
    started = api.made("/billing/subscriptions", {"organization_id": customer["id"], "plan": code, **given})
    address = f"/billing/subscriptions/{started['id']}"
    drafted = api.made("/billing/invoices", {"subscription_id": started["id"]})
    api.made(f"/billing/invoices/{drafted['id']}/finalization", None)
    return customer["id"], address


def test_acts_and_their_previews(api: Api, client: FlaskClient, session: Session, clock: Clock) -> None:
    customer, address = subscribed(api, "acts", billing_anchor="calendar", start_at="2026-06-01T00:00:00Z")
    assert api.get(address).get_json()["possible_acts"] == ["change_plan", "pause", "suspend", "cancel"]
    shown = api.get(f"{address}/act-preview", act="pause").get_json()
    assert shown["total"].startswith("-")
    assert [line["code"] for line in shown["lines"]] == ["base"]

    assert api.made(f"{address}/pause", {"reason": "Summer"})["status"] == "paused"
    refused = api.post(f"{address}/suspension", {})
    assert (refused.status_code, refused.get_json()["code"]) == (409, "invalid_transition")
    assert "Possible now: resume, cancel" in refused.get_json()["detail"]
    assert api.get(f"{address}/act-preview", act="pause").status_code == 409
    assert api.call("DELETE", f"{address}/pause").get_json()["status"] == "active"

    suspended = api.made(f"{address}/suspension", {"reason": "Chargeback fraud"})
    assert (suspended["status"], suspended["suspension_cause"]) == ("suspended", "operator")
    own = Api(client, make_key(session, session.get_one(Organization, customer)))
    assert own.call("DELETE", f"{address}/suspension").status_code == 403
    assert api.call("DELETE", f"{address}/suspension").get_json()["status"] == "active"

    assert api.made(f"{address}/cancellation", {"when": "now"})["possible_acts"] == ["reactivate"]
    back = api.made(f"{address}/reactivation", {"reason": "A mistake"})
    assert (back["status"], back["ends_at"]) == ("active", None)


def test_a_quote_is_confirmed_as_it_stands_and_may_hold_from_a_day_behind(
    api: Api, client: FlaskClient, session: Session, clock: Clock
) -> None:
    customer, address = subscribed(api, "small", billing_anchor="calendar", start_at="2026-06-01T00:00:00Z")
    api.made("/billing/plans", plan_body("large", base_price="200.00"))
    own = Api(client, make_key(session, session.get_one(Organization, customer)))
    behind = {"plan": "large", "when": "2026-06-01", "preview": True}
    assert own.post(f"{address}/plan-change", behind).status_code == 422
    quote = api.made(f"{address}/plan-change", behind)["quote"]
    assert (quote["total"], quote["billed"], sorted(line["amount"] for line in quote["lines"])) == ("100.00", "now", ["-100.00", "200.00"])
    done = own.made(f"{address}/plan-change", {"quote_id": quote["id"]})
    assert (done["invoice"]["total"], done["subscription"]["plan"]["code"]) == ("100.00", "large")


def test_how_a_subscription_may_start(api: Api, clock: Clock) -> None:
    fields = {"trial_period_days": 7, "trial_end_without_method": "pause", "proration": "fixed_30", "credit_policy": "next_invoice"}
    customer = api.made("/billing/organizations", organization_body(timezone="UTC"))
    version = api.made("/billing/plans", plan_body("tried", **fields))["versions"][0]
    assert {name: version[name] for name in fields} == fields
    body = {"organization_id": customer["id"], "plan": "tried", "billing_day": 31}
    started = api.made("/billing/subscriptions", body)
    assert (started["status"], started["billing_day"], started["trial_end_without_method"]) == ("trialing", 31, "pause")
    other = api.made("/billing/organizations", organization_body())
    api.made("/billing/plans", plan_body("weekly", billing_period="week"))
    wrong = api.post("/billing/subscriptions", {"organization_id": other["id"], "plan": "weekly", "billing_day": 3})
    assert (wrong.status_code, wrong.get_json()["errors"][0]["pointer"]) == (422, "/billing_day")
    for period, count in (("quarterly", 1), ("half_year", 1), ("annual", 2), ("day", 10)):
        api.made("/billing/plans", plan_body(f"every-{period}", billing_period=period, interval_count=count))


def test_other_plans_on_the_last_periods(api: Api, clock: Clock) -> None:
    _, address = subscribed(api, "held", start_at="2026-05-20T00:00:00Z")
    api.made("/billing/plans", plan_body("yearly", base_price="730.00", billing_period="year"))
    found = api.get(f"{address}/what-if", plans="yearly,held").get_json()
    assert [cost["plan"] for cost in found["plans"]] == ["yearly", "held"]
    assert len(found["own"]["amounts"]) == len(found["periods"]) <= 3
    assert api.get(f"{address}/what-if", plans="nothing-like-it").status_code == 422
