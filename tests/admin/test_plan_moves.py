"""A move of many subscriptions in the browser: preview, exceptions first, hold, move once, pause, take back."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import clock as core_clock
from core.audit import SYSTEM
from core.catalog.models import PlanVersion
from core.identity.models import OperatorRole
from core.invoicing import plan_move_results, plan_moves
from tests.conftest import Clock
from tests.factories import make_metric, make_organization, make_plan, make_subscription, use
from tests.people import make_user, sign_in

SEPTEMBER = datetime(2026, 9, 10, tzinfo=UTC)


@pytest.fixture
def versions(session: Session, clock: Clock) -> tuple[PlanVersion, PlanVersion]:
    """100.00 and a cent a call, and 131.00 and half a cent; one customer called 20,000 times in August, the other never."""
    clock.at(SEPTEMBER)
    metric = make_metric(session, "calls")
    old = make_plan(session, prices=[(metric, {"model": "per_unit", "unit_price": "0.01"})])
    for name, calls in (("Halden Robotics AG", 20_000), ("Papermoon Studio SL", 0)):
        organization = make_organization(session, name=name)
        make_subscription(session, organization, old)
        use(session, organization, metric, datetime(2026, 8, 9, tzinfo=UTC), calls)
    return old, make_plan(session, base_price="131.00", prices=[(metric, {"model": "per_unit", "unit_price": "0.005"})])


def finish(session: Session, address: str) -> UUID:
    move_id = UUID(address.rpartition("/")[2])
    while plan_moves.step(session, move_id, at=core_clock.now(), actor=SYSTEM):
        pass
    session.flush()
    return move_id


def test_a_move_is_previewed_reviewed_carried_out_and_taken_back(
    client: FlaskClient, session: Session, versions: tuple[PlanVersion, PlanVersion]
) -> None:
    old, new = versions
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.FINANCE), site="admin")
    form = {"csrf_token": token, "idempotency_key": "the-move-itself", "from_version": str(old.id), "to_version": str(new.id)}
    refused = client.post("/admin/moves", data={**form, "to_version": str(old.id), "when": "period_end", "increase_percent": "12"})
    assert refused.status_code == 422
    assert 'value="12"' in refused.text
    assert f"/admin/moves?version={old.id}" in client.get(f"/admin/catalog/plans/{old.plan.code}").text
    assert f'value="{old.id}" selected' in client.get(f"/admin/moves?version={old.id}").text
    started = client.post("/admin/moves", data={**form, "when": "period_end", "increase_percent": "12"})
    assert started.status_code == 303, started.text
    assert "0 of 2 subscriptions previewed" in client.get(started.location).text
    move_id = finish(session, started.location)
    shown = client.get(started.location).text
    assert shown.index("Papermoon Studio SL") < shown.index("Halden Robotics AG")
    assert "+31.00" in shown
    assert "−69.00" in shown
    first = plan_move_results.exceptions(session, move_id)[0]
    picked = {"csrf_token": token, "pick": str(first.subscription_id)}
    assert client.post(f"{started.location}/decisions", data={**picked, "do": "hold"}).status_code == 303
    assert "Move 1 subscription<" in client.get(started.location).text
    go = {"csrf_token": token, "idempotency_key": "carry-it-out"}
    assert [client.post(f"{started.location}/start", data=go).status_code for _ in range(2)] == [303, 303]
    assert "0 of 2 subscriptions moved" in client.get(f"{started.location}/progress", headers={"HX-Request": "true"}).text
    finish(session, started.location)
    assert "Take back 1" in client.get(started.location).text
    narrowed = client.get(f"{started.location}?show=held", headers={"HX-Request": "true"}).text
    assert "Papermoon" in narrowed
    assert "Halden" not in narrowed
    assert client.post(f"{started.location}/undo", data={"csrf_token": token, "idempotency_key": "take-it-back"}).status_code == 303
    finish(session, started.location)
    assert "Taken back" in client.get(started.location).text


def test_a_preview_of_yesterday_is_not_carried_out(
    client: FlaskClient, session: Session, clock: Clock, versions: tuple[PlanVersion, PlanVersion]
) -> None:
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.FINANCE), site="admin")
    form = {"csrf_token": token, "idempotency_key": "the-move-itself", "when": "now", "increase_percent": ""}
    started = client.post("/admin/moves", data={**form, "from_version": str(versions[0].id), "to_version": str(versions[1].id)})
    finish(session, started.location)
    clock.advance(hours=25)
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.FINANCE), site="admin")
    refused = client.post(f"{started.location}/start", data={"csrf_token": token, "idempotency_key": "carry-it-out"})
    assert refused.status_code == 409
    assert "make a new one" in refused.text


def test_billing_operations_preview_and_do_not_move(
    client: FlaskClient, session: Session, versions: tuple[PlanVersion, PlanVersion]
) -> None:
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.BILLING_OPS), site="admin")
    form = {
        "csrf_token": token,
        "idempotency_key": "the-move-itself",
        "from_version": str(versions[0].id),
        "to_version": str(versions[1].id),
    }
    started = client.post("/admin/moves", data=form | {"when": "date", "on": "2026-10-15"})
    finish(session, started.location)
    shown = client.get(started.location).text
    assert "Ask finance" in shown
    assert "15 Oct 2026" in shown
    assert client.post(f"{started.location}/start", data={"csrf_token": token}).status_code == 403
