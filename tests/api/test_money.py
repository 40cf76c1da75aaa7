"""Cards, charges, declines and refunds through the API, with a provider that speaks HTTP and keeps its own record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import Api, organization_body
from tests.fakes.fixtures import ProviderFake, provider_fake
from tests.payments.billing import charging_at


@pytest.fixture(scope="module")
def running() -> Iterator[ProviderFake]:
    with provider_fake() as fake:
        yield fake


@pytest.fixture
def provider(running: ProviderFake, api: Api) -> Iterator[ProviderFake]:
    """The provider this process's product charges at."""
    with charging_at(running):
        yield running
    running.heal()


@pytest.fixture
def customer(api: Api, provider: ProviderFake) -> dict[str, Any]:
    return api.made("/billing/organizations", organization_body(tax_rate_percent="19"))


def owed(api: Api, customer: dict[str, Any], price: str = "100.00") -> dict[str, Any]:
    """An open invoice of `price` and tax."""
    lines = [{"description": "Workshop", "unit_price": price}]
    drafted = api.made("/billing/invoices", {"organization_id": customer["id"], "line_items": lines})
    return api.made(f"/billing/invoices/{drafted['id']}/finalization", None)


def card(api: Api, customer: dict[str, Any], token: str = "pm_card_visa", **given: Any) -> dict[str, Any]:
    return api.made("/billing/payment-methods", {"organization_id": customer["id"], "type": "card", "provider_token": token, **given})


def test_a_saved_card_pays_an_invoice_once(api: Api, provider: ProviderFake, customer: dict[str, Any]) -> None:
    saved = card(api, customer)
    assert (saved["last_four"], saved["is_default"]) == ("4242", True)
    invoice = owed(api, customer)
    before = len(provider.charges())
    first = api.post(f"/billing/invoices/{invoice['id']}/payments", {}, key="pay-1")
    assert first.status_code == 201, first.text
    assert (first.get_json()["status"], first.get_json()["amount"]) == ("succeeded", "119.00")
    assert api.post(f"/billing/invoices/{invoice['id']}/payments", {}, key="pay-1").data == first.data
    assert api.post(f"/billing/invoices/{invoice['id']}/payments", {}).status_code in {201, 409}
    assert [charge["amount"] for charge in provider.charges()[before:]] == [11900]
    paid = api.get(f"/billing/invoices/{invoice['id']}").get_json()
    assert (paid["status"], paid["amount_due"], len(paid["payments"])) == ("paid", "0.00", 1)


def test_a_declined_card_is_402_and_charges_nothing(api: Api, provider: ProviderFake, customer: dict[str, Any]) -> None:
    card(api, customer, "pm_card_chargeCustomerFail")
    invoice = owed(api, customer)
    before = len(provider.charges())
    answer = api.post(f"/billing/invoices/{invoice['id']}/payments", {}, key="pay-1")
    assert (answer.status_code, answer.get_json()["code"]) == (402, "payment_declined")
    assert answer.mimetype == "application/problem+json"
    again = api.post(f"/billing/invoices/{invoice['id']}/payments", {}, key="pay-1")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (402, "true")
    assert [charge for charge in provider.charges()[before:] if charge.get("status") == "succeeded"] == []
    assert api.get(f"/billing/invoices/{invoice['id']}").get_json()["payments"][0]["status"] == "failed"


def test_a_lost_answer_is_202_and_not_charged_again(api: Api, provider: ProviderFake, customer: dict[str, Any]) -> None:
    card(api, customer)
    invoice = owed(api, customer)
    before = len(provider.charges())
    provider.mode("charge_then_drop", next=1)
    answer = api.post(f"/billing/invoices/{invoice['id']}/payments", {})
    assert answer.status_code in {201, 202}, answer.text
    assert api.post(f"/billing/invoices/{invoice['id']}/payments", {}).status_code in {201, 202, 409}
    assert len(provider.charges()) == before + 1


def test_a_payment_is_refunded_in_part_and_never_above_it(api: Api, provider: ProviderFake, customer: dict[str, Any]) -> None:
    card(api, customer)
    invoice = owed(api, customer)
    path = f"/billing/invoices/{invoice['id']}/refunds"
    assert api.post(path, {"reason": "Before payment"}).get_json()["code"] == "nothing_paid"
    api.made(f"/billing/invoices/{invoice['id']}/payments", {})
    part = api.post(path, {"reason": "One day less", "amount": "19.00"})
    assert (part.status_code, part.get_json()["amount"], part.get_json()["type"]) == (201, "19.00", "refund"), part.text
    assert api.post(path, {"reason": "Too much", "amount": "100.01"}).status_code in {409, 422}
    assert api.post(path, {"reason": "Half a cent", "amount": "0.005"}).get_json()["errors"][0]["pointer"] == "/amount"
    assert api.made(path, {"reason": "The rest"})["amount"] == "100.00"


def test_methods_are_listed_made_default_and_removed(api: Api, provider: ProviderFake, customer: dict[str, Any]) -> None:
    first = card(api, customer)
    second = card(api, customer, "pm_card_mastercard", is_default=False)
    assert second["is_default"] is False
    assert api.made(f"/billing/payment-methods/{second['id']}/default", None)["is_default"] is True
    shown = api.get("/billing/payment-methods", organization_id=customer["id"]).get_json()["data"]
    assert {row["id"]: row["is_default"] for row in shown} == {first["id"]: False, second["id"]: True}
    assert api.call("DELETE", f"/billing/payment-methods/{first['id']}").status_code == 204
    assert api.call("DELETE", f"/billing/payment-methods/{first['id']}").status_code == 404
    assert [row["id"] for row in api.get("/billing/payment-methods", organization_id=customer["id"]).get_json()["data"]] == [second["id"]]


def test_a_token_that_is_none_is_refused_with_a_pointer(api: Api, provider: ProviderFake, customer: dict[str, Any]) -> None:
    answer = api.post("/billing/payment-methods", {"organization_id": customer["id"], "provider_token": "pm_nothing"})
    assert answer.status_code == 422, answer.text
    assert answer.get_json()["errors"][0]["pointer"] == "/provider_token"


def test_a_page_of_the_provider_is_opened(api: Api, provider: ProviderFake, customer: dict[str, Any]) -> None:
    body = {
        "organization_id": customer["id"],
        "success_url": "https://app.example/done?s={SESSION_ID}",
        "cancel_url": "https://app.example/",
    }
    assert api.made("/billing/payment-methods/setup-sessions", body)["url"].startswith(provider.url)


def test_an_unsigned_webhook_is_refused_and_a_large_one_too(api: Api, provider: ProviderFake) -> None:
    answer = api.client.post("/api/v1/webhooks/stripe", data=b'{"id": "evt_1"}', headers={"Stripe-Signature": "t=1,v1=00"})
    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_signature")
    assert api.client.post("/api/v1/webhooks/stripe", data=b"x" * (1024 * 1024 + 1)).status_code == 413
