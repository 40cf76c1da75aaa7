"""Add-ons and coupons in the finance site; the customer sees them on the plan page."""

from __future__ import annotations

from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import audit
from core.audit import SYSTEM
from core.catalog import publish
from core.identity.models import Role
from core.subscriptions import queries
from tests.admin.conftest import NOW, Enter
from tests.people import make_member, sign_in
from tests.portal.story import Story

REASON = "Agreed with Lena in the renewal call"


def test_an_add_on_is_attached_with_a_reason_and_ended_with_the_period(
    client: FlaskClient, session: Session, enter: Enter, quillmark: Story
) -> None:
    document = {"name": "Premium support", "currency": "EUR", "billing_period": "month", "base_price": "30", "kind": "add_on"}
    publish.create_version(session, code="support", actor=SYSTEM, at=NOW, **document)
    off = [{"code": "off", "model": "discount", "percent_off": "10"}]
    coupon = {**document, "name": "Welcome back", "base_price": "0", "kind": "coupon", "prices": off}
    publish.create_version(session, code="welcome", actor=SYSTEM, at=NOW, **coupon)
    token = enter()
    address = f"/admin/subscriptions/{quillmark.subscription.id}"
    assert "Premium support (add-on)" in client.get(address).text

    form = {"csrf_token": token, "plan": "support", "quantity": "2", "from": "now", "item_reason": REASON}
    refused = client.post(f"{address}/items", data={**form, "idempotency_key": "attach-0", "item_reason": "so"})
    assert (refused.status_code, "at least" in refused.text.lower()) == (422, True)
    wrong = client.post(f"{address}/items", data={**form, "idempotency_key": "attach-1", "quantity": "many"})
    assert wrong.status_code == 422
    assert [client.post(f"{address}/items", data={**form, "idempotency_key": "attach-2"}).status_code for _ in range(2)] == [303, 303]
    assert client.post(f"{address}/items", data={**form, "idempotency_key": "attach-3", "plan": "welcome"}).status_code == 303
    found = queries.subscription(session, quillmark.organization.id, quillmark.subscription.id)
    assert sorted((item.plan_version.plan.code, str(item.quantity)) for item in found.items) == [("support", "2"), ("welcome", "1")]
    assert {fact.reason for fact in audit.search(session, audit.Search(text="subscription.add_on_attached"))} == {REASON}

    [support] = [item for item in found.items if item.plan_version.plan.code == "support"]
    removal = {"csrf_token": token, "idempotency_key": "detach-1"}
    assert client.post(f"{address}/items/{support.id}/removal", data=removal).status_code == 303
    session.refresh(support)
    assert support.end_at == found.current_period_end

    customer = make_member(session, quillmark.organization, Role.OWNER)
    sign_in(client, session, customer, quillmark.organization)
    shown = client.get("/portal/plan").text
    assert all(text in shown for text in ("What you have", "Premium support", "Welcome back"))
