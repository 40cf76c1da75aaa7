"""Saving a card: the provider's hosted page, with a person in a browser that runs no JavaScript."""

import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from playwright.sync_api import Page, sync_playwright

from core.payments.gateways.base import ChargeStatus, SetupSession, SetupStatus
from core.payments.gateways.stripe import StripeGateway
from tests.fakes.fixtures import ProviderFake

CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
CHROMIUM_ARGUMENTS += ["--disable-component-update", "--disable-sync"]


def uid() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def customer(gateway: StripeGateway) -> str:
    return gateway.create_customer(reference=uid(), name="Ada GmbH", email=None, idempotency_key=uid())


def open_session(gateway: StripeGateway, customer: str, site: str = "http://127.0.0.1:9") -> SetupSession:
    return gateway.create_setup_session(
        customer=customer,
        success_url=f"{site}/portal/payment-methods?session={{SESSION_ID}}",
        cancel_url=f"{site}/portal/payment-methods",
        currency="EUR",
        idempotency_key=uid(),
    )


def choose(session: SetupSession, number: str) -> requests.Response:
    assert session.url is not None
    return requests.post(session.url, data={"card": number, "name": "Ada L"}, allow_redirects=False, timeout=5)


def test_a_chosen_card_is_saved_and_can_be_charged(gateway: StripeGateway, provider: ProviderFake, customer: str) -> None:
    session = open_session(gateway, customer)
    assert (session.status, session.payment_method, session.customer) == (SetupStatus.OPEN, None, customer)
    back = choose(session, "4242424242424242")
    assert back.headers["Location"] == f"http://127.0.0.1:9/portal/payment-methods?session={session.id}"
    done = gateway.retrieve_setup_session(session.id)
    assert (done.status, done.url) == (SetupStatus.COMPLETE, None)
    assert [card.id for card in gateway.list_payment_methods(customer)] == [done.payment_method]
    outcome = gateway.charge(
        customer=customer,
        payment_method=done.payment_method or "",
        amount_minor=500,
        currency="EUR",
        attempt_id=uid(),
        description="",
        metadata={},
        idempotency_key=uid(),
    )
    assert outcome.status is ChargeStatus.SUCCEEDED
    kinds = {event.type: event.object_id for event in gateway.list_events(outcome.created or pytest.fail("no time"))}
    assert kinds["checkout.session.completed"] == session.id
    assert kinds["setup_intent.succeeded"] == done.setup_intent


@pytest.mark.parametrize(
    ("number", "status", "reason"),
    [
        ("4000000000000002", 402, "Your card was declined."),
        ("4000000000009995", 402, "Your card has insufficient funds."),
        ("", 422, "Choose a card."),
        ("1234", 422, "Choose a card."),
    ],
)
def test_a_refused_card_is_explained_and_another_can_be_chosen(
    gateway: StripeGateway, provider: ProviderFake, customer: str, number: str, status: int, reason: str
) -> None:
    session = open_session(gateway, customer)
    answer = choose(session, number)
    assert answer.status_code == status
    assert reason in answer.text
    assert gateway.retrieve_setup_session(session.id).status is SetupStatus.OPEN
    assert choose(session, "5555555555554444").status_code == 303
    assert [card.last4 for card in gateway.list_payment_methods(customer)] == ["4444"]


def test_a_page_is_used_once(gateway: StripeGateway, provider: ProviderFake, customer: str) -> None:
    session = open_session(gateway, customer)
    choose(session, "4242424242424242")
    choose(session, "5555555555554444")
    assert session.url is not None
    assert requests.get(session.url, timeout=5).status_code == 410
    assert len(gateway.list_payment_methods(customer)) == 1
    assert requests.get(f"{provider.url}/hosted/setup/cs_nothing", timeout=5).status_code == 404


def test_the_payment_element_has_its_secret(gateway: StripeGateway, provider: ProviderFake, customer: str) -> None:
    intent = gateway.create_setup_intent(customer=customer, idempotency_key=uid())
    assert intent.client_secret is not None
    assert intent.client_secret.startswith(f"{intent.id}_secret_")
    assert gateway.retrieve_setup_intent(intent.id) == intent
    assert intent.status is SetupStatus.OPEN


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Where the person comes back to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Back</title><h1>Welcome back</h1>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_ARGUMENTS)
        context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 900})
        yield context.new_page()
        browser.close()


@pytest.mark.browser
def test_a_person_saves_a_card_that_the_bank_asks_about(
    gateway: StripeGateway, provider: ProviderFake, customer: str, site: str, page: Page
) -> None:
    session = open_session(gateway, customer, site)
    page.goto(session.url or "")
    page.get_by_label("bank asks to confirm once").check()
    page.get_by_label("Name on the card").fill("Ada Lovelace")
    page.get_by_role("button", name="Save card").click()
    page.get_by_role("button", name="Refuse").click()
    assert "could not confirm that it is you" in page.get_by_role("alert").inner_text()
    page.get_by_label("bank asks to confirm once").check()
    page.get_by_role("button", name="Save card").click()
    page.get_by_role("button", name="Confirm").click()
    assert page.get_by_role("heading").inner_text() == "Welcome back"
    assert f"session={session.id}" in page.url
    done = gateway.retrieve_setup_session(session.id)
    assert gateway.retrieve_payment_method(done.payment_method or "").last4 == "3155"
    values = {"amount_minor": 500, "currency": "EUR", "attempt_id": uid(), "description": "", "metadata": {}, "idempotency_key": uid()}
    outcome = gateway.charge(customer=customer, payment_method=done.payment_method or "", **values)  # type: ignore[arg-type]
    assert outcome.status is ChargeStatus.SUCCEEDED  # confirmed once while saving, so the bank does not ask again
