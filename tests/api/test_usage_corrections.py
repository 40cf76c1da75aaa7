"""Voiding and amending events over HTTP: what it changes is said before it is done, and billed once it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.identity.models import Organization
from core.invoicing import draft, finalize
from core.invoicing.models import Invoice, InvoiceLine
from core.metering import queries
from core.metering.models import Metric
from core.subscriptions import lifecycle
from core.subscriptions.models import Subscription
from tests.api.conftest import Api
from tests.conftest import Clock
from tests.factories import make_organization, make_plan
from tests.metering.stored import Store
from tests.people import make_key

BEGIN = datetime(2026, 4, 1, tzinfo=UTC)
MAY_10 = datetime(2026, 5, 10, 12, tzinfo=UTC)
WHY = "The meter ran twice that day."
EVENTS = "/billing/usage/events"


@pytest.fixture
def metric(session: Session) -> Metric:
    """What is billed: 0.50 for each."""
    return Store(session, event_name="calls").metric("sum")


@pytest.fixture
def customer(session: Session, metric: Metric, clock: Clock) -> Organization:
    """Billed for April and May, on the 3rd of June; May has three events."""
    organization = make_organization(session, timezone="UTC", external_id="known")
    plan = make_plan(session, base_price="10.00", prices=[(metric, {"model": "per_unit", "unit_price": "0.50"})])
    lifecycle.start(session, organization.id, plan=plan.plan.code, at=BEGIN, actor=SYSTEM, trial_period_days=0)
    store = Store(session, event_name="calls", metrics=[metric])
    store.count(organization, [(MAY_10 + timedelta(days=n), {"quantity": str(10 * (n + 1))}) for n in range(3)])
    for month in (4, 5, 6):
        _bill(session, organization, datetime(2026, month, 1, tzinfo=UTC))
    clock.at(datetime(2026, 6, 3, tzinfo=UTC))
    return organization


def _bill(session: Session, organization: Organization, at: datetime) -> dict[str, int]:
    """Bill and issue; the lines by code."""
    ids = list(session.scalars(select(Subscription.id).where(Subscription.organization_id == organization.id)))
    draft.bill_many(session, ids, as_of=at, actor=SYSTEM)
    open_ = select(Invoice.id).where(Invoice.organization_id == organization.id, Invoice.status == "draft")
    drafts = list(session.scalars(open_))
    finalize.finalize_many(session, drafts, at=at + timedelta(hours=6), actor=SYSTEM)
    lines = session.scalars(select(InvoiceLine).where(InvoiceLine.invoice_id.in_(drafts)))
    return {f"{line.code.partition('-')[0]} {line.kind}": line.amount_minor for line in lines}


def _quantity(session: Session, organization: Organization, metric: Metric) -> Decimal:
    asked = (organization.id, metric.id, BEGIN, MAY_10 + timedelta(days=30))
    return queries.usage_sums(session, [asked])[asked]


def test_a_void_event_of_a_billed_month_is_credited_by_the_next_invoice(
    api: Api, session: Session, customer: Organization, metric: Metric
) -> None:
    body = {"organization_id": "known", "idempotency_key": "1-1", "reason": WHY}
    trial = api.made(f"{EVENTS}/void", {**body, "dry_run": True})
    assert _quantity(session, customer, metric) == 60
    assert api.get("/billing/usage/corrections", organization_id="known").get_json()["data"] == []
    done = api.made(f"{EVENTS}/void", body)
    assert trial["changes"] == done["changes"]
    (change,) = done["changes"]
    assert (change["before"], change["after"], change["adjusts"]) == ("30.00", "20.00", True)
    assert change["cycle_start"] == "2026-05-01T00:00:00Z"
    assert _quantity(session, customer, metric) == 40
    assert _bill(session, customer, datetime(2026, 7, 1, tzinfo=UTC)) == {"base charge": 1000, "sum credit": -1000, "sum charge": 0}
    (kept,) = api.get("/billing/usage/corrections", organization_id="known", idempotency_key="1-1").get_json()["data"]
    assert kept == done["correction"]
    assert (kept["before"]["quantity"], kept["after"]) == ("20", None)
    assert api.post(f"{EVENTS}/void", body).status_code == 409


def test_an_amended_event_moves_to_another_month(api: Api, session: Session, customer: Organization, metric: Metric) -> None:
    new = {"timestamp": "2026-06-02T00:00:00+02:00", "quantity": "12.5"}
    done = api.made(f"{EVENTS}/amend", {"organization_id": "known", "idempotency_key": "1-2", "reason": WHY, **new})
    assert [(one["before"], one["after"], one["adjusts"]) for one in done["changes"]] == [("30.00", "15.00", True), ("0.00", "6.25", False)]
    assert done["correction"]["after"] == {"timestamp": "2026-06-01T22:00:00Z", "quantity": "12.5", "properties": {"quantity": "30"}}
    (event,) = api.get(EVENTS, organization_id="known", idempotency_key="1-2").get_json()["data"]
    assert event["quantity"] == "12.5"
    assert event["timestamp"] == "2026-06-01T22:00:00Z"


def test_what_is_refused(api: Api, session: Session, customer: Organization, metric: Metric, clock: Clock) -> None:
    body: dict[str, Any] = {"organization_id": "known", "idempotency_key": "1-0", "reason": WHY}
    assert api.post(f"{EVENTS}/void", {**body, "idempotency_key": "nobody's"}).status_code == 404
    assert api.post(f"{EVENTS}/void", {**body, "reason": "short"}).get_json()["errors"][0]["pointer"] == "/reason"
    refused = api.post(f"{EVENTS}/amend", {**body, "quantity": "-3"})
    assert (refused.status_code, refused.get_json()["errors"][0]["pointer"]) == (422, "/quantity")
    own = Api(api.client, make_key(session, customer))
    assert own.post(f"{EVENTS}/void", {key: body[key] for key in ("idempotency_key", "reason")}).status_code == 403
    clock.at(datetime(2026, 9, 20, tzinfo=UTC))
    for month in (7, 8, 9):
        _bill(session, customer, datetime(2026, month, 1, tzinfo=UTC))
    late = api.post(f"{EVENTS}/void", body)
    assert (late.status_code, late.get_json()["code"]) == (409, "period_closed")
    assert _quantity(session, customer, metric) == 60


def test_a_file_of_last_month_is_staged_tried_applied_billed_and_taken_back(
    api: Api, session: Session, customer: Organization, metric: Metric
) -> None:
    files = "/billing/usage/backfills"
    table = "event_name,idempotency_key,timestamp,quantity\n" + "".join(f"calls,f-{n},2026-05-2{n}T08:30:00Z,100\n" for n in range(2))
    about = {"organization_id": "known", "file_name": "may.csv", "reason": "The collector was down."}
    headers = {"Authorization": f"Bearer {api.token}"}

    def upload(content: str, media: str = "text/csv", **given: Any) -> Any:
        query = {**about, **given}
        return api.client.post(f"/api/v1{files}", query_string=query, data=content, content_type=media, headers=headers)

    staged = upload(table)
    assert (staged.status_code, staged.get_json()["events"], staged.get_json()["status"]) == (201, 2, "staged")
    address = f"{files}/{staged.get_json()['id']}"
    trial = api.made(f"{address}/apply", {"dry_run": True})
    assert _quantity(session, customer, metric) == 60
    done = api.made(f"{address}/apply", {})
    for name in ("events", "known", "hours", "changes"):
        assert trial[name] == done[name]
    assert [(one["hour"], one["before"], one["after"]) for one in done["hours"]] == [
        (f"2026-05-2{n}T08:00:00Z", "0", "100") for n in range(2)
    ]
    assert [(one["before"], one["after"], one["adjusts"]) for one in done["changes"]] == [("30.00", "130.00", True)]
    (of_file,) = api.get(EVENTS, organization_id="known", start_date="2026-05-01", idempotency_key="f-1").get_json()["data"]
    assert [(one["metric_name"], one["cycle_start"], one["adjusts"]) for one in of_file["late"]] == [
        (metric.code, "2026-05-01T00:00:00Z", True)
    ]
    assert all(one["invoice_number"] for one in of_file["late"])
    assert _bill(session, customer, datetime(2026, 7, 1, tzinfo=UTC))["sum adjustment"] == 10000
    undone = api.made(f"{address}/revert", {"reason": "It was the wrong file."})
    assert (undone["events"], undone["keys_released"], undone["backfill"]["status"]) == (2, True, "reverted")
    assert _quantity(session, customer, metric) == 60
    assert [row["status"] for row in api.get(files, organization_id="known").get_json()["data"]] == ["reverted"]
    faulty = upload("event_name,idempotency_key,timestamp\ncalls,g,2026-05-20T08:30:00Z\nclals,h,2026-05-20T08:30:00Z\n").get_json()
    assert [(one["line"], one["detail"]) for one in faulty["faults"]] == [(3, "No metric reads events named clals. Did you mean calls?")]
    assert api.post(f"{files}/{faulty['id']}/apply", {}).get_json()["code"] == "faulty_lines"
    assert api.made(f"{files}/{faulty['id']}/discard", {})["status"] == "discarded"
    old = upload('{"event_name":"calls","idempotency_key":"old","timestamp":"2026-03-31T08:00:00Z"}', "application/x-ndjson").get_json()
    assert api.post(f"{files}/{old['id']}/apply", {}).status_code == 200, "before the subscription began no price holds"
    assert upload(table, "text/plain").status_code == 415
    assert upload("no,such,columns\n1,2,3").status_code == 422
    assert upload(table, organization_id="nobody").status_code == 404
