"""Good standing: past due after a refusal, suspended when nobody pays, back with the payment; an operator's suspension stays."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from core import test_clocks
from core.audit import SYSTEM
from core.identity.models import Organization, TestClock
from core.invoicing import void
from core.invoicing.models import Invoice
from core.payments import external, standing
from core.subscriptions import lifecycle, status
from core.subscriptions.models import Subscription, SubscriptionStatus
from tests.factories import make_organization
from tests.payments.billing import NOW, open_invoice

DAY = timedelta(days=1)


def refused(session: Session, organization: Organization | None = None) -> tuple[Invoice, Subscription]:
    """An invoice whose every try failed, as the last of them leaves it."""
    invoice = open_invoice(session, organization)
    subscription = session.get_one(Subscription, invoice.subscription_id)
    invoice.collect_attempts, invoice.next_collect_at = 5, None
    status.move(session, subscription, SubscriptionStatus.PAST_DUE, at=NOW, actor=SYSTEM)
    session.flush()
    return invoice, subscription


def test_what_stays_unpaid_is_suspended_and_the_payment_brings_it_back(session: Session) -> None:
    invoice, subscription = refused(session)
    assert standing.waiting(session, as_of=NOW + 44 * DAY) == []
    standing.review(session, subscription.id, at=NOW + 44 * DAY)
    assert subscription.status == "past_due"
    assert standing.waiting(session, as_of=NOW + 45 * DAY) == [subscription.id]
    for _ in range(2):  # the same message again
        standing.review(session, subscription.id, at=NOW + 45 * DAY)
    session.flush()
    assert (subscription.status, subscription.suspension_cause) == ("suspended", "unpaid")
    assert standing.waiting(session, as_of=NOW + 60 * DAY) == []
    half = {"reference": "bank-1", "at": NOW + 50 * DAY, "actor": SYSTEM}
    external.record_external(session, invoice.organization_id, invoice.id, amount_minor=invoice.total_minor // 2, **half)
    assert subscription.status == "suspended"  # half a payment is none
    rest = {**half, "reference": "bank-2"}
    external.record_external(session, invoice.organization_id, invoice.id, amount_minor=invoice.amount_due_minor, **rest)
    session.refresh(subscription)
    assert (subscription.status, subscription.suspended_at) == ("active", None)


def test_a_voided_invoice_is_no_fault_any_more(session: Session) -> None:
    invoice, subscription = refused(session)
    void.void_invoice(session, invoice.id, at=NOW + DAY, actor=SYSTEM, reason="it was never owed")
    assert standing.waiting(session, as_of=NOW + DAY) == [subscription.id]
    standing.review(session, subscription.id, at=NOW + DAY)
    assert subscription.status == "active"


def test_what_an_operator_suspended_no_payment_brings_back(session: Session) -> None:
    invoice, subscription = refused(session)
    lifecycle.suspend(session, subscription, at=NOW + DAY, actor=SYSTEM, reason="fraud suspected")
    external.record_external(
        session, invoice.organization_id, invoice.id, amount_minor=invoice.total_minor, reference="bank-3", at=NOW + DAY, actor=SYSTEM
    )
    assert (subscription.status, subscription.suspension_cause) == ("suspended", "operator")
    assert standing.waiting(session, as_of=NOW + 60 * DAY) == []


def test_a_test_clock_stops_where_a_subscription_is_suspended(session: Session) -> None:
    clock = TestClock(frozen_time=NOW, name="dunning")
    session.add(clock)
    _, subscription = refused(session, make_organization(session, test_clock=clock))
    subscription.next_bill_at = None
    clock.advance_to = NOW + 60 * DAY
    session.flush()
    assert standing.waiting(session, as_of=NOW + 60 * DAY) == []
    assert test_clocks.step(session, clock.id)
    assert clock.frozen_time == NOW + 45 * DAY
    assert test_clocks.due_now(session, clock.id).standing_ids == [subscription.id]
