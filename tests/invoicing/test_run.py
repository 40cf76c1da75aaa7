"""An invoice run: rate everything due, review, finalize in bulk; interrupted anywhere it goes on."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.errors import Conflict
from core.invoicing import draft, run
from core.invoicing.models import Invoice, InvoiceRun
from core.subscriptions.models import Subscription
from tests.factories import START, add_term, make_organization, make_plan, make_subscription
from tests.invoicing.books import issued

JULY = datetime(2026, 7, 1, tzinfo=UTC)
LATER = JULY + timedelta(hours=5)


def rate(session: Session, run_id: UUID) -> None:
    after: UUID | None = None
    while True:
        after = run.rate_set(session, run_id, after_id=after, at=LATER, actor=SYSTEM)
        if after is None:
            return


def renewals(session: Session, count: int) -> list[UUID]:
    """So many subscriptions whose June is paid for and whose July is due."""
    plan, ids = make_plan(session), []
    for _ in range(count):
        subscription = make_subscription(session, make_organization(session), plan)
        issued(session, subscription, START)
        ids.append(subscription.id)
    return ids


def drafts(session: Session, started: InvoiceRun) -> list[Invoice]:
    session.expire_all()
    return list(session.scalars(select(Invoice).where(Invoice.run_id == started.id).order_by(Invoice.id)))


def test_a_run_rates_waits_for_review_and_finalizes(session: Session) -> None:
    renewals(session, 5)
    started = run.start(session, as_of=JULY, actor=SYSTEM, at=LATER)
    assert started.subscriptions_due == 5
    with pytest.raises(Conflict):
        run.start(session, as_of=JULY, actor=SYSTEM, at=LATER)
    with pytest.raises(Conflict):
        run.request_finalize(session, started.id, at=LATER, actor=SYSTEM)
    rate(session, started.id)
    found = drafts(session, started)
    assert (started.status, started.subscriptions_done, len(found)) == ("review", 5, 5)
    assert {invoice.auto_finalize_at for invoice in found} == {None}
    found[0].held_reason = "call them first"
    session.flush()
    run.request_finalize(session, started.id, at=LATER, actor=SYSTEM)
    while run.finalize_set(session, started.id, at=LATER, actor=SYSTEM):
        pass
    assert [invoice.status for invoice in drafts(session, started)] == ["draft", "open", "open", "open", "open"]
    assert (started.status, started.finalize_done, started.finalize_total) == ("done", 4, 4)
    [totals] = run.totals(session, started.id)
    assert (totals.drafts, totals.held, totals.issued, totals.issued_minor) == (1, 1, 4, 40000)
    found[0].held_reason = None
    session.flush()
    run.request_finalize(session, started.id, at=LATER, actor=SYSTEM)
    while run.finalize_set(session, started.id, at=LATER, actor=SYSTEM):
        pass
    assert {invoice.status for invoice in drafts(session, started)} == {"open"}
    assert (started.finalize_done, started.finalize_total) == (5, 5)


def test_a_run_takes_in_drafts_that_wait_for_their_hour(session: Session) -> None:
    [subscription_id] = renewals(session, 1)
    draft.bill_many(session, [subscription_id], as_of=JULY, actor=SYSTEM)
    started = run.start(session, as_of=JULY, actor=SYSTEM, at=LATER)
    rate(session, started.id)
    assert [invoice.auto_finalize_at for invoice in drafts(session, started)] == [None]


def test_a_paused_run_stops_and_goes_on(session: Session) -> None:
    renewals(session, 2)
    started = run.start(session, as_of=JULY, actor=SYSTEM, at=LATER)
    rate(session, started.id)
    run.request_finalize(session, started.id, at=LATER, actor=SYSTEM)
    run.pause(session, started.id, at=LATER, actor=SYSTEM)
    assert run.finalize_set(session, started.id, at=LATER, actor=SYSTEM) is False
    assert {invoice.status for invoice in drafts(session, started)} == {"draft"}
    run.request_finalize(session, started.id, at=LATER, actor=SYSTEM)
    assert run.finalize_set(session, started.id, at=LATER, actor=SYSTEM) is True
    assert {invoice.status for invoice in drafts(session, started)} == {"open"}


def test_a_draft_that_cannot_be_finalized_is_held_and_the_others_go_on(session: Session) -> None:
    renewals(session, 4)
    started = run.start(session, as_of=JULY, actor=SYSTEM, at=LATER)
    rate(session, started.id)
    broken = drafts(session, started)[1]
    session.execute(update(Invoice).where(Invoice.id == broken.id).values(timezone="Mars/Olympus"))
    run.request_finalize(session, started.id, at=LATER, actor=SYSTEM)
    while run.finalize_set(session, started.id, at=LATER, actor=SYSTEM):
        pass
    assert sorted(invoice.status for invoice in drafts(session, started)) == ["draft", "open", "open", "open"]
    assert "Mars/Olympus" in (session.get_one(Invoice, broken.id).held_reason or "")


def test_a_draft_of_a_run_waits_for_its_reviewer_whatever_else_is_billed(session: Session) -> None:
    [subscription_id] = renewals(session, 1)
    started = run.start(session, as_of=JULY, actor=SYSTEM, at=LATER)
    rate(session, started.id)
    subscription = session.get_one(Subscription, subscription_id)
    change = JULY + timedelta(days=1)
    subscription.terms[0].end_at = change
    session.flush()
    add_term(session, subscription, make_plan(session, base_price="200.00"), start_at=change, anchor_day=START.date())
    session.expire_all()
    draft.bill(session, subscription_id, as_of=change, actor=SYSTEM)
    [waiting] = drafts(session, started)
    assert (waiting.status, waiting.auto_finalize_at, waiting.subtotal_minor) == ("draft", None, 323 + 19355)
