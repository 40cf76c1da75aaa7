"""Charging invoices at the real provider fake over HTTP: what is charged, settled, booked, and what happens when it goes wrong."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.errors import Conflict, Invalid, NotFound
from core.identity.models import Organization
from core.invoicing.credit_models import AccountCredit
from core.payments import collect, external, queries, refund, resolve
from core.payments.attempts import Attempt, made_at
from core.payments.gateways.base import ChargeOutcome, ChargeStatus
from core.payments.gateways.stripe import StripeGateway
from core.payments.models import BillingTransaction, TransactionStatus
from core.subscriptions.models import Subscription
from tests.factories import make_organization
from tests.fakes.fixtures import ProviderFake
from tests.payments.billing import NOW, balances, facts, open_invoice, save_card

DAY = timedelta(days=1)


def rows(session: Session) -> list[BillingTransaction]:
    session.expire_all()
    return list(session.scalars(select(BillingTransaction).order_by(BillingTransaction.id)))


def charged(fake: ProviderFake, row: BillingTransaction) -> list[dict[str, Any]]:
    return [charge for charge in fake.charges() if charge["attempt"] == str(row.id)]


def test_an_open_invoice_is_charged_settled_and_booked(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    assert balances(session, organization) == {"RECEIVABLE": 11900, "REVENUE": -11900}
    collect.collect(invoice.id, at=NOW)
    (row,) = rows(session)
    assert (row.status, row.amount_minor, row.currency, row.settled_at) == ("succeeded", 11900, "EUR", NOW)
    assert (invoice.status, invoice.amount_paid_minor, invoice.amount_due_minor, invoice.paid_at) == ("paid", 11900, 0, NOW)
    assert balances(session, organization) == {"CASH_CLEARING": 11900, "REVENUE": -11900}
    (charge,) = charged(charging, row)
    assert (charge["amount"], charge["currency"], charge["payment_intent"]) == (11900, "eur", row.provider_transaction_id)
    (fact,) = facts(session, "payment.succeeded")
    assert (fact["invoice_number"], fact["amount_minor"]) == (invoice.invoice_number, 11900)


def test_a_second_message_charges_nothing(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    assert collect.collect(invoice.id, at=NOW) is not None
    assert collect.collect(invoice.id, at=NOW) is None
    assert len(rows(session)) == 1


@pytest.mark.parametrize(("currency", "price", "minor", "theirs"), [("JPY", "1500", 1500, 1500), ("KWD", "10.500", 10500, 10500)])
def test_other_currencies_are_charged_exactly(
    session: Session, charging: ProviderFake, currency: str, price: str, minor: int, theirs: int
) -> None:
    organization = make_organization(session, currency=currency)
    save_card(organization)
    invoice = open_invoice(session, organization, price=price)
    collect.collect(invoice.id, at=NOW)
    (row,) = rows(session)
    assert (row.status, row.amount_minor, charged(charging, row)[0]["amount"]) == ("succeeded", minor, theirs)


def test_a_soft_decline_is_tried_again_on_schedule_until_the_schedule_ends(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    save_card(organization, "pm_card_chargeCustomerFail")
    invoice = open_invoice(session, organization)
    at, tries = NOW, []
    while at is not None:
        assert collect.collect(invoice.id, at=at - timedelta(seconds=1)) is None
        collect.collect(invoice.id, at=at)
        collect.collect(invoice.id, at=at)  # the same message again
        session.refresh(invoice)
        tries.append((at - NOW).days)
        at = invoice.next_collect_at
    assert tries == [0, 2, 7, 14, 21]
    assert [row.status for row in rows(session)] == ["failed"] * 5
    assert (rows(session)[0].failure_code, invoice.status, invoice.amount_due_minor) == ("generic_decline", "open", 11900)
    assert session.get_one(Subscription, invoice.subscription_id).status == "past_due"
    assert [fact["next_try_at"] is None for fact in facts(session, "payment.failed")] == [False] * 4 + [True]
    assert len(facts(session, "payment.retries_exhausted")) == 1
    save_card(organization, at=NOW + 30 * DAY)
    collect.collect(invoice.id, at=NOW + 30 * DAY)
    session.expire_all()
    assert (invoice.status, session.get_one(Subscription, invoice.subscription_id).status) == ("paid", "active")


def test_a_hard_decline_is_not_repeated_on_the_same_card(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    method = save_card(organization)
    invoice = open_invoice(session, organization)
    charging.mode("decline:stolen_card", payment_method=method.provider_payment_method_id)
    collect.collect(invoice.id, at=NOW)
    session.refresh(invoice)
    (row,) = rows(session)
    assert (row.status, row.failure_code, row.failure_reason) == ("failed", "stolen_card", "declined by the bank")
    assert invoice.next_collect_at is None
    charging.heal()
    save_card(organization, "pm_card_mastercard")
    collect.collect(invoice.id, at=NOW)
    session.refresh(invoice)
    assert invoice.status == "paid"


def test_a_try_on_demand_leaves_the_schedule_alone(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    save_card(organization, "pm_card_chargeCustomerFail")
    invoice = open_invoice(session, organization)
    collect.collect(invoice.id, at=NOW)
    row = collect.pay(organization.id, invoice.id, at=NOW + timedelta(hours=1), actor=SYSTEM)
    session.refresh(invoice)
    assert (row.status, invoice.collect_attempts, invoice.next_collect_at) == ("failed", 1, NOW + 2 * DAY)


def test_without_a_method_nothing_is_tried_until_there_is_one(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    invoice = open_invoice(session, organization)
    assert collect.collect(invoice.id, at=NOW) is None
    session.refresh(invoice)
    assert (rows(session), invoice.next_collect_at) == ([], None)
    assert len(facts(session, "payment.method_missing")) == 1
    with pytest.raises(Conflict, match="no payment method"):
        collect.pay(organization.id, invoice.id, at=NOW, actor=SYSTEM)
    save_card(organization)
    session.refresh(invoice)
    assert invoice.next_collect_at == NOW
    collect.collect(invoice.id, at=NOW)
    session.refresh(invoice)
    assert invoice.status == "paid"


@pytest.mark.parametrize("mode", ["charge_then_drop", "charge_then_500"])
def test_a_lost_answer_blocks_new_tries_until_it_is_looked_up(session: Session, charging: ProviderFake, mode: str) -> None:
    organization = make_organization(session)
    method = save_card(organization)
    invoice = open_invoice(session, organization)
    charging.mode(mode, payment_method=method.provider_payment_method_id, next=1)
    attempt = collect.collect(invoice.id, at=NOW)
    assert attempt is not None
    (row,) = rows(session)
    assert (row.status, invoice.status) == ("unknown", "open")
    assert collect.pay(organization.id, invoice.id, at=NOW, actor=SYSTEM).id == attempt
    with pytest.raises(Conflict, match="on its way"):
        external.record_external(session, organization.id, invoice.id, amount_minor=11900, reference="SEPA 1", at=NOW, actor=SYSTEM)
    assert len(rows(session)) == 1
    made = made_at(attempt)
    assert resolve.resolve(attempt, now=made + timedelta(seconds=1)) == "succeeded"
    session.expire_all()
    assert (invoice.status, len(charged(charging, row)), balances(session, organization)["CASH_CLEARING"]) == ("paid", 1, 11900)
    assert resolve.resolve(attempt, now=made + DAY) is None


def test_a_request_that_never_arrived_is_made_anew_not_repeated(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    method = save_card(organization)
    invoice = open_invoice(session, organization)
    charging.mode("drop_before_charge", payment_method=method.provider_payment_method_id, next=1)
    attempt = collect.collect(invoice.id, at=NOW)
    assert attempt is not None
    made = made_at(attempt)
    assert resolve.resolve(attempt, now=made + timedelta(seconds=5)) == "unknown"  # it may still be on its way
    assert resolve.resolve(attempt, now=made + timedelta(hours=25)) == "failed"
    session.refresh(invoice)
    assert (rows(session)[0].failure_code, invoice.collect_attempts) == ("not_received", 0)
    assert facts(session, "payment.failed") == []
    collect.collect(invoice.id, at=invoice.next_collect_at)
    session.refresh(invoice)
    assert [row.status for row in rows(session)] == ["failed", "succeeded"]
    assert (invoice.status, sum(len(charged(charging, row)) for row in rows(session))) == ("paid", 1)


def test_an_attempt_that_nobody_recorded_is_found_by_state(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    attempt = collect.begin(session, invoice.id, at=NOW)
    assert isinstance(attempt, Attempt)
    session.commit()
    collect.charge(attempt)  # and here the worker dies
    assert collect.collect(invoice.id, at=NOW + DAY) is None
    assert resolve.resolve(attempt.id, now=attempt.made_at + timedelta(seconds=5)) is None  # somebody may still be at it
    later = attempt.made_at + timedelta(minutes=5)
    assert queries.unresolved_ids(session, now=later) == [attempt.id]
    assert resolve.resolve(attempt.id, now=later) == "succeeded"
    assert len(charged(charging, rows(session)[0])) == 1
    collect.record(session, attempt.id, collect.charge(attempt), at=NOW)  # the worker wakes up: same key, same answer
    assert len(charged(charging, rows(session)[0])) == 1
    assert balances(session, organization)["CASH_CLEARING"] == 11900


def test_a_bank_that_asks_the_cardholder(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    method = save_card(organization)
    invoice = open_invoice(session, organization)
    charging.mode("requires_action", payment_method=method.provider_payment_method_id, next=1)
    row = collect.pay(organization.id, invoice.id, at=NOW, actor=SYSTEM, return_url="http://127.0.0.1/back")
    assert row.status == "requires_action"
    assert row.action_url
    assert len(facts(session, "payment.requires_action")) == 1
    assert collect.collect(invoice.id, at=NOW + DAY) is None
    made = made_at(row.id)
    assert resolve.resolve(row.id, now=made + timedelta(hours=1)) == "requires_action"
    assert resolve.resolve(row.id, now=made + timedelta(hours=24)) == "failed"
    assert len(charged(charging, row)) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"amount_minor": 1}, {"currency": "USD"}, {"attempt_id": "01a202ed-0717-746a-ac02-98522d32639a"}],
)
def test_news_that_contradicts_the_attempt_settles_nothing(session: Session, charging: ProviderFake, wrong: dict[str, Any]) -> None:
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    attempt = collect.begin(session, invoice.id, at=NOW)
    assert attempt is not None
    said = {"provider_id": "pi_1", "attempt_id": str(attempt.id), "amount_minor": 11900, "currency": "EUR", **wrong}
    collect.record(session, attempt.id, ChargeOutcome(ChargeStatus.SUCCEEDED, **said), at=NOW)
    (row,) = rows(session)
    assert (row.status, row.failure_code, invoice.status) == ("unknown", "contradiction", "open")
    assert len(facts(session, "payment.contradiction")) == 1
    assert queries.unresolved_ids(session, now=attempt.made_at + DAY) == []


def _charge_behind_our_back(session: Session, organization: Organization, gateway: StripeGateway) -> str | None:
    method = queries.default_method(session, organization.id)
    assert method is not None
    return gateway.charge(
        customer=method.provider_customer_id or "",
        payment_method=method.provider_payment_method_id,
        amount_minor=11900,
        currency="EUR",
        attempt_id="late",
        description="",
        metadata={},
        idempotency_key=str(uuid.uuid4()),
    ).provider_id


def test_money_that_moved_after_all_becomes_credit_when_the_invoice_was_paid(
    session: Session, charging: ProviderFake, gateway: StripeGateway
) -> None:
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    attempt = collect.begin(session, invoice.id, at=NOW)
    assert attempt is not None
    collect.record(session, attempt.id, ChargeOutcome(ChargeStatus.DECLINED, decline_code="not_received"), at=NOW)
    collect.collect(invoice.id, at=NOW)
    late = ChargeOutcome(
        ChargeStatus.SUCCEEDED, provider_id=_charge_behind_our_back(session, organization, gateway), amount_minor=11900, currency="EUR"
    )
    collect.record(session, attempt.id, late, at=NOW)
    assert [row.status for row in rows(session)] == ["succeeded", "succeeded"]
    assert balances(session, organization) == {"CASH_CLEARING": 23800, "REVENUE": -11900, "CUSTOMER_CREDIT": -11900}
    assert len(facts(session, "payment.excess")) == 1
    credit = session.scalars(select(AccountCredit)).one()
    assert (credit.remaining_minor, credit.source_invoice_id) == (11900, invoice.id)
    refund.refund(organization.id, attempt.id, reason="paid twice", at=NOW, actor=SYSTEM, amount_minor=1900)
    session.expire_all()
    assert (credit.remaining_minor, invoice.amount_paid_minor) == (10000, 11900)
    assert balances(session, organization) == {"CASH_CLEARING": 21900, "REVENUE": -11900, "CUSTOMER_CREDIT": -10000}
    credit.remaining_minor = 4000  # a later invoice used the rest
    with pytest.raises(Invalid, match="cannot be made"):
        refund.refund(organization.id, attempt.id, reason="paid twice", at=NOW, actor=SYSTEM, amount_minor=4001)


def test_a_transfer_is_booked_once_by_its_reference(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    invoice = open_invoice(session, organization)

    def book(amount: int, reference: str, at: datetime = NOW) -> BillingTransaction:
        return external.record_external(session, organization.id, invoice.id, amount_minor=amount, reference=reference, at=at, actor=SYSTEM)

    first = book(11000, "SEPA 4711")
    assert book(11000, "SEPA  4711 ").id == first.id
    assert (invoice.status, invoice.amount_due_minor) == ("open", 900)
    with pytest.raises(Conflict, match="booked already"):
        book(900, "SEPA 4711")
    with pytest.raises(Invalid) as caught:
        book(901, "SEPA 4712")
    assert caught.value.errors[0].pointer == "/amount"
    with pytest.raises(Invalid):
        book(900, "a\x00b")
    book(900, "SEPA 4712")
    assert (invoice.status, balances(session, organization)) == ("paid", {"CASH_CLEARING": 11900, "REVENUE": -11900})
    with pytest.raises(Conflict):
        book(1, "SEPA 4713")


def test_a_stranger_pays_nothing(session: Session, charging: ProviderFake) -> None:
    invoice = open_invoice(session)
    stranger = make_organization(session)
    save_card(stranger)
    with pytest.raises(NotFound):
        collect.pay(stranger.id, invoice.id, at=NOW, actor=SYSTEM)
    with pytest.raises(NotFound):
        external.record_external(session, stranger.id, invoice.id, amount_minor=1, reference="x", at=NOW, actor=SYSTEM)
    other = make_organization(session)
    theirs = save_card(other)
    mine = open_invoice(session, stranger)
    with pytest.raises(Invalid, match="cannot be paid"):
        collect.pay(stranger.id, mine.id, at=NOW, actor=SYSTEM, payment_method_id=theirs.id)
    assert {row.status for row in rows(session)} <= {TransactionStatus.SUCCEEDED}
