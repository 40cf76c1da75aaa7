"""Price simulations through the API: a draft document and a published version, sums, rows page by page, refusals."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import Session

from core.invoicing import simulation
from tests.api.conftest import Api, plan_body
from tests.conftest import Clock
from tests.factories import make_organization, make_plan, make_subscription
from tests.people import bearer, make_key

SEPTEMBER = datetime(2026, 9, 10, tzinfo=UTC)
PATH = "/billing/price-simulations"


@pytest.fixture
def customers(session: Session, clock: Clock) -> list[str]:
    """Three customers of a plan of 100.00, on 10 September; the third has four of them."""
    clock.at(SEPTEMBER)
    version = make_plan(session)
    return [str(make_subscription(session, make_organization(session), version, quantity=q).organization_id) for q in (1, 1, 4)]


def test_a_document_nobody_has_published_is_simulated(api: Api, session: Session, customers: list[str]) -> None:
    document = plan_body("dearer", base_price="120.00")
    made = api.post(PATH, {"document": document, "segment": {"currency": "EUR"}, "periods": 2})
    assert made.status_code == 202, made.text
    begun = made.get_json()
    assert (begun["status"], begun["subscriptions_total"], begun["plan"], begun["version"]) == ("running", 3, "dearer", None)
    while simulation.run_set(session, begun["id"], at=SEPTEMBER):
        pass
    done = api.get(f"{PATH}/{begun['id']}").get_json()
    [totals] = done["totals"]
    assert (done["status"], done["subscriptions_done"]) == ("done", 3)
    assert (totals["billed"], totals["simulated"], totals["difference"], totals["difference_percent"]) == (
        "600.00", "720.00", "120.00", "20",
    )  # fmt: skip
    assert {band["change"]: band["subscriptions"] for band in totals["bands"] if band["subscriptions"]} == {"5 to 20 % more": 3}
    first = api.get(f"{PATH}/{begun['id']}/rows", limit=2).get_json()
    rest = api.get(f"{PATH}/{begun['id']}/rows", limit=2, cursor=first["next_cursor"]).get_json()
    assert sorted(row["organization_id"] for row in [*first["data"], *rest["data"]]) == sorted(customers)
    assert api.get("/billing/plans/dearer").status_code == 404


def test_a_published_version_for_one_account(api: Api, session: Session, customers: list[str]) -> None:
    code = api.made("/billing/plans", plan_body("cheap", base_price="40.00"))["code"]
    begun = api.post(PATH, {"plan": code, "segment": {"organizations": [customers[2]]}}).get_json()
    while simulation.run_set(session, begun["id"], at=SEPTEMBER):
        pass
    [row] = api.get(f"{PATH}/{begun['id']}/rows").get_json()["data"]
    assert (row["organization_id"], row["billed"], row["simulated"], row["difference_percent"]) == (
        customers[2], "300.00", "120.00", "-60",
    )  # fmt: skip


def test_what_cannot_be_simulated_is_said_where_it_stands(api: Api, session: Session, customers: list[str]) -> None:
    def pointers(body: dict[str, object]) -> list[str]:
        answer = api.post(PATH, body)
        assert answer.status_code == 422, answer.text
        return [error["pointer"] for error in answer.get_json()["errors"]]

    wrong = plan_body("x", prices=[{"metric": "nothing", "model": "per_unit", "unit_price": "1"}])
    assert pointers({"document": wrong}) == ["/document/prices/0/metric"]
    assert pointers({}) == ["/plan"]
    assert pointers({"plan": "nothing"}) == ["/plan"]
    assert pointers({"document": plan_body("x"), "segment": {"plan": "nothing"}}) == ["/segment/plan"]
    assert pointers({"document": plan_body("x", currency="JPY", base_price="100")}) == ["/segment"]
    bound = bearer(make_key(session, make_organization(session)))
    assert api.client.post(f"/api/v1{PATH}", json={"document": plan_body("x")}, headers=bound).status_code == 403
