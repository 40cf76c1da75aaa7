"""The finance site corrects events: what it changes is shown before it is done, and only those who may do it see the way."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import clock
from core.audit import SYSTEM
from core.identity.models import OperatorRole, Organization
from core.metering.corrections import events
from core.subscriptions import lifecycle
from tests.admin.conftest import Enter
from tests.factories import make_organization, make_plan
from tests.metering.stored import Store

WHY = "The meter ran twice that day."


@pytest.fixture
def account(session: Session, enter: Enter) -> Organization:
    """Used 40 calls at 0.50 yesterday, in two events, on a plan begun at the first of the month."""
    store, now = Store(session, event_name="calls"), clock.now()
    metric = store.metric("sum")
    organization = make_organization(session, timezone="UTC")
    plan = make_plan(session, base_price="10.00", prices=[(metric, {"model": "per_unit", "unit_price": "0.50"})])
    lifecycle.start(session, organization.id, plan=plan.plan.code, at=now.replace(day=1), actor=SYSTEM, trial_period_days=0)
    store.count(organization, [(now - timedelta(days=1), {"quantity": "15"}), (now - timedelta(days=1), {"quantity": "25"})])
    return organization


def _form(token: str, step: str, **given: str) -> dict[str, str]:
    return {"csrf_token": token, "idempotency_key": f"correction-{step}", "step": step, "reason": WHY, **given}


def test_an_event_is_corrected_once_its_effect_was_seen(client: FlaskClient, session: Session, enter: Enter, account: Organization) -> None:
    token = enter(OperatorRole.BILLING_OPS)
    address = f"/admin/accounts/{account.id}/event"
    assert "Correct this event" in client.get(f"{address}?key=1-1").text
    form = client.get(f"{address}/correct?key=1-1").text
    assert 'value="25"' in form
    shown = client.post(f"{address}/correct?key=1-1", data=_form(token, "show", act="void"))
    assert shown.status_code == 200
    for words in ("€20.00", "€7.50", "−€12.50", "the invoice of the running period", "Correct the event"):
        assert words in shown.text
    assert events.history(session, account.id, "1-1") == []
    done = client.post(f"{address}/correct?key=1-1", data=_form(token, "do", act="void"))
    assert done.status_code == 303
    after = client.get(done.location).text
    for words in ("Void", "Voided", WHY, "counts no more"):
        assert words in after
    assert client.get(f"{address}/correct?key=1-1").status_code == 404


def test_an_amendment_changes_what_was_typed_and_nothing_else(
    client: FlaskClient, session: Session, enter: Enter, account: Organization
) -> None:
    token = enter(OperatorRole.FINANCE)
    address = f"/admin/accounts/{account.id}/event/correct?key=1-0"
    at = (clock.now() - timedelta(days=1)).isoformat().replace("+00:00", "Z")
    typed = {"act": "amend", "quantity": "15", "timestamp": at, "properties": '{\r\n  "quantity": "15"\r\n}'}
    nothing = client.post(address, data=_form(token, "do", **typed))
    assert (nothing.status_code, "Give a quantity" in nothing.text) == (422, True)
    for wrong, words in (
        ({"quantity": "many"}, "Must be a number"),
        ({"timestamp": "yesterday"}, "must be an RFC 3339"),
        ({"properties": "[]"}, "Give one JSON object"),
        ({"reason": "because"}, "Give a reason"),
    ):
        refused = client.post(address, data=_form(token, "do", **{**typed, **wrong}))
        assert (refused.status_code, words in refused.text) == (422, True), wrong
    assert client.post(address, data=_form(token, "do", **{**typed, "quantity": "1.5"})).status_code == 303
    (made,) = events.history(session, account.id, "1-0")
    assert made.new is not None
    assert (made.new.quantity, made.new.timestamp, made.new.properties) == (Decimal("1.5"), made.old.timestamp, made.old.properties)


def test_who_may_not_correct(client: FlaskClient, enter: Enter, account: Organization) -> None:
    token = enter(OperatorRole.SUPPORT)
    address = f"/admin/accounts/{account.id}/event"
    assert "Correct this event" not in client.get(f"{address}?key=1-1").text
    assert client.get(f"{address}/correct?key=1-1").status_code == 403
    assert client.post(f"{address}/correct?key=1-1", data=_form(token, "do", act="void")).status_code == 403
