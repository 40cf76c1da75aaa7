"""The provider's events, delivered over HTTP: forged, twice, too early, in any order, or not at all."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import requests
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.db import db
from core.payments import collect, inbound, queries, reconcile, refund, setups
from core.payments.attempts import made_at
from core.payments.gateways.base import ChargeOutcome, ChargeStatus, InvalidSignature
from core.payments.gateways.stripe import StripeGateway
from core.payments.models import BillingTransaction, InboundEvent, PaymentMethod
from core.payments.reconcile import Booked, compare
from tests.factories import make_organization
from tests.fakes.fixtures import ProviderFake
from tests.payments.billing import NOW, balances, facts, open_invoice, save_card

Delivery = tuple[bytes, dict[str, str]]


@pytest.fixture
def mailbox(charging: ProviderFake) -> Iterator[list[Delivery]]:
    """What the provider delivered to our address: raw body and headers."""
    received: list[Delivery] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.rfile.read(int(self.headers["Content-Length"])), dict(self.headers)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    charging.webhooks(url=f"http://127.0.0.1:{server.server_port}/hook")
    yield received
    charging.webhooks(url=None)
    server.shutdown()
    server.server_close()


def told(mailbox: list[Delivery], *kinds: str, seconds: float = 8) -> list[Delivery]:
    """Wait until an event of each kind has been delivered; those, in the order of `kinds`."""
    end = time.monotonic() + seconds
    while True:
        found = {json.loads(body)["type"]: (body, headers) for body, headers in mailbox}
        if set(kinds) <= set(found):
            return [found[kind] for kind in kinds]
        assert time.monotonic() < end, f"only {sorted(found)} were delivered"
        time.sleep(0.02)


def keep(session: Session, delivery: Delivery) -> int | None:
    number = inbound.store(session, "stripe", *delivery, at=datetime.now(UTC))
    session.commit()
    return number


def handle(session: Session, *deliveries: Delivery) -> list[str | None]:
    numbers = [keep(session, delivery) for delivery in deliveries]
    return [inbound.process(number, now=NOW) for number in numbers if number is not None]


def test_an_event_is_kept_once_and_raw(session: Session, charging: ProviderFake, mailbox: list[Delivery]) -> None:
    charging.webhooks(dup=3)
    save_card(make_organization(session))
    ((body, headers),) = told(mailbox, "payment_method.attached")
    number = keep(session, (body, headers))
    assert number is not None
    assert keep(session, (body, headers)) is None
    row = session.get_one(InboundEvent, number)
    assert (row.payload, row.type, row.processed_at) == (body, "payment_method.attached", None)
    assert queries.pending_inbound(session, now=NOW) == [number]
    assert inbound.process(number, now=NOW) == "up to date"
    assert inbound.process(number, now=NOW) == "up to date"
    assert queries.pending_inbound(session, now=NOW + timedelta(days=9)) == []


def test_a_forged_event_leaves_no_row(session: Session, charging: ProviderFake, mailbox: list[Delivery]) -> None:
    save_card(make_organization(session))
    ((body, headers),) = told(mailbox, "payment_method.attached")
    signature = headers["Stripe-Signature"]
    forgeries: list[Delivery] = [
        (body.replace(b"4242", b"4243"), headers),
        (body, {}),
        (body, {"Stripe-Signature": signature.replace("v1=", "v0=")}),
        (body, {"Stripe-Signature": signature[:-1] + ("0" if signature[-1] != "0" else "1")}),
        (b"", headers),
    ]
    for forgery in forgeries:
        with pytest.raises(InvalidSignature):
            inbound.store(session, "stripe", *forgery, at=datetime.now(UTC))
    with pytest.raises(InvalidSignature):
        inbound.store(session, "stripe", body, headers, at=datetime.now(UTC) + timedelta(seconds=302))
    assert session.scalar(select(func.count()).select_from(InboundEvent)) == 0


def test_news_before_the_answer_settles_once(session: Session, charging: ProviderFake, mailbox: list[Delivery]) -> None:
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    attempt = collect.begin(session, invoice.id, at=NOW)
    assert attempt is not None
    session.commit()
    outcome = collect.charge(attempt)
    deliveries = told(mailbox, "payment_intent.succeeded", "charge.succeeded")
    assert handle(session, *deliveries) == ["charge is succeeded", "nothing to do"]
    collect.record(session, attempt.id, outcome, at=NOW)
    session.expire_all()
    assert (invoice.status, len(facts(session, "payment.succeeded"))) == ("paid", 1)
    assert balances(session, organization) == {"CASH_CLEARING": 11900, "REVENUE": -11900}


def test_any_order_of_a_decline_a_payment_and_a_refund_ends_the_same(
    session: Session, charging: ProviderFake, mailbox: list[Delivery]
) -> None:
    organization = make_organization(session)
    save_card(organization, "pm_card_chargeCustomerFail")
    invoice = open_invoice(session, organization)
    collect.collect(invoice.id, at=NOW)
    save_card(organization)
    attempt = collect.begin(session, invoice.id, at=NOW)
    assert attempt is not None
    session.commit()
    give_back(charging, collect.charge(attempt).provider_id, 900)
    deliveries = told(mailbox, "payment_intent.payment_failed", "payment_intent.succeeded", "charge.refunded")
    connection: Any = db.engines[None]
    for order in itertools.permutations(deliveries):
        before = connection.begin_nested()
        handle(session, *order)
        rows = session.scalars(select(BillingTransaction).order_by(BillingTransaction.id))
        assert [row.status for row in rows] == ["failed", "succeeded", "succeeded"]
        assert balances(session, organization) == {"CASH_CLEARING": 11000, "RECEIVABLE": 900, "REVENUE": -11900}
        session.rollback()
        before.rollback()
        session.expire_all()


def give_back(fake: ProviderFake, charge_id: str | None, amount: int) -> None:
    """Somebody refunds at the provider's own site."""
    form = {"payment_intent": charge_id, "amount": str(amount)}
    requests.post(f"{fake.url}/v1/refunds", data=form, auth=(fake.api_key, ""), timeout=5).raise_for_status()


