"""Price simulations in the browser: from the form and from the price editor, sums, winners and losers, CSV."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core.catalog.models import PlanVersion
from core.identity.models import OperatorRole
from core.invoicing import simulation
from tests.conftest import Clock
from tests.factories import make_metric, make_organization, make_plan, make_subscription, use
from tests.people import make_user, sign_in

SEPTEMBER = datetime(2026, 9, 10, tzinfo=UTC)


@pytest.fixture
def version(session: Session, clock: Clock) -> PlanVersion:
    """A plan of 100.00 and 0.01 a call; one customer called 20,000 times in July, the other never."""
    clock.at(SEPTEMBER)
    metric = make_metric(session, "calls")
    made = make_plan(session, prices=[(metric, {"model": "per_unit", "unit_price": "0.01"})])
    for name, calls in (("Halden Robotics AG", 20_000), ("Papermoon Studio SL", 0)):
        organization = make_organization(session, name=name)
        make_subscription(session, organization, made)
        use(session, organization, metric, datetime(2026, 7, 9, tzinfo=UTC), calls)
    return made


def finish(session: Session, address: str) -> None:
    while simulation.run_set(session, address.rpartition("/")[2], at=SEPTEMBER):  # type: ignore[arg-type]
        pass


def test_the_form_starts_one_and_the_page_shows_who_wins(client: FlaskClient, session: Session, version: PlanVersion) -> None:
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.FINANCE), site="admin")
    dearer = make_plan(session, base_price="50.00", prices=[(version.rules[1].metric, {"model": "per_unit", "unit_price": "0.02"})])
    form = {"csrf_token": token, "idempotency_key": "simulate-dearer", "version": str(dearer.id), "periods": "3", "plan": version.plan.code}
    refused = client.post("/admin/simulations", data={**form, "periods": "99", "accounts": "nobody-known"})
    assert refused.status_code == 422
    assert 'value="nobody-known"' in refused.text
    started = client.post("/admin/simulations", data=form)
    assert (started.status_code, client.post("/admin/simulations", data=form).location) == (303, started.location)
    assert "0 of 2 subscriptions simulated" in client.get(started.location).text
    finish(session, started.location)
    shown = client.get(started.location).text
    assert shown.index("Halden Robotics AG") < shown.index("Papermoon Studio SL")
    assert "€800.00" in shown
    assert "€700.00" in shown
    assert "1 would have paid less, 1 more" in shown
    lines = client.get(f"{started.location}/rows.csv").get_data(as_text=True).splitlines()
    assert [line.split(",")[5:9] for line in lines[1:]] == [
        ["500.00", "550.00", "50.00", "10.00"],
        ["300.00", "150.00", "-150.00", "-50.00"],
    ]
    assert client.get(f"{started.location}/progress").status_code == 303
    assert "Finished" in client.get("/admin/simulations").text


def test_the_editor_simulates_what_is_typed_and_publishes_nothing(client: FlaskClient, session: Session, version: PlanVersion) -> None:
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.CATALOG_ADMIN), site="admin")
    typed = {"code": version.plan.code, "name": "Half", "currency": "EUR", "base_price": "50", "billing_period": "month"}
    form = {"csrf_token": token, "idempotency_key": "simulate-typed", "act": "simulate", **typed, "trial_period_days": "0"}
    started = client.post("/admin/catalog/versions", data=form)
    assert started.status_code == 303, started.text
    finish(session, started.location)
    shown = client.get(started.location).text
    assert "Half, not published" in shown
    assert "€300.00" in shown
    assert len(client.get(f"/admin/catalog/plans/{version.plan.code}").text.split("Version 2")) == 1


def test_support_reads_and_does_not_start(client: FlaskClient, session: Session, version: PlanVersion) -> None:
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.SUPPORT), site="admin")
    assert "New simulation" not in client.get("/admin/simulations").text
    assert client.post("/admin/simulations", data={"csrf_token": token}).status_code == 403
