"""The actors: each finds its work by state, and a message that arrives twice changes nothing."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from types import ModuleType

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core import clock
from core.audit import SYSTEM
from core.errors import Conflict, NotFound
from core.identity.models import TestClock
from core.invoicing import void
from core.payments import collect, inbound, queries, resolve
from core.payments.attempts import made_at
from core.payments.models import BillingTransaction
from tests.factories import make_organization
from tests.fakes.fixtures import ProviderFake
from tests.payments.billing import NOW, open_invoice, save_card


@pytest.fixture
def actors(app: Flask) -> ModuleType:
    """The actors; importing them needs a queue, which `app` has put in place."""
    from workers import payments

    return payments


def statuses(session: Session) -> list[str]:
    session.expire_all()
    return list(session.scalars(select(BillingTransaction.status).order_by(BillingTransaction.id)))


def test_collecting_lives_in_the_customers_time(session: Session, charging: ProviderFake, actors: ModuleType) -> None:
    test_clock = TestClock(frozen_time=NOW - timedelta(days=1))
    session.add(test_clock)
    organization = make_organization(session, test_clock=test_clock)
    save_card(organization)
    invoice = open_invoice(session, organization)
    actors.collect_invoice.fn(str(invoice.id))
    assert statuses(session) == []
    assert queries.due_invoice_ids(session, as_of=NOW + timedelta(days=9)) == []  # the sweep leaves it to its clock
    test_clock.frozen_time = NOW
    session.flush()
    actors.collect_invoice.fn(str(invoice.id))
    actors.collect_invoice.fn(str(invoice.id))
    (row,) = session.scalars(select(BillingTransaction)).all()
    assert (row.status, row.created_at, row.settled_at) == ("succeeded", NOW, NOW)


def test_the_sweep_finds_what_is_due(session: Session, charging: ProviderFake, actors: ModuleType) -> None:
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    assert queries.due_invoice_ids(session, as_of=NOW - timedelta(seconds=1)) == []
    assert queries.due_invoice_ids(session, as_of=NOW) == [invoice.id]
    actors.collect_invoice.fn(str(invoice.id))
    assert queries.due_invoice_ids(session, as_of=NOW) == []
    with pytest.raises(NotFound):
        actors.collect_invoice.fn(str(uuid.uuid4()))


def test_resolving_twice(session: Session, charging: ProviderFake, actors: ModuleType) -> None:
    organization = make_organization(session)
    method = save_card(organization)
    invoice = open_invoice(session, organization)
    charging.mode("charge_then_drop", payment_method=method.provider_payment_method_id, next=1)
    attempt = collect.collect(invoice.id, at=NOW)
    assert attempt is not None
    assert statuses(session) == ["unknown"]
    with clock.frozen(made_at(attempt) + timedelta(minutes=2)):
        actors.resolve_transaction.fn(str(attempt))
        actors.resolve_transaction.fn(str(attempt))
    assert statuses(session) == ["succeeded"]


def test_handling_an_event_twice(session: Session, charging: ProviderFake, actors: ModuleType) -> None:
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    attempt = collect.begin(session, invoice.id, at=NOW)
    assert attempt is not None
    session.commit()
    collect.charge(attempt)
    inbound.backfill(provider="stripe", since=attempt.made_at - timedelta(seconds=2))
    for _ in range(2):
        for number in queries.pending_inbound(session, now=datetime.now(UTC)):
            actors.process_inbound.fn(str(number))
            actors.process_inbound.fn(str(number))
    assert statuses(session) == ["succeeded"]


def test_a_void_invoice_is_not_paid_whatever_was_tried_before(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    save_card(organization, "pm_card_chargeCustomerFail")
    invoice = open_invoice(session, organization)
    collect.collect(invoice.id, at=NOW)
    void.void_invoice(session, invoice.id, at=NOW, actor=SYSTEM)
    session.commit()
    with pytest.raises(Conflict, match="nothing to pay"):
        collect.pay(organization.id, invoice.id, at=NOW, actor=SYSTEM)
    assert statuses(session) == ["failed"]


def test_a_refused_invoice_is_tried_at_once_with_a_new_card(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    save_card(organization, "pm_card_chargeCustomerFail")
    invoice = open_invoice(session, organization)
    collect.collect(invoice.id, at=NOW)
    save_card(organization, at=NOW + timedelta(hours=1))
    session.refresh(invoice)
    assert (invoice.next_collect_at, invoice.collect_attempts) == (NOW + timedelta(hours=1), 0)


def test_an_open_charge_is_asked_for_less_and_less_often(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    method = save_card(organization)
    invoice = open_invoice(session, organization)
    charging.mode("processing", payment_method=method.provider_payment_method_id, next=1)
    attempt = collect.collect(invoice.id, at=NOW)
    assert attempt is not None
    assert statuses(session) == ["processing"]
    made = made_at(attempt)
    for age, pause, due in (
        (timedelta(minutes=5), timedelta(seconds=59), False),
        (timedelta(minutes=5), timedelta(seconds=61), True),
        (timedelta(hours=1), timedelta(minutes=5), False),
        (timedelta(hours=1), timedelta(minutes=7), True),
        (timedelta(days=5), timedelta(hours=11), False),
        (timedelta(days=5), timedelta(hours=13), True),
    ):
        session.execute(update(BillingTransaction).values(updated_at=made + age - pause))
        assert bool(queries.unresolved_ids(session, now=made + age)) is due, (age, pause)
    session.execute(update(BillingTransaction).values(updated_at=made))
    assert resolve.resolve(attempt, now=made + timedelta(days=5)) == "processing"
    assert session.scalar(select(BillingTransaction.updated_at)) > made  # the look-up is noted


def test_reconciling_reports_a_charge_the_books_do_not_know(
    session: Session, charging: ProviderFake, actors: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    organization = make_organization(session)
    save_card(organization)
    invoice = open_invoice(session, organization)
    actors.collect_invoice.fn(str(invoice.id))
    ours = session.scalars(select(BillingTransaction.provider_transaction_id)).one()
    with clock.frozen(clock.now() + timedelta(hours=1)):
        actors.reconcile_provider.fn()
        assert str(ours) not in caplog.text
        session.execute(update(BillingTransaction).values(amount_minor=BillingTransaction.amount_minor + 1))
        actors.reconcile_provider.fn()
    assert str(ours) in caplog.text
