"""Invoices on the finance side: the page, finalizing, holding, voiding, booking a transfer; refusals stand beside the form."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import selfcheck
from core.identity.models import OperatorRole
from core.invoicing import draft, queries
from core.invoicing.models import Invoice
from tests.conftest import Clock
from tests.factories import make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.test_replay import tamper
from tests.people import SETUP, make_user, sign_in

NOVEMBER, DECEMBER = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, 0, 5, tzinfo=UTC)


@pytest.fixture
def drafted(client: FlaskClient, session: Session, clock: Clock) -> tuple[FlaskClient, dict[str, str], Invoice]:
    """Finance's browser, what every form carries, and a draft of 110.00."""
    metric = make_metric(session, "calls")
    version = make_plan(
        session, base_price="100.00", billing_mode="in_arrears", prices=[(metric, {"model": "per_unit", "unit_price": "0.01"})]
    )
    organization = make_organization(session, name="Halden Robotics AG")
    subscription = make_subscription(session, organization, version, start_at=NOVEMBER)
    use(session, organization, metric, NOVEMBER.replace(day=9), 1_000)
    at = clock.at(DECEMBER)
    made = draft.bill(session, subscription.id, as_of=at, actor=SETUP)
    assert made is not None
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.FINANCE), site="admin")
    return client, {"csrf_token": token}, made


def _post(drafted: tuple[FlaskClient, dict[str, str], Invoice], what: str, **form: str) -> int:
    client, carried, invoice = drafted
    form = {"idempotency_key": f"{what}-{len(form)}-form", **carried, **form}
    return client.post(f"/admin/invoices/{invoice.id}/{what}", data=form).status_code


def test_a_draft_shows_its_lines_and_is_finalized_once(drafted: tuple[FlaskClient, dict[str, str], Invoice], session: Session) -> None:
    client, _, invoice = drafted
    assert "Finalize €110.00" in client.get(f"/admin/invoices/{invoice.id}").text
    assert _post(drafted, "finalization") == 303
    assert _post(drafted, "finalization") == 303
    shown = client.get(f"/admin/invoices/{invoice.id}").text
    assert "INV-2026-0001" in shown
    assert "INV-2026-0001" in client.get("/admin/invoices?status=open").text
    assert selfcheck.run(session) == []


def test_holding_and_voiding_need_a_reason(drafted: tuple[FlaskClient, dict[str, str], Invoice], session: Session) -> None:
    _, _, invoice = drafted
    assert _post(drafted, "hold", do="hold", reason="no") == 422
    assert _post(drafted, "hold", do="hold", reason="Waiting for the PO number") == 303
    assert _post(drafted, "finalization") == 409
    assert _post(drafted, "hold", do="release", reason="", idempotency_key="another-form") == 303
    assert _post(drafted, "finalization", idempotency_key="yet-another-form") == 303
    assert _post(drafted, "void", reason="short") == 422
    assert _post(drafted, "void", reason="Billed to the wrong account") == 303
    assert queries.any_invoice(session, invoice.id).status == "void"
    assert selfcheck.run(session) == []


def test_a_transfer_is_booked_to_the_cent(drafted: tuple[FlaskClient, dict[str, str], Invoice], session: Session) -> None:
    client, _, invoice = drafted
    _post(drafted, "finalization")
    for wrong in ("", "ten", "10.001", "1e3", "110.01"):
        assert _post(drafted, "bank-payments", amount=wrong, reference="SEPA 1", idempotency_key=f"wrong-{wrong}-form") == 422
    assert _post(drafted, "bank-payments", amount="60.00", reference="SEPA 1") == 303
    assert "€50.00" in client.get(f"/admin/invoices/{invoice.id}").text
    assert _post(drafted, "bank-payments", amount="50.00", reference="SEPA 2", idempotency_key="the-second-form") == 303
    assert queries.any_invoice(session, invoice.id).status == "paid"
    assert selfcheck.run(session) == []


def test_support_sees_but_does_not_touch(drafted: tuple[FlaskClient, dict[str, str], Invoice], session: Session) -> None:
    client, _, invoice = drafted
    carried = {"csrf_token": sign_in(client, session, make_user(session, operator_role=OperatorRole.SUPPORT), site="admin")}
    assert client.get(f"/admin/invoices/{invoice.id}").status_code == 200
    for what in ("finalization", "void", "payments", "bank-payments", "refunds", "rating", "hold"):
        assert _post((client, carried, invoice), what) == 403


def test_an_issued_invoice_is_replayed_and_what_was_changed_is_shown(
    drafted: tuple[FlaskClient, dict[str, str], Invoice], session: Session
) -> None:
    client, _, invoice = drafted
    address = f"/admin/invoices/{invoice.id}/replay"
    assert client.get(address).status_code == 409
    assert _post(drafted, "finalization") == 303
    assert "Replay" in client.get(f"/admin/invoices/{invoice.id}").text
    assert "Identical: all 2 lines" in client.get(address).text
    tamper(session, "invoice_lines", "quantity = 7, amount_minor = 1001 WHERE invoice_id = :id AND metric_id IS NOT NULL", invoice)
    shown = client.get(address).text
    assert "Line 2, amount" in shown
    assert "<code>10.01</code></td><td><code>10.00</code>" in shown
