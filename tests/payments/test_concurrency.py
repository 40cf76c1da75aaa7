"""Many at once, and death on the way: however it goes, the customer is charged once and the books say so."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select

from core import selfcheck
from core.audit import SYSTEM
from core.db import db, retrying, transaction
from core.errors import Conflict, Invalid
from core.identity.models import Organization
from core.invoicing.models import Invoice
from core.payments import collect, inbound, methods, queries, reconcile, refund, resolve
from core.payments.attempts import made_at
from core.payments.models import BillingTransaction
from tests.factories import make_organization
from tests.fakes.fixtures import ROOT, ProviderFake
from tests.payments.billing import balances, charging_at, open_invoice, save_card
from tests.payments.dying_worker import POINTS

NOW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def live(committed_app: Flask, provider: ProviderFake) -> Iterator[Flask]:
    with charging_at(provider), committed_app.app_context():
        yield committed_app


def owing() -> tuple[uuid.UUID, uuid.UUID]:
    """A committed account with a card and an open invoice."""
    with transaction() as session:
        organization = make_organization(session)
        organization_id = organization.id
    save_card(organization)
    with transaction() as session:
        organization = session.get_one(Organization, organization_id)
        return organization_id, open_invoice(session, organization, at=NOW).id


def at_once(app: Flask, works: list[Callable[[], Any]]) -> list[Any]:
    """Run all of them in threads of their own; results, or the errors they raised."""

    def run(work: Callable[[], Any]) -> Any:
        with app.app_context():
            try:
                return work()
            except Exception as error:
                return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def charges(fake: ProviderFake, invoice_id: uuid.UUID) -> list[dict[str, Any]]:
    with transaction() as session:
        ids = {str(row) for row in session.scalars(select(BillingTransaction.id).where(BillingTransaction.invoice_id == invoice_id))}
    return [charge for charge in fake.charges() if charge["attempt"] in ids]


def books(organization_id: uuid.UUID) -> dict[str, int]:
    with transaction() as session:
        return balances(session, session.get_one(Organization, organization_id))


def test_ten_clicks_are_one_charge(live: Flask, provider: ProviderFake) -> None:
    organization_id, invoice_id = owing()
    clicks = [lambda: collect.pay(organization_id, invoice_id, at=NOW, actor=SYSTEM).id] * 8
    results = at_once(live, [*clicks, lambda: collect.collect(invoice_id, at=NOW), lambda: collect.collect(invoice_id, at=NOW)])
    attempts = {found for found in results if found is not None}
    assert len(attempts) == 1, results
    assert len(charges(provider, invoice_id)) == 1
    assert books(organization_id) == {"CASH_CLEARING": 11900, "REVENUE": -11900}


def test_cards_are_saved_and_chosen_while_invoices_are_paid(live: Flask, provider: ProviderFake) -> None:
    organization_id, first = owing()
    with transaction() as session:
        organization = session.get_one(Organization, organization_id)
        invoice_ids = [first, *(open_invoice(session, organization, at=NOW).id for _ in range(3))]
        card_id = queries.methods(session, organization_id)[0].id

    def choose() -> None:
        with transaction() as session:
            methods.set_default(session, organization_id, card_id, at=NOW, actor=SYSTEM)

    works: list[Callable[[], Any]] = [lambda i=i: collect.pay(organization_id, i, at=NOW, actor=SYSTEM).status for i in invoice_ids * 3]
    works += [choose, lambda: methods.attach(organization_id, provider_token="pm_card_mastercard", at=NOW, actor=SYSTEM).id] * 4
    results = at_once(live, works)
    assert not [found for found in results if isinstance(found, Exception)], results
    assert [len(charges(provider, invoice_id)) for invoice_id in invoice_ids] == [1, 1, 1, 1]
    with transaction() as session:
        assert sum(method.is_default for method in queries.methods(session, organization_id)) == 1


def test_thirty_two_refunds_never_give_back_more_than_was_taken(live: Flask, provider: ProviderFake) -> None:
    organization_id, invoice_id = owing()
    paid = collect.pay(organization_id, invoice_id, at=NOW, actor=SYSTEM).id

    def give_back() -> Any:
        return refund.refund(organization_id, paid, reason="race", at=NOW, actor=SYSTEM, amount_minor=1000).status

    results = at_once(live, [give_back] * 32)
    counted = Counter(type(found).__name__ if isinstance(found, Exception) else found for found in results)
    assert counted["succeeded"] == 11, counted
    assert set(counted) <= {"succeeded", Invalid.__name__, Conflict.__name__}
    charge = charges(provider, invoice_id)[0]["charge"]
    assert sum(found["amount"] for found in provider.refunds() if found["charge"] == charge) == 11000
    assert books(organization_id)["CASH_CLEARING"] == 900


def test_the_same_event_and_the_answer_at_once_settle_once(live: Flask, provider: ProviderFake) -> None:
    organization_id, invoice_id = owing()
    with transaction() as session:
        attempt = collect.begin(session, invoice_id, at=NOW)
    assert attempt is not None
    outcome = collect.charge(attempt)
    inbound.backfill(provider="stripe", since=attempt.made_at - timedelta(seconds=2))
    with transaction() as session:
        number = session.scalar(select(func.max(inbound.InboundEvent.id)).where(inbound.InboundEvent.object_id == outcome.provider_id))
    assert number is not None

    def record() -> None:
        def once() -> None:
            with transaction() as session:
                collect.record(session, attempt.id, outcome, at=NOW)

        retrying(once)

    results = at_once(live, [record, lambda: inbound.process(number, now=NOW), lambda: resolve.resolve(attempt.id, now=NOW)] * 5)
    assert not [found for found in results if isinstance(found, Exception)], results
    assert books(organization_id) == {"CASH_CLEARING": 11900, "REVENUE": -11900}


@pytest.mark.parametrize("where", POINTS)
def test_a_worker_killed_on_the_way_charges_once(live: Flask, provider: ProviderFake, where: str) -> None:
    organization_id, invoice_id = owing()
    url = live.config["SQLALCHEMY_DATABASE_URI"]
    command = [sys.executable, "-m", "tests.payments.dying_worker", url, provider.url, str(invoice_id), where]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with transaction() as session:
        attempt_id = session.scalars(select(BillingTransaction.id).where(BillingTransaction.invoice_id == invoice_id)).one()
        assert session.get_one(BillingTransaction, attempt_id).status == "pending"
    assert collect.collect(invoice_id, at=NOW + timedelta(days=9)) is None  # nothing new while it is open
    later = made_at(attempt_id) + timedelta(minutes=2)
    resolve.resolve(attempt_id, now=later)
    collect.collect(invoice_id, at=later)
    resolve.resolve(attempt_id, now=later)
    assert len(charges(provider, invoice_id)) == 1
    assert books(organization_id) == {"CASH_CLEARING": 11900, "REVENUE": -11900}
    with transaction() as session:
        assert session.get_one(Invoice, invoice_id).status == "paid"
    db.session.remove()


def test_a_bad_day_at_the_provider_ends_with_equal_books(live: Flask, provider: ProviderFake) -> None:
    """Of sixty invoices a fifth lose the answer after the charge, a tenth get a 500 after it, a tenth never arrive, a fifth are refused."""
    owed = [owing() for _ in range(60)]
    began = datetime.now(UTC) - timedelta(seconds=2)
    for mode, every in (("charge_then_drop", 5), ("charge_then_500", 10), ("drop_before_charge", 10), ("decline:insufficient_funds", 5)):
        provider.mode(mode, every=every)
    at_once(live, [lambda invoice_id=invoice_id: collect.collect(invoice_id, at=NOW) for _, invoice_id in owed])
    provider.heal()
    with transaction() as session:
        first = Counter(session.scalars(select(BillingTransaction.status).where(BillingTransaction.status != "succeeded")))
    assert first["unknown"] > 12, first
    assert first["failed"] > 5, first
    now = datetime.now(UTC) + timedelta(minutes=2)
    for _ in range(2):
        with transaction() as session:
            waiting = queries.unresolved_ids(session, now=now)
        at_once(live, [lambda attempt=attempt: resolve.resolve(attempt, now=now) for attempt in waiting] or [lambda: None])
        at_once(live, [lambda invoice_id=invoice_id: collect.collect(invoice_id, at=now + timedelta(days=3)) for _, invoice_id in owed])
    with transaction() as session:
        assert queries.unresolved_ids(session, now=now) == []
        statuses = Counter(session.scalars(select(Invoice.status).where(Invoice.id.in_([invoice_id for _, invoice_id in owed]))))
    assert statuses == {"paid": 60}
    times = Counter(len(charges(provider, invoice_id)) for _, invoice_id in owed)
    assert times == {1: 60}
    ours = {row.provider_id for row in reconcile.differences(since=began, until=now)}
    with transaction() as session:
        mine = set(
            session.scalars(
                select(BillingTransaction.provider_transaction_id).where(
                    BillingTransaction.invoice_id.in_([invoice_id for _, invoice_id in owed])
                )
            )
        )
    assert not ours & mine
    with transaction() as session:
        assert selfcheck.run(session) == []
