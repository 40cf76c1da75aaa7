"""Payments in the finance site: every attempt, by status, by account, and what failed for which reason."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import clock
from core.identity.models import OperatorRole
from core.invoicing import queries as invoicing
from core.payments.models import BillingTransaction, PaymentMethod
from tests.admin.conftest import Count, Enter
from tests.portal.story import Story


@pytest.fixture
def declined(session: Session, quillmark: Story) -> BillingTransaction:
    """A card charge of the open invoice that the bank refused for good."""
    invoice = next(row for row in invoicing.invoices(session, quillmark.organization.id) if row.status == "open")
    method = PaymentMethod(
        organization_id=quillmark.organization.id,
        type="card",
        provider="stripe",
        provider_payment_method_id="pm_1",
        brand="visa",
        last_four="4242",
        created_at=clock.now(),
    )
    session.add(method)
    session.flush()
    charge = BillingTransaction(
        organization_id=quillmark.organization.id,
        invoice_id=invoice.id,
        payment_method_id=method.id,
        type="charge",
        status="failed",
        amount_minor=invoice.amount_due_minor,
        currency="EUR",
        provider="stripe",
        provider_transaction_id="pi_declined",
        failure_code="expired_card",
        failure_reason="the card has expired",
        created_at=clock.now() - timedelta(days=2),
    )
    session.add(charge)
    session.flush()
    return charge


def test_an_attempt_says_what_the_provider_said(client: FlaskClient, enter: Enter, declined: BillingTransaction) -> None:
    enter(OperatorRole.SUPPORT)
    shown = client.get("/admin/payments").text
    for words in ("pi_declined", "expired_card", "not tried again on this card", "Visa •• 4242", "Declined in the last 30 days"):
        assert words in shown


def test_the_list_narrows_by_status_and_account(client: FlaskClient, enter: Enter, declined: BillingTransaction) -> None:
    enter()
    failed = client.get("/admin/payments?status=failed", headers={"HX-Request": "true"}).text
    assert failed.lstrip().startswith('<div id="payments">')
    assert "pi_declined" in failed
    assert "SEPA" not in failed
    assert "pi_declined" not in client.get("/admin/payments?status=succeeded").text
    assert "pi_declined" in client.get(f"/admin/payments?account={declined.organization_id}").text
    stranger = client.get("/admin/payments?account=00000000-0000-7000-8000-000000000000").text
    assert "pi_declined" not in stranger


def test_the_list_takes_as_many_statements_for_many_rows(
    session: Session, enter: Enter, statements: Count, declined: BillingTransaction
) -> None:
    enter()
    few = statements("/admin/payments?status=failed")
    for number in range(12):
        session.add(
            BillingTransaction(
                organization_id=declined.organization_id,
                invoice_id=declined.invoice_id,
                type="charge",
                status="failed",
                amount_minor=100,
                currency="EUR",
                provider="stripe",
                provider_transaction_id=f"pi_{number}",
                created_at=clock.now(),
            )
        )
    session.flush()
    assert statements("/admin/payments?status=failed") == few


def test_who_may_not_see_payments(client: FlaskClient, enter: Enter) -> None:
    enter(OperatorRole.USER_ADMIN)
    assert client.get("/admin/payments").status_code == 403