def test_a_refund_made_at_the_provider_is_adopted_once(
    session: Session, charging: ProviderFake, mailbox: list[Delivery], gateway: StripeGateway
) -> None:
    organization = make_organization(session)
    save_card(organization)
    paid = collect.pay(organization.id, open_invoice(session, organization).id, at=NOW, actor=SYSTEM)
    give_back(charging, paid.provider_transaction_id, 500)
    assert handle(session, *told(mailbox, "charge.refunded", "refund.created")) == ["charge is succeeded"] * 2
    rows = session.scalars(select(BillingTransaction).where(BillingTransaction.type == "refund")).all()
    assert [(row.amount_minor, row.status) for row in rows] == [(500, "succeeded")]
    assert balances(session, organization)["CASH_CLEARING"] == 11400


def test_an_event_about_an_unknown_attempt_waits_and_is_given_up_after_three_days(
    session: Session, charging: ProviderFake, mailbox: list[Delivery], gateway: StripeGateway
) -> None:
    organization = make_organization(session)
    method = save_card(organization)
    gateway.charge(
        customer=method.provider_customer_id or "",
        payment_method=method.provider_payment_method_id,
        amount_minor=500,
        currency="EUR",
        attempt_id=str(uuid.uuid4()),
        description="somebody's",
        metadata={},
        idempotency_key=str(uuid.uuid4()),
    )
    (delivery,) = told(mailbox, "payment_intent.succeeded")
    number = keep(session, delivery)
    assert number is not None
    row = session.get_one(InboundEvent, number)
    waits = []
    at = row.received_at
    for _ in range(4):
        assert inbound.process(number, now=at) is None
        session.refresh(row)
        assert row.next_try_at is not None
        waits.append((row.next_try_at - at).total_seconds())
        at = row.next_try_at
    assert waits == [5, 10, 30, 60]
    outcome = inbound.process(number, now=row.received_at + timedelta(days=3, seconds=1))
    assert outcome is not None
    assert outcome.startswith("given up: no attempt")


