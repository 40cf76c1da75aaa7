"""Add-ons and coupons in the finance site; the customer sees them on the plan page."""

from __future__ import annotations

from uuid import UUID

from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import audit
from core.audit import SYSTEM
from core.catalog import publish
from core.identity.models import Role
from core.invoicing import quote as quotes
from core.invoicing.models import Invoice
from core.subscriptions import queries
from tests.admin.conftest import NOW, Enter
from tests.people import make_member, sign_in
from tests.portal.story import Story

REASON = "Agreed with Lena in the renewal call"


def test_an_add_on_is_quoted_then_attached_with_a_reason_and_ended_with_the_period(
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

    form = {"csrf_token": token, "plan": "support", "quantity": "2", "from": "now"}
    for wrong in ({"quantity": "many"}, {"plan": "nothing"}, {"plan": "build"}):
        assert client.post(f"{address}/items", data={**form, **wrong}).status_code == 422
    quoted = client.post(f"{address}/items", data=form).location
    shown = client.get(quoted).text
    assert all(text in shown for text in ("Attach Premium support", "Due now", "Premium support"))
    reasoned = {"csrf_token": token, "idempotency_key": "attach-1", "reason": REASON}
    refused = client.post(quoted, data={**reasoned, "idempotency_key": "attach-0", "reason": "so"})
    assert (refused.status_code, "at least" in refused.text.lower()) == (422, True)
    assert [client.post(quoted, data=reasoned).status_code for _ in range(2)] == [303, 303]
    quote = quotes.get(session, quillmark.organization.id, UUID(quoted.rpartition("/")[2]))
    assert quote.total_minor > 0
    assert session.get_one(Invoice, UUID(quote.content["invoice_id"])).total_minor == quote.total_minor

    quoted = client.post(f"{address}/items", data={**form, "plan": "welcome"}).location
    assert "Credit to your account" in client.get(quoted).text  # a tenth off what the running period was billed
    assert client.post(quoted, data={**reasoned, "idempotency_key": "attach-2"}).status_code == 303
    found = queries.subscription(session, quillmark.organization.id, quillmark.subscription.id)
    held = {item.plan_version.plan.code: item for item in found.items}
    assert {code: str(item.quantity) for code, item in held.items()} == {"support": "2", "welcome": "1"}
    assert held["welcome"].start_at == found.current_period_start
    assert {fact.reason for fact in audit.search(session, audit.Search(text="plan_change.reason_given"))} == {REASON}
    assert len(audit.search(session, audit.Search(text="subscription.coupon_attached"))) == 1

    support = held["support"]
    quoted = client.post(f"{address}/items/{support.id}/removal", data={"csrf_token": token}).location
    assert "End Premium support" in client.get(quoted).text
    assert client.post(quoted, data={**reasoned, "idempotency_key": "detach-1"}).status_code == 303
    session.refresh(support)
    assert support.end_at == found.current_period_end

    customer = make_member(session, quillmark.organization, Role.OWNER)
    sign_in(client, session, customer, quillmark.organization)
    shown = client.get("/portal/plan").text
    assert all(text in shown for text in ("What you have", "Premium support", "Welcome back"))
