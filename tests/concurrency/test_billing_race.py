"""Several workers bill and finalize the same customers at once: one invoice each, numbers without a gap."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flask import Flask
from sqlalchemy import func, select, update

from core import selfcheck
from core.audit import SYSTEM
from core.db import retrying, transaction
from core.invoicing import draft, finalize, settle
from core.invoicing.models import Invoice, NumberSeries
from core.subscriptions.models import Subscription
from tests.bare import make_bare_app
from tests.factories import START, make_organization, make_plan, make_subscription

WORKERS, SUBSCRIPTIONS = 6, 24


def at_once(app: Flask, work: Callable[[int], object]) -> list[object]:
    """The same work by every worker at the same time, each with a session of its own."""

    def one(number: int) -> object:
        with app.app_context():
            return retrying(lambda: work(number))

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, range(WORKERS)))


def test_one_invoice_for_each_however_many_bill_them(committed_database_url: str, tmp_path: Path) -> None:
    app = make_bare_app(committed_database_url, tmp_path)
    with app.app_context(), transaction() as session:
        plan = make_plan(session)
        ids = [make_subscription(session, make_organization(session), plan, start_at=START).id for _ in range(SUBSCRIPTIONS)]

    def bill(number: int) -> None:
        with transaction() as session:
            draft.bill_many(session, ids, as_of=START, actor=SYSTEM)

    def issue(number: int) -> None:
        with transaction() as session:
            waiting = list(session.scalars(select(Invoice.id).where(Invoice.status == "draft")))
        for invoice_id in waiting[number % 3 :] + waiting[: number % 3]:
            with transaction() as session:
                finalize.finalize_many(session, [invoice_id], at=START, actor=SYSTEM)

    at_once(app, bill)
    at_once(app, issue)
    at_once(app, bill)
    with app.app_context(), transaction() as session:
        session.execute(update(Subscription).values(next_bill_at=None))
        found = session.execute(select(Invoice.subscription_id, Invoice.sequence).order_by(Invoice.sequence)).all()
        assert [row.sequence for row in found] == list(range(1, SUBSCRIPTIONS + 1))
        assert {row.subscription_id for row in found} == set(ids)
        assert session.scalar(select(func.max(NumberSeries.last_number))) == SUBSCRIPTIONS
        assert selfcheck.run(session) == []


def test_ten_payments_at_once_pay_an_invoice_once(committed_database_url: str, tmp_path: Path) -> None:
    app = make_bare_app(committed_database_url, tmp_path)
    with app.app_context(), transaction() as session:
        invoice_id: uuid.UUID = session.scalars(select(Invoice.id).where(Invoice.status == "open").limit(1)).one()

    def pay(number: int) -> bool:
        try:
            with transaction() as session:
                settle.apply_payment(session, invoice_id, amount_minor=10_000, at=START, actor=SYSTEM)
        except settle.Conflict:
            return False
        return True

    assert sorted(at_once(app, pay)) == [False] * (WORKERS - 1) + [True]  # type: ignore[type-var]