def test_an_attempt_named_by_another_customers_charge_is_not_touched(
    session: Session, charging: ProviderFake, mailbox: list[Delivery], gateway: StripeGateway
) -> None:
    victim, thief = make_organization(session), make_organization(session)
    save_card(victim)
    stolen = save_card(thief)
    invoice = open_invoice(session, victim)
    attempt = collect.begin(session, invoice.id, at=NOW)
    assert attempt is not None
    session.commit()
    gateway.charge(
        customer=stolen.provider_customer_id or "",
        payment_method=stolen.provider_payment_method_id,
        amount_minor=attempt.amount_minor,
        currency="EUR",
        attempt_id=str(attempt.id),
        description="not theirs",
        metadata={"organization_id": str(victim.id)},
        idempotency_key=str(uuid.uuid4()),
    )
    (outcome,) = handle(session, *told(mailbox, "payment_intent.succeeded"))
    assert outcome is not None
    assert outcome.startswith("refused")
    session.expire_all()
    assert (invoice.status, session.get_one(BillingTransaction, attempt.id).status) == ("open", "pending")


def test_a_page_the_customer_never_came_back_from_is_finished_by_its_event(
    session: Session, charging: ProviderFake, mailbox: list[Delivery]
) -> None:
    organization = make_organization(session)
    page = setups.start(organization.id, success_url="http://127.0.0.1:9/", cancel_url="http://127.0.0.1:9/", at=NOW)
    requests.post(page.url, data={"card": "4242424242424242", "name": "Ada L"}, allow_redirects=False, timeout=5)
    (outcome,) = handle(session, *told(mailbox, "checkout.session.completed"))
    assert outcome == "payment method kept"
    assert session.scalar(select(func.count()).select_from(PaymentMethod)) == 1


def test_events_that_were_never_delivered_are_fetched(session: Session, charging: ProviderFake) -> None:
    charging.webhooks(drop=True)
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    attempt = collect.begin(session, invoice.id, at=NOW)
    assert attempt is not None
    session.commit()
    collect.charge(attempt)
    since = made_at(attempt.id) - timedelta(seconds=2)
    assert inbound.backfill(provider="stripe", since=since) > 0
    assert inbound.backfill(provider="stripe", since=since) == 0
    for number in queries.pending_inbound(session, now=NOW):
        inbound.process(number, now=NOW)
    session.expire_all()
    assert invoice.status == "paid"


def test_planted_differences_are_all_reported_and_nothing_else() -> None:
    at = datetime(2026, 6, 1, tzinfo=UTC)

    def charge(name: str, **given: Any) -> ChargeOutcome:
        values = {"provider_id": f"pi_{name}", "attempt_id": name, "amount_minor": 100, "currency": "EUR", "created": at, **given}
        return ChargeOutcome(**{"status": ChargeStatus.SUCCEEDED, **values})

    def ours(name: str, **given: Any) -> Booked:
        values = {"provider_id": f"pi_{name}", "status": "succeeded", "amount_minor": 100, "currency": "EUR", "refunded_minor": 0}
        return Booked(name, **{**values, **given})

    same = [str(number) for number in range(2_000)]
    booked = [ours(name) for name in same]
    booked += [
        ours("a", amount_minor=99),
        ours("c", currency="USD"),
        ours("s", status="failed"),
        ours("r", refunded_minor=5),
        ours("there"),
    ]
    booked += [ours("declined", status="failed"), ours("lost", status="failed", provider_id=None)]
    theirs = [charge(name) for name in same] + [charge(name) for name in "acsr"] + [charge("here", attempt_id=None)]
    theirs += [charge("declined", status=ChargeStatus.DECLINED), charge("noise", attempt_id=None, status=ChargeStatus.DECLINED)]
    found = compare(booked, theirs)
    assert sorted((item.kind, item.provider_id) for item in found) == [
        ("amount", "pi_a"),
        ("currency", "pi_c"),
        ("missing_here", "pi_here"),
        ("missing_there", "pi_there"),
        ("refunded", "pi_r"),
        ("status", "pi_s"),
    ]


def test_what_was_charged_and_recorded_has_no_differences(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    save_card(organization)
    paid = collect.pay(organization.id, open_invoice(session, organization).id, at=NOW, actor=SYSTEM)
    refund.refund(organization.id, paid.id, reason="x", at=NOW, actor=SYSTEM, amount_minor=5)
    since = made_at(paid.id).replace(microsecond=0)
    mine = [found for found in reconcile.differences(since=since, until=since + timedelta(hours=1)) if found.transaction_id == str(paid.id)]
    assert mine == []
