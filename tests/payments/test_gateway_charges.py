"""Charges and refunds through the real library, against the record of what the provider really moved."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.errors import Declined, Invalid, ProviderUnavailable
from core.payments.gateways.base import ChargeOutcome, ChargeStatus, Gateway, RefundStatus
from core.payments.gateways.manual import ManualGateway
from core.payments.gateways.stripe import StripeGateway
from tests.fakes.fixtures import ProviderFake


@pytest.fixture
def customer(gateway: StripeGateway) -> str:
    return gateway.create_customer(reference=uid(), name="Ada GmbH", email="ap@ada.example", idempotency_key=uid())


@pytest.fixture
def card(gateway: StripeGateway, customer: str) -> str:
    return save(gateway, customer, "pm_card_visa")


def uid() -> str:
    return str(uuid.uuid4())


def save(gateway: StripeGateway, customer: str, token: str) -> str:
    return gateway.attach_payment_method(token, customer=customer, idempotency_key=uid()).id


def charge(gateway: Gateway, customer: str, card: str, attempt: str, amount: int = 21212, **more: Any) -> ChargeOutcome:
    values = {"currency": "EUR", "description": "Invoice INV-7", "metadata": {"invoice": "INV-7"}, "idempotency_key": attempt} | more
    return gateway.charge(customer=customer, payment_method=card, amount_minor=amount, attempt_id=attempt, **values)


def charged(provider: ProviderFake, customer: str) -> list[tuple[str, int, str]]:
    return [(row["attempt"], row["amount"], row["currency"]) for row in provider.charges() if row["customer"] == customer]


def test_a_charge_moves_the_money_once(gateway: StripeGateway, provider: ProviderFake, customer: str, card: str) -> None:
    attempt = uid()
    first, again = (charge(gateway, customer, card, attempt) for _ in range(2))
    assert first.status is ChargeStatus.SUCCEEDED
    assert (first.amount_minor, first.currency, first.attempt_id, first.customer) == (21212, "EUR", attempt, customer)
    assert first.payment_method == card
    assert again == first
    assert charged(provider, customer) == [(attempt, 21212, "eur")]


@pytest.mark.parametrize(
    ("currency", "minor", "expected"),
    [("JPY", 500, 500), ("KRW", 90_000, 90_000), ("KWD", 12_340, 12_340), ("BHD", 500, 500), ("ISK", 700, 70_000), ("HUF", 20_000, 20_000)],
)
def test_the_provider_charges_exactly_the_amount(
    gateway: StripeGateway, provider: ProviderFake, customer: str, card: str, currency: str, minor: int, expected: int
) -> None:
    attempt = uid()
    outcome = charge(gateway, customer, card, attempt, minor, currency=currency)
    assert (outcome.amount_minor, outcome.currency) == (minor, currency)
    assert charged(provider, customer) == [(attempt, expected, currency.lower())]


def test_an_amount_that_cannot_be_expressed_is_declined_and_not_sent(
    gateway: StripeGateway, provider: ProviderFake, customer: str, card: str
) -> None:
    outcome = charge(gateway, customer, card, uid(), 1234, currency="KWD")
    assert (outcome.status, outcome.decline_code) == (ChargeStatus.DECLINED, "amount_not_representable")
    assert charged(provider, customer) == []


@pytest.mark.parametrize("mode", ["charge_then_drop", "charge_then_500"])
def test_a_lost_answer_is_unknown_and_the_charge_is_found(
    gateway: StripeGateway, provider: ProviderFake, customer: str, card: str, mode: str
) -> None:
    attempt, since = uid(), datetime.now(UTC)
    provider.mode(mode, customer=customer, next=1)
    assert charge(gateway, customer, card, attempt).status is ChargeStatus.UNKNOWN
    found = gateway.find_charge(attempt, customer=customer, since=since)
    assert found is not None
    assert (found.status, found.amount_minor, found.attempt_id) == (ChargeStatus.SUCCEEDED, 21212, attempt)
    assert len(charged(provider, customer)) == 1


@pytest.mark.parametrize("mode", ["drop_before_charge", "429"])
def test_a_request_that_never_ran_is_unknown_until_it_is_made_again(
    gateway: StripeGateway, provider: ProviderFake, customer: str, card: str, mode: str
) -> None:
    attempt = uid()
    provider.mode(mode, customer=customer, next=1)
    assert charge(gateway, customer, card, attempt).status is ChargeStatus.UNKNOWN
    assert gateway.find_charge(attempt, customer=customer) is None
    assert charge(gateway, customer, card, attempt).status is ChargeStatus.SUCCEEDED
    assert len(charged(provider, customer)) == 1


def test_a_dropped_answer_is_replayed_under_the_same_key(gateway: StripeGateway, provider: ProviderFake, customer: str, card: str) -> None:
    attempt = uid()
    provider.mode("charge_then_drop", customer=customer, next=1)
    charge(gateway, customer, card, attempt)
    assert charge(gateway, customer, card, attempt).status is ChargeStatus.SUCCEEDED
    assert len(charged(provider, customer)) == 1


def test_a_saved_500_stays_unknown_until_it_is_looked_up(gateway: StripeGateway, provider: ProviderFake, customer: str, card: str) -> None:
    attempt = uid()
    provider.mode("500", customer=customer, next=1)
    assert [charge(gateway, customer, card, attempt).status for _ in range(2)] == [ChargeStatus.UNKNOWN] * 2
    assert gateway.find_charge(attempt, customer=customer) is None
    assert charge(gateway, customer, card, uid()).status is ChargeStatus.SUCCEEDED
    assert len(charged(provider, customer)) == 1


def test_a_hanging_provider_is_unknown_and_a_second_request_meanwhile_too(
    provider: ProviderFake, gateway: StripeGateway, customer: str, card: str
) -> None:
    hasty = StripeGateway(provider.api_key, api_base=provider.url, answer_seconds=0.3)
    attempt = uid()
    provider.mode("hang:1", customer=customer, next=1)
    assert charge(hasty, customer, card, attempt).status is ChargeStatus.UNKNOWN
    assert charge(hasty, customer, card, attempt).status is ChargeStatus.UNKNOWN  # the first is still in flight: 409
    threading.Event().wait(1)
    assert charge(gateway, customer, card, attempt).status is ChargeStatus.SUCCEEDED
    assert len(charged(provider, customer)) == 1


def test_nobody_listening_is_unknown() -> None:
    nowhere = StripeGateway("sk_test_x", api_base="http://127.0.0.1:9", connect_seconds=0.5)
    assert charge(nowhere, "cus_x", "pm_x", uid()).status is ChargeStatus.UNKNOWN
    with pytest.raises(ProviderUnavailable):
        nowhere.find_charge("x", customer="cus_x")


def test_a_refused_key_names_the_cause(provider: ProviderFake) -> None:
    with pytest.raises(ProviderUnavailable) as refusal:
        StripeGateway("not-a-key", api_base=provider.url).retrieve_charge("pi_x")
    assert refusal.value.code == "key_refused"


def test_parallel_requests_under_one_key_charge_once(gateway: StripeGateway, provider: ProviderFake, customer: str, card: str) -> None:
    attempt = uid()
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: charge(gateway, customer, card, attempt), range(16)))
    assert {outcome.status for outcome in outcomes} <= {ChargeStatus.SUCCEEDED, ChargeStatus.UNKNOWN}
    assert {outcome.provider_id for outcome in outcomes if outcome.status is ChargeStatus.SUCCEEDED}.__len__() == 1
    assert len(charged(provider, customer)) == 1


@pytest.mark.parametrize("code", ["insufficient_funds", "lost_card", "expired_card", "do_not_honor"])
def test_a_decline_names_its_code_and_a_new_attempt_can_succeed(
    gateway: StripeGateway, provider: ProviderFake, customer: str, card: str, code: str
) -> None:
    attempt = uid()
    provider.mode(f"decline:{code}", customer=customer, next=1)
    refused = charge(gateway, customer, card, attempt)
    assert (refused.status, refused.decline_code) == (ChargeStatus.DECLINED, code)
    assert refused.provider_id is not None
    assert gateway.retrieve_charge(refused.provider_id).decline_code == code
    assert charge(gateway, customer, card, attempt) == refused  # the same key gives the same answer
    assert charge(gateway, customer, card, uid()).status is ChargeStatus.SUCCEEDED
    assert len(charged(provider, customer)) == 1


def test_a_card_that_can_be_saved_but_not_charged(gateway: StripeGateway, provider: ProviderFake, customer: str) -> None:
    refused = charge(gateway, customer, save(gateway, customer, "pm_card_chargeCustomerFail"), uid())
    assert (refused.status, refused.decline_code) == (ChargeStatus.DECLINED, "generic_decline")
    assert charged(provider, customer) == []


@pytest.mark.parametrize(
    ("token", "code"), [("pm_card_chargeDeclined", "generic_decline"), ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds")]
)
def test_a_declined_card_is_not_saved(gateway: StripeGateway, provider: ProviderFake, customer: str, token: str, code: str) -> None:
    with pytest.raises(Declined) as refusal:
        save(gateway, customer, token)
    assert refusal.value.code == code
    assert list(gateway.list_payment_methods(customer)) == []


def test_a_forgotten_method_and_a_tiny_amount_are_declined_for_good(
    gateway: StripeGateway, provider: ProviderFake, customer: str, card: str
) -> None:
    assert charge(gateway, customer, card, uid(), 49).decline_code == "amount_too_small"
    assert charge(gateway, customer, "pm_unknown", uid()).decline_code == "resource_missing"
    assert charged(provider, customer) == []


def test_one_key_for_two_amounts_is_never_taken_for_a_decline(
    gateway: StripeGateway, provider: ProviderFake, customer: str, card: str
) -> None:
    attempt = uid()
    charge(gateway, customer, card, attempt, 1000)
    assert charge(gateway, customer, card, attempt, 2000).status is ChargeStatus.UNKNOWN
    assert charged(provider, customer) == [(attempt, 1000, "eur")]


def test_a_bank_that_asks_when_nobody_is_there_and_the_confirmation_later(
    gateway: StripeGateway, provider: ProviderFake, customer: str
) -> None:
    import requests

    method = save(gateway, customer, "pm_card_authenticationRequired")
    asked = charge(gateway, customer, method, uid())
    assert (asked.status, asked.next_action_url) == (ChargeStatus.REQUIRES_ACTION, None)
    assert asked.provider_id is not None
    there = gateway.confirm(asked.provider_id, payment_method=method, return_url="http://127.0.0.1:9/back?invoice=7", idempotency_key=uid())
    assert there.status is ChargeStatus.REQUIRES_ACTION
    assert there.next_action_url is not None
    assert "A payment of 212.12 EUR with the card ending 3184" in requests.get(there.next_action_url, timeout=5).text
    back = requests.post(there.next_action_url, data={"answer": "yes"}, allow_redirects=False, timeout=5)
    assert back.headers["Location"].startswith("http://127.0.0.1:9/back?invoice=7&payment_intent=")
    assert gateway.retrieve_charge(asked.provider_id).status is ChargeStatus.SUCCEEDED
    assert len(charged(provider, customer)) == 1


def test_a_refused_confirmation_charges_nothing(gateway: StripeGateway, provider: ProviderFake, customer: str) -> None:
    import requests

    method = save(gateway, customer, "pm_card_authenticationRequired")
    asked = charge(gateway, customer, method, uid(), off_session=False, return_url="http://127.0.0.1:9/back")
    assert asked.next_action_url is not None
    requests.post(asked.next_action_url, data={"answer": "no"}, allow_redirects=False, timeout=5)
    refused = gateway.retrieve_charge(asked.provider_id or "")
    assert (refused.status, refused.decline_code) == (ChargeStatus.DECLINED, "payment_intent_authentication_failure")
    assert charged(provider, customer) == []


def test_an_unfinished_charge_is_cancelled_and_a_finished_one_stands(
    gateway: StripeGateway, provider: ProviderFake, customer: str, card: str
) -> None:
    provider.mode("requires_action", customer=customer, next=1)
    waiting = charge(gateway, customer, card, uid())
    stopped = gateway.cancel_charge(waiting.provider_id or "", idempotency_key=uid())
    assert stopped.status is ChargeStatus.DECLINED
    assert gateway.confirm(stopped.provider_id or "", payment_method=card, return_url="http://x.example", idempotency_key=uid()) == stopped
    done = charge(gateway, customer, card, uid())
    assert gateway.cancel_charge(done.provider_id or "", idempotency_key=uid()).status is ChargeStatus.SUCCEEDED
    assert len(charged(provider, customer)) == 1


def test_a_bank_debit_is_processing(gateway: StripeGateway, provider: ProviderFake, customer: str, card: str) -> None:
    provider.mode("processing", customer=customer, next=1)
    assert charge(gateway, customer, card, uid()).status is ChargeStatus.PROCESSING


def test_all_charges_are_listed_for_reconciliation(gateway: StripeGateway, provider: ProviderFake, customer: str, card: str) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    attempts = [uid() for _ in range(105)]  # more than one page
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda attempt: charge(gateway, customer, card, attempt, 100), attempts))
    listed = [outcome for outcome in gateway.list_charges(since) if outcome.customer == customer]
    assert {outcome.attempt_id for outcome in listed} == set(attempts)
    assert sorted((o.attempt_id, o.amount_minor) for o in listed) == sorted((a, m) for a, m, _ in charged(provider, customer))
    assert list(gateway.list_charges(since - timedelta(days=2), since - timedelta(days=1))) == []


@pytest.fixture
def paid(gateway: StripeGateway, provider: ProviderFake, customer: str, card: str) -> str:
    return charge(gateway, customer, card, uid(), 10_000).provider_id or ""


def refund(gateway: Gateway, paid: str, amount: int, key: str) -> Any:
    return gateway.refund(charge_id=paid, amount_minor=amount, currency="EUR", refund_id=key, metadata={}, idempotency_key=key)


def test_refunds_never_exceed_the_charge(gateway: StripeGateway, provider: ProviderFake, paid: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: refund(gateway, paid, 1500, uid()), range(12)))
    assert [outcome.status for outcome in outcomes].count(RefundStatus.SUCCEEDED) == 6
    assert {outcome.status for outcome in outcomes} == {RefundStatus.SUCCEEDED, RefundStatus.FAILED}
    assert gateway.retrieve_charge(paid).refunded_minor == 9000
    mine = {outcome.provider_id for outcome in outcomes}
    assert sum(row["amount"] for row in provider.refunds() if row["refund"] in mine) == 9000


def test_a_refund_whose_answer_was_lost_is_found(gateway: StripeGateway, provider: ProviderFake, paid: str) -> None:
    key = uid()
    provider.mode("charge_then_drop", path="/v1/refunds", next=1)
    assert refund(gateway, paid, 2500, key).status is RefundStatus.UNKNOWN
    found = gateway.find_refund(key, charge_id=paid)
    assert found is not None
    assert (found.status, found.amount_minor, found.charge_id) == (RefundStatus.SUCCEEDED, 2500, paid)
    assert gateway.find_refund(uid(), charge_id=paid) is None


def test_payment_methods_are_listed_shown_and_forgotten(gateway: StripeGateway, provider: ProviderFake, customer: str, card: str) -> None:
    other = save(gateway, customer, "pm_card_mastercard")
    shown = gateway.retrieve_payment_method(other)
    assert (shown.brand, shown.last4, shown.exp_month, shown.exp_year, shown.customer) == ("mastercard", "4444", 12, 2034, customer)
    assert {method.id for method in gateway.list_payment_methods(customer)} == {card, other}
    gateway.detach_payment_method(card)
    gateway.detach_payment_method(card)
    gateway.detach_payment_method("pm_never_was")
    assert [method.id for method in gateway.list_payment_methods(customer)] == [other]
    assert charge(gateway, customer, card, uid()).status is ChargeStatus.DECLINED


def test_a_missing_object_is_invalid_and_points_at_the_field(gateway: StripeGateway, provider: ProviderFake, card: str) -> None:
    with pytest.raises(Invalid) as refusal:
        gateway.attach_payment_method("pm_card_visa", customer="cus_nobody", idempotency_key=uid())
    assert refusal.value.code == "resource_missing"
    assert [error.pointer for error in refusal.value.errors] == ["/customer"]


def test_money_entered_by_hand_is_recorded_the_same_way_twice() -> None:
    manual = ManualGateway()
    first, again = (charge(manual, "org", "transfer", "attempt-1") for _ in range(2))
    assert first == again
    assert (first.status, first.amount_minor, first.provider_id) == (ChargeStatus.SUCCEEDED, 21212, "manual_attempt-1")
    assert not manual.automatic
    with pytest.raises(Invalid):
        manual.create_setup_intent(customer="org", idempotency_key="k")


def test_through_a_storm_every_attempt_is_charged_exactly_once(
    gateway: StripeGateway, provider: ProviderFake, customer: str, card: str
) -> None:
    for every, mode in ((3, "charge_then_drop"), (4, "charge_then_500"), (5, "drop_before_charge"), (6, "429")):
        provider.mode(mode, customer=customer, every=every)

    def collect(attempt: str) -> ChargeOutcome:
        for _ in range(10):
            outcome = charge(gateway, customer, card, attempt, 700)
            if outcome.status is ChargeStatus.UNKNOWN:
                outcome = gateway.find_charge(attempt, customer=customer) or outcome
            if outcome.status is not ChargeStatus.UNKNOWN:
                return outcome
        raise AssertionError(f"attempt {attempt} was never resolved")

    attempts = [uid() for _ in range(60)]
    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(collect, attempts))
    assert {outcome.status for outcome in outcomes} == {ChargeStatus.SUCCEEDED}
    assert sorted(charged(provider, customer)) == sorted((attempt, 700, "eur") for attempt in attempts)
