"""An account that owes money: real subscriptions, real invoices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.stub import StubBroker
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from core import config, jobs
from core.audit import SYSTEM, AuditEvent
from core.db import db, engine_options
from core.identity.models import Organization
from core.invoicing import draft, finalize
from core.invoicing.models import Invoice
from core.ledger import queries as ledger
from core.ledger.models import AccountCode
from core.payments import methods
from core.payments.models import PaymentMethod
from tests.factories import make_organization, make_plan, make_subscription
from tests.fakes.fixtures import ProviderFake

NOW = datetime(2026, 6, 15, tzinfo=UTC)


def bare_app(database_url: str, home: Path) -> Flask:
    """The core on an application without pages, its queue a stub: what is sent there is found by state anyway."""
    settings = config.use(config.Settings(environment="test", database_url=database_url, home=home))
    bare = Flask("payments", static_folder=None)
    bare.config.update(SETTINGS=settings, SQLALCHEMY_DATABASE_URI=database_url, SQLALCHEMY_ENGINE_OPTIONS=engine_options(40))
    db.init_app(bare)
    broker = StubBroker()
    broker.declare_queue(jobs.QUEUE)
    dramatiq.set_broker(broker)
    return bare


@contextmanager
def charging_at(fake: ProviderFake) -> Iterator[None]:
    """Let this process charge at the fake."""
    before = config.current()
    config.use(
        dataclasses.replace(
            before, stripe_api_key=fake.api_key, stripe_api_base=fake.url, stripe_webhook_secrets=("whsec_old", fake.webhook_secret)
        )
    )
    try:
        yield
    finally:
        config.use(before)


def open_invoice(
    session: Session, organization: Organization | None = None, *, price: str = "119.00", at: datetime = NOW, **plan: Any
) -> Invoice:
    """A finalized invoice over `price`, due for its first automatic try."""
    organization = organization or make_organization(session)
    version = make_plan(session, base_price=price, currency=organization.currency, **plan)
    subscription = make_subscription(session, organization, version, start_at=at)
    drafted = draft.bill(session, subscription.id, as_of=at, actor=SYSTEM)
    assert drafted is not None
    return finalize.finalize_invoice(session, drafted.id, at=at, actor=SYSTEM)


def save_card(organization: Organization, token: str = "pm_card_visa", *, at: datetime = NOW, **given: Any) -> PaymentMethod:
    """A card saved at the provider and here."""
    return methods.attach(organization.id, provider_token=token, at=at, actor=SYSTEM, **given)


def facts(session: Session, kind: str) -> list[dict[str, Any]]:
    """The data of the audit events whose kind begins with `kind`, oldest first."""
    return list(session.scalars(select(AuditEvent.data).where(AuditEvent.kind.startswith(kind)).order_by(AuditEvent.id)))


def balances(session: Session, organization: Organization) -> dict[str, int]:
    """Balances of the books by account, those that are not 0."""
    session.flush()
    found = ledger.balances(session, organization.id)
    return {AccountCode(code).name: amount for (code, _), amount in found.items() if amount}
