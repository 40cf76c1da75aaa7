"""Giving money back: never more than was taken, once, and in the books."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from core import selfcheck
from core.audit import SYSTEM
from core.errors import Conflict, Invalid, InvalidTransition, NotFound
from core.identity.models import Organization
from core.invoicing import void, write_off
from core.payments import collect, external, refund
from core.payments.attempts import made_at
from core.payments.models import BillingTransaction, TransactionType
from tests.factories import make_organization
from tests.fakes.fixtures import ProviderFake
from tests.payments.billing import NOW, balances, facts, open_invoice, save_card


@pytest.fixture
def paid(session: Session, charging: ProviderFake) -> BillingTransaction:
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    return collect.pay(organization.id, invoice.id, at=NOW, actor=SYSTEM)


def give_back(paid: BillingTransaction, amount: int | None = None, reason: str = "goodwill") -> BillingTransaction:
    return refund.refund(paid.organization_id, paid.id, reason=reason, at=NOW, actor=SYSTEM, amount_minor=amount)


def at_provider(fake: ProviderFake, paid: BillingTransaction) -> list[int]:
    charges = {found["charge"] for found in fake.charges() if found["payment_intent"] == paid.provider_transaction_id}
    return [found["amount"] for found in fake.refunds() if found["charge"] in charges]


def test_part_and_then_the_rest(session: Session, charging: ProviderFake, paid: BillingTransaction) -> None:
    part = give_back(paid, 1900)
    assert (part.status, part.amount_minor, part.type) == ("succeeded", 1900, "refund")
    rest = give_back(paid)
    assert rest.amount_minor == 10000
    assert at_provider(charging, paid) == [1900, 10000]
    organization = session.get_one(Organization, paid.organization_id)
    assert balances(session, organization) == {"RECEIVABLE": 11900, "REVENUE": -11900}
    with pytest.raises(Conflict, match="Everything"):
        give_back(paid)
    assert [fact["amount_minor"] for fact in facts(session, "refund.succeeded")] == [1900, 10000]


@pytest.mark.parametrize(
    ("amount", "reason", "pointer"), [(0, "x", "/amount"), (-5, "x", "/amount"), (11901, "x", "/amount"), (5, " ", "/reason")]
)
def test_what_is_refused(
    session: Session, charging: ProviderFake, paid: BillingTransaction, amount: int, reason: str, pointer: str
) -> None:
    with pytest.raises(Invalid) as caught:
        give_back(paid, amount, reason)
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert session.scalars(select(BillingTransaction).where(BillingTransaction.type == TransactionType.REFUND)).all() == []


def test_only_ones_own_payments_that_succeeded(session: Session, charging: ProviderFake, paid: BillingTransaction) -> None:
    stranger = make_organization(session)
    with pytest.raises(NotFound):
        refund.refund(stranger.id, paid.id, reason="x", at=NOW, actor=SYSTEM)
    part = give_back(paid, 100)
    with pytest.raises(Conflict):
        refund.refund(paid.organization_id, part.id, reason="x", at=NOW, actor=SYSTEM)


def test_a_lost_answer_counts_as_given_until_it_is_looked_up(session: Session, charging: ProviderFake, paid: BillingTransaction) -> None:
    charging.mode("charge_then_drop", path="/v1/refunds", next=1)
    lost = give_back(paid, 10000)
    assert lost.status == "unknown"
    with pytest.raises(Invalid):
        give_back(paid, 2000)
    assert refund.resolve(lost.id, now=made_at(lost.id) + timedelta(seconds=1)) == "succeeded"
    assert refund.resolve(lost.id, now=made_at(lost.id) + timedelta(days=1)) is None
    assert at_provider(charging, paid) == [10000]


def test_a_request_that_never_arrived_frees_the_money(session: Session, charging: ProviderFake, paid: BillingTransaction) -> None:
    charging.mode("drop_before_charge", path="/v1/refunds", next=1)
    lost = give_back(paid)
    assert refund.resolve(lost.id, now=made_at(lost.id) + timedelta(seconds=5)) == "unknown"
    assert refund.resolve(lost.id, now=made_at(lost.id) + timedelta(minutes=5)) == "failed"
    assert give_back(paid).status == "succeeded"
    assert at_provider(charging, paid) == [11900]


def test_a_transfer_goes_back_too(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    invoice = open_invoice(session, organization)
    arrived = external.record_external(session, organization.id, invoice.id, amount_minor=11900, reference="SEPA 9", at=NOW, actor=SYSTEM)
    assert give_back(arrived, 900).status == "succeeded"
    assert balances(session, organization) == {"CASH_CLEARING": 11000, "RECEIVABLE": 900, "REVENUE": -11900}
    session.refresh(invoice)
    assert (invoice.status, invoice.amount_paid_minor) == ("paid", 11000)


def test_money_for_an_invoice_that_was_written_off_is_a_recovery(session: Session) -> None:
    organization = make_organization(session)
    invoice = open_invoice(session, organization)
    write_off.write_off(session, invoice.id, at=NOW, actor=SYSTEM, reason="insolvent")
    assert write_off.write_off(session, invoice.id, at=NOW, actor=SYSTEM).status == "uncollectible"
    assert balances(session, organization) == {"WRITE_OFF": 11900, "REVENUE": -11900}
    booked = {"at": NOW, "actor": SYSTEM}
    external.record_external(session, organization.id, invoice.id, amount_minor=1900, reference="QUOTA 1", **booked)
    assert (invoice.status, invoice.amount_due_minor) == ("uncollectible", 10000)
    assert balances(session, organization) == {"WRITE_OFF": 10000, "CASH_CLEARING": 1900, "REVENUE": -11900}
    external.record_external(session, organization.id, invoice.id, amount_minor=10000, reference="QUOTA 2", **booked)
    assert invoice.status == "paid"
    assert balances(session, organization) == {"CASH_CLEARING": 11900, "REVENUE": -11900}
    with pytest.raises(InvalidTransition):
        write_off.write_off(session, invoice.id, at=NOW, actor=SYSTEM)
    assert not [found for found in selfcheck.run(session) if found.code.startswith("V3")]


def test_voiding_what_was_written_off_leaves_nothing_in_the_books(session: Session) -> None:
    organization = make_organization(session)
    invoice = open_invoice(session, organization)
    write_off.write_off(session, invoice.id, at=NOW, actor=SYSTEM)
    void.void_invoice(session, invoice.id, at=NOW, actor=SYSTEM)
    assert balances(session, organization) == {}
    assert not [found for found in selfcheck.run(session) if found.code.startswith("V3")]
