"""Events from the provider: signed, checked over the raw bytes, delivered again until they are taken."""

import json
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from core.errors import Invalid
from core.payments.gateways.base import InboundEvent, InvalidSignature
from core.payments.gateways.manual import ManualGateway
from core.payments.gateways.stripe import StripeGateway
from tests.fakes.fixtures import ProviderFake
from tests.fakes.provider.events import signature

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOW = int(AT.timestamp())
BODY = json.dumps(
    {"id": "evt_1", "type": "payment_intent.succeeded", "created": NOW, "data": {"object": {"id": "pi_1", "object": "payment_intent"}}}
).encode()
SECRETS = ("whsec_new", "whsec_old")


def parse(header: str | None, body: bytes = BODY, at: datetime = AT, secrets: tuple[str, ...] = SECRETS) -> InboundEvent:
    headers: Mapping[str, str] = {} if header is None else {"STRIPE-Signature": header}
    return StripeGateway("sk_test_x", webhook_secrets=secrets).parse_webhook(body, headers, at=at)


@pytest.mark.parametrize("secret", SECRETS)
def test_each_active_secret_is_enough(secret: str) -> None:
    event = parse(signature(BODY, secret, NOW))
    assert (event.id, event.type, event.object_id, event.object_type) == ("evt_1", "payment_intent.succeeded", "pi_1", "payment_intent")
    assert event.created == AT


@pytest.mark.parametrize(("seconds", "accepted"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_a_signature_is_good_for_five_minutes_both_ways(seconds: int, accepted: bool) -> None:
    header = signature(BODY, SECRETS[0], NOW + seconds)
    if accepted:
        assert parse(header).id == "evt_1"
    else:
        with pytest.raises(InvalidSignature):
            parse(header)


GOOD = signature(BODY, SECRETS[0], NOW)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "t",
        f"t={NOW}",
        GOOD.replace("v1=", "v0="),
        GOOD.replace(f"t={NOW},", ""),
        GOOD.replace(str(NOW), str(NOW + 1)),
        GOOD.replace(str(NOW), "now"),
        GOOD.replace(str(NOW), "9" * 5000),
        f"t={NOW},v1=",
        f"t={NOW},v1=ü",
        f"t={NOW},v1={'0' * 64}",
        GOOD[:-1],
        GOOD + "0",
        GOOD.upper(),
        signature(BODY, "whsec_wrong", NOW),
        signature(BODY + b" ", SECRETS[0], NOW),
        ",,,",
        "=" * 100,
    ],
)
def test_a_forged_header_is_refused(header: str | None) -> None:
    with pytest.raises(InvalidSignature):
        parse(header)


def test_no_secret_and_an_empty_secret_accept_nothing() -> None:
    for secrets in ((), ("",), (" ",)):
        with pytest.raises(InvalidSignature):
            parse(signature(BODY, "", NOW), secrets=secrets)


def test_any_changed_byte_of_body_or_header_is_refused() -> None:
    dice = random.Random(7)
    for _ in range(500):
        body, header = bytearray(BODY), bytearray(GOOD.encode())
        target = dice.choice((body, header))
        target[dice.randrange(len(target))] ^= 1 << dice.randrange(8)
        with pytest.raises(InvalidSignature):
            parse(header.decode("latin-1"), bytes(body))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"id": 1}', b"\xff", b'{"id":"evt_1"'])
def test_a_signed_body_that_is_no_event_is_a_clear_error(body: bytes) -> None:
    with pytest.raises((Invalid, InvalidSignature)):
        parse(signature(body, SECRETS[0], NOW), body)


def test_nothing_can_be_genuine_where_no_provider_is() -> None:
    with pytest.raises(InvalidSignature):
        ManualGateway().parse_webhook(BODY, {"Stripe-Signature": GOOD}, at=AT)


@dataclass
class Receiver:
    """A web server that keeps what it is sent and answers the statuses it is told to, then 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    received: "queue.Queue[tuple[bytes, dict[str, str]]]" = field(default_factory=queue.Queue)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    result = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(result.statuses.pop(0) if result.statuses else 200)
            self.end_headers()
            result.received.put((body, dict(self.headers)))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    result.url = f"http://127.0.0.1:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield result
    server.shutdown()
    server.server_close()


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def pay(gateway: StripeGateway) -> str:
    customer = gateway.create_customer(reference="org", name="Ada", email=None, idempotency_key=str(uuid.uuid4()))
    card = gateway.attach_payment_method("pm_card_visa", customer=customer, idempotency_key=str(uuid.uuid4()))
    attempt = str(uuid.uuid4())
    outcome = gateway.charge(
        customer=customer,
        payment_method=card.id,
        amount_minor=1000,
        currency="EUR",
        attempt_id=attempt,
        description="",
        metadata={},
        idempotency_key=attempt,
    )
    return outcome.provider_id or ""


def take(gateway: StripeGateway, receiver: Receiver, kind: str, count: int = 1) -> list[InboundEvent]:
    found: list[InboundEvent] = []
    while len(found) < count:
        body, headers = receiver.received.get(timeout=5)
        event = gateway.parse_webhook(body, headers, at=datetime.now(UTC))
        found += [event] if event.type == kind else []
    return found


def test_a_charge_is_told_with_a_signature_that_verifies(gateway: StripeGateway, provider: ProviderFake, receiver: Receiver) -> None:
    provider.webhooks(url=receiver.url)
    intent = pay(gateway)
    (event,) = take(gateway, receiver, "payment_intent.succeeded")
    assert event.object_id == intent
    assert "_number" not in json.dumps(event.payload)


def test_an_event_is_delivered_again_until_it_is_taken(gateway: StripeGateway, provider: ProviderFake, receiver: Receiver) -> None:
    receiver.statuses = [500] * 50
    provider.webhooks(url=receiver.url)
    pay(gateway)
    (first,) = take(gateway, receiver, "payment_intent.succeeded")
    receiver.statuses.clear()
    (second,) = take(gateway, receiver, "payment_intent.succeeded")
    assert second.id == first.id
    wait_for(lambda: [row["status"] for row in provider.deliveries() if row["event"] == first.id] == [500, 200])


def test_duplicates_and_replays_carry_one_id(gateway: StripeGateway, provider: ProviderFake, receiver: Receiver) -> None:
    provider.webhooks(url=receiver.url, dup=3, shuffle=True)
    pay(gateway)
    events = take(gateway, receiver, "payment_intent.succeeded", 3)
    provider.replay(events[0].id, times=2)
    events += take(gateway, receiver, "payment_intent.succeeded", 2)
    assert len({event.id for event in events}) == 1


def test_dropped_events_are_still_listed(gateway: StripeGateway, provider: ProviderFake, receiver: Receiver) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    provider.webhooks(url=receiver.url, drop=True)
    intent = pay(gateway)
    listed = {event.id for event in gateway.list_events(since) if (event.type, event.object_id) == ("payment_intent.succeeded", intent)}
    assert len(listed) == 1
    time.sleep(0.3)  # far longer than a delivery takes
    assert listed.isdisjoint(row["event"] for row in provider.deliveries())
