"""A move of many subscriptions through the API: preview, hold one back, move, take back, refusals."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.invoicing import plan_moves
from tests.api.conftest import Api
from tests.conftest import Clock
from tests.factories import make_metric, make_organization, make_plan, make_subscription
from tests.people import bearer, make_key

SEPTEMBER = datetime(2026, 9, 10, tzinfo=UTC)
PATH = "/billing/plan-moves"


def test_a_move_is_previewed_carried_out_and_taken_back(api: Api, session: Session, clock: Clock) -> None:
    clock.at(SEPTEMBER)
    old, new = (
        make_plan(session),
        make_plan(session, base_price="120.00", prices=[(make_metric(session), {"model": "per_unit", "unit_price": "1"})]),
    )
    held, moved = sorted(str(make_subscription(session, make_organization(session), old).id) for _ in range(2))
    body = {"from_version": str(old.id), "to_version": str(new.id), "when": "period_end"}
    begun = api.post(PATH, body)
    assert begun.status_code == 202, begun.text
    address = f"{PATH}/{begun.get_json()['id']}"
    assert api.post(f"{address}/acts", {"act": "move"}).status_code == 409

    def finish() -> dict[str, object]:
        while plan_moves.step(session, begun.get_json()["id"], at=SEPTEMBER, actor=SYSTEM):
            pass
        return api.get(address).get_json()  # type: ignore[no-any-return]

    found = finish()
    assert (found["status"], found["states"]["ready"], found["flags"]["increase"]) == ("review", 2, 2)  # type: ignore[index]
    assert found["sums"] == [{"currency": "EUR", "subscriptions": 2, "due": "0.00", "present": "200.00", "next": "240.00"}]
    assert api.post(f"{address}/acts", {"act": "hold", "subscriptions": [held]}).get_json()["states"]["held"] == 1
    assert api.post(f"{address}/acts", {"act": "move"}).get_json()["status"] == "moving"
    assert finish()["status"] == "done"
    first = api.get(f"{address}/rows", limit=1).get_json()
    [second] = api.get(f"{address}/rows", limit=1, cursor=first["next_cursor"]).get_json()["data"]
    assert [(row["subscription_id"], row["state"]) for row in (*first["data"], second)] == [(held, "held"), (moved, "moved")]
    assert (second["present"], second["next"], second["effective_at"]) == ("100.00", "120.00", "2026-10-01T00:00:00Z")
    assert api.post(f"{address}/acts", {"act": "undo"}).get_json()["status"] == "undoing"
    assert finish()["states"] == {"ready": 0, "held": 1, "moved": 0, "failed": 0, "undone": 1}


def test_refusals_name_the_field(api: Api, session: Session, clock: Clock) -> None:
    old, unknown = make_plan(session), "00000000-0000-7000-8000-000000000000"
    body = {"from_version": str(old.id), "to_version": unknown}
    refused = api.post(PATH, body)
    assert [error["pointer"] for error in refused.get_json()["errors"]] == ["/to_version"]
    same = api.post(PATH, {**body, "to_version": str(old.id), "when": "date"})
    assert [error["pointer"] for error in same.get_json()["errors"]] == ["/to_version", "/on", "/from_version"]
    assert api.get(f"{PATH}/{unknown}").status_code == 404
    bound = bearer(make_key(session, make_organization(session)))
    assert api.client.post(f"/api/v1{PATH}", json=body, headers=bound).status_code == 403
