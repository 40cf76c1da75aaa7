"""An invoice run whose workers are killed (-9) at random statements, from the first draft to the last charge; the next worker goes on."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import event, select

from core import selfcheck
from core.audit import SYSTEM
from core.db import db, transaction
from core.identity.models import Organization
from core.invoicing import draft, run
from core.invoicing.models import Invoice, InvoiceRun, NumberSeries
from core.payments import collect, queries, resolve
from core.payments.models import BillingTransaction
from tests.bare import make_bare_app
from tests.factories import make_organization, make_plan, make_subscription
from tests.fakes.fixtures import ProviderFake, provider_fake
from tests.payments.billing import charging_at, save_card

SUBSCRIPTIONS, SET_SIZE, STATEMENTS_MAX, LIVES_MAX = 8, 4, 90, 200
JOIN_SECONDS_MAX = 120
NOW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderFake]:
    with provider_fake() as fake:
        yield fake


def life(app: Flask, work: Callable[[], None], statements: int | None = None) -> int:
    """Do it in a process of its own, killed when it has come to so many statements or commits; its exit status."""

    def live() -> None:
        with app.app_context():
            db.engine.dispose(close=False)  # the connections are the parent's
            if statements is not None:
                left = iter(range(statements))
                for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
                    event.listen(db.engine, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL) if next(left, None) is None else None)
            work()
            db.session.remove()

    process = multiprocessing.get_context("fork").Process(target=live)
    process.start()
    process.join(JOIN_SECONDS_MAX)
    assert process.exitcode is not None, "a worker hangs"
    return process.exitcode


def carry_on(run_id: uuid.UUID) -> None:
    """What the workers do, one after the other, finding their work by state: rate, finalize, clear up open charges, charge."""
    after: uuid.UUID | None = None
    more = True
    while more:
        with transaction() as session:
            after = run.rate_set(session, run_id, after_id=after, at=NOW, actor=SYSTEM)
        more = after is not None
    with transaction() as session:
        run.request_finalize(session, run_id, at=NOW, actor=SYSTEM)
    more = True
    while more:
        with transaction() as session:
            more = run.finalize_set(session, run_id, at=NOW, actor=SYSTEM)
    later = datetime.now(UTC) + timedelta(minutes=2)
    with transaction() as session:
        open_charges = queries.unresolved_ids(session, now=later)
    for attempt_id in open_charges:
        resolve.resolve(attempt_id, now=later)
    with transaction() as session:
        owed = queries.due_invoice_ids(session, as_of=later)
    for invoice_id in owed:
        collect.collect(invoice_id, at=later)


def test_each_subscription_is_billed_and_charged_once(
    committed_database_url: str, tmp_path: Path, provider: ProviderFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft, "SET_SIZE_MAX", SET_SIZE)
    monkeypatch.setattr(run, "FINALIZE_SET_SIZE", SET_SIZE)
    app = make_bare_app(committed_database_url, tmp_path)
    with charging_at(provider):
        with app.app_context(), transaction() as session:
            plan = make_plan(session, base_price="119.00")
            organizations = [make_organization(session) for _ in range(SUBSCRIPTIONS)]
            ids = {make_subscription(session, organization, plan, start_at=NOW).id for organization in organizations}
            run_id = run.start(session, as_of=NOW, actor=SYSTEM, at=NOW).id
            organization_ids = [organization.id for organization in organizations]

        def save_cards() -> None:
            with app.app_context():
                for organization_id in organization_ids:
                    save_card(db.session.get_one(Organization, organization_id))

        with ThreadPoolExecutor(1) as pool:  # a thread's connection to the provider is its own, the lives share none
            pool.submit(save_cards).result()
        rng = random.Random(17)
        died_while: list[str] = []
        while life(app, lambda: carry_on(run_id), rng.randrange(1, STATEMENTS_MAX if len(died_while) > 2 else 15)) == -signal.SIGKILL:
            with app.app_context(), transaction() as session:
                died_while.append(session.get_one(InvoiceRun, run_id).status)
            assert len(died_while) < LIVES_MAX
        assert life(app, lambda: carry_on(run_id)) == 0
    assert set(died_while) == {"rating", "finalizing", "done"}, "charging begins when the run is done"

    charged = Counter(charge["attempt"] for charge in provider.charges())
    with app.app_context(), transaction() as session:
        invoices = list(session.scalars(select(Invoice).order_by(Invoice.sequence)))
        assert [invoice.sequence for invoice in invoices] == list(range(1, SUBSCRIPTIONS + 1))
        assert session.scalar(select(NumberSeries.last_number)) == SUBSCRIPTIONS
        assert {invoice.subscription_id for invoice in invoices} == ids
        assert {(invoice.status, invoice.amount_paid_minor) for invoice in invoices} == {("paid", 11900)}
        paid = {str(row) for row in session.scalars(select(BillingTransaction.id).where(BillingTransaction.status == "succeeded"))}
        assert charged == dict.fromkeys(paid, 1)
        assert len(paid) == SUBSCRIPTIONS
        finished = session.get_one(InvoiceRun, run_id)
        assert (finished.status, finished.subscriptions_done, finished.finalize_done) == ("done", SUBSCRIPTIONS, SUBSCRIPTIONS)
        assert selfcheck.run(session) == []
