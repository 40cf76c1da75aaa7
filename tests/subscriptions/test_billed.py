"""What the lifecycle's timelines cost: each change followed to the invoices it causes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.catalog import publish
from core.errors import Conflict, Invalid, InvalidTransition
from core.identity.models import Organization
from core.invoicing import draft, finalize, whatif
from core.invoicing.models import Invoice, InvoiceLine
from core.subscriptions import lifecycle, plan_change, queries, status
from core.subscriptions.models import Subscription
from tests.factories import make_organization, make_plan

DAY = timedelta(days=1)
START = datetime(2026, 6, 1, 15, 30, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def organization(session: Session) -> Organization:
    return make_organization(session)


def start(session: Session, organization: Organization, version: Any, **given: Any) -> Subscription:
    return lifecycle.start(session, organization.id, plan=version.plan.code, **{"at": START, "actor": SYSTEM, **given})


def bill(session: Session, subscription: Subscription, *, until: datetime) -> list[list[tuple[str, int]]]:
    """Bill and finalize everything that falls due by `until`, step by step; the lines of each invoice as (kind, minor units)."""
    seen = set(session.scalars(select(Invoice.id).where(Invoice.subscription_id == subscription.id)))
    while draft.bill_many(session, [subscription.id], as_of=until, actor=SYSTEM):
        drafts = session.scalars(select(Invoice.id).where(Invoice.subscription_id == subscription.id, Invoice.status == "draft")).all()
        finalize.finalize_many(session, drafts, at=until, actor=SYSTEM)
    session.expire_all()
    made = session.scalars(select(Invoice).where(Invoice.subscription_id == subscription.id).order_by(Invoice.sequence)).all()
    lines = select(InvoiceLine.kind, InvoiceLine.amount_minor).order_by(InvoiceLine.position)
    return [
        [(kind, minor) for kind, minor in session.execute(lines.where(InvoiceLine.invoice_id == invoice.id))]
        for invoice in made
        if invoice.id not in seen
    ]


def test_the_first_period_is_whole_although_it_began_in_the_afternoon(session: Session, organization: Organization) -> None:
    subscription = start(session, organization, make_plan(session, base_price="100.00"))
    assert bill(session, subscription, until=START) == [[("charge", 10000)]]
    assert bill(session, subscription, until=START) == []
    assert bill(session, subscription, until=JUNE + 61 * DAY) == [[("charge", 10000)], [("charge", 10000)]]
    assert queries.due_ids(session, as_of=JUNE + 61 * DAY) == []


def test_a_calendar_month_in_arrears_is_whole_in_the_customers_zone(session: Session) -> None:
    organization = make_organization(session, timezone="Europe/Berlin")
    version = make_plan(session, base_price="99.00", billing_mode="in_arrears")
    november = datetime(2023, 11, 1, tzinfo=UTC)  # one in the morning in Berlin
    subscription = start(session, organization, version, at=november, anchor="calendar")
    assert bill(session, subscription, until=november + 29 * DAY) == []
    assert bill(session, subscription, until=datetime(2023, 11, 30, 23, tzinfo=UTC)) == [[("charge", 9900)]]


def test_nothing_is_owed_in_a_trial_and_the_whole_price_after_it(session: Session, organization: Organization) -> None:
    subscription = start(session, organization, make_plan(session, base_price="100.00"), trial_period_days=10)
    assert bill(session, subscription, until=JUNE + 10 * DAY - timedelta(seconds=1)) == []
    assert bill(session, subscription, until=JUNE + 10 * DAY) == [[("charge", 10000)]]
    assert subscription.status == "active"


def test_an_upgrade_half_way_credits_and_charges_half(session: Session, organization: Organization) -> None:
    starter, pro = make_plan(session, base_price="100.00"), make_plan(session, base_price="200.00")
    subscription = start(session, organization, starter)
    bill(session, subscription, until=START)
    half = JUNE + 15 * DAY
    plan_change.apply(session, subscription, to=pro, at=half, actor=SYSTEM)
    (lines,) = bill(session, subscription, until=half)
    assert sorted(lines) == [("charge", 10000), ("credit", -5000)]
    assert bill(session, subscription, until=JUNE + 30 * DAY) == [[("charge", 20000)]]


def test_an_upgrade_and_back_in_the_same_instant_costs_nothing(session: Session, organization: Organization) -> None:
    starter, pro = make_plan(session, base_price="100.00"), make_plan(session, base_price="200.00")
    subscription = start(session, organization, starter)
    bill(session, subscription, until=START)
    at = JUNE + 15 * DAY
    plan_change.apply(session, subscription, to=pro, at=at, actor=SYSTEM)
    plan_change.apply(session, subscription, to=starter, at=at, actor=SYSTEM)
    assert bill(session, subscription, until=at) == []


def test_seats_are_charged_for_the_rest_of_the_period(session: Session, organization: Organization) -> None:
    version = publish.create_version(
        session, code="seats", name="Seats", currency="EUR", billing_period="month", base_price="0", actor=SYSTEM, at=START,
        prices=[{"code": "seat", "model": "per_unit", "unit_price": "30.00"}],
    )  # fmt: skip
    subscription = start(session, organization, version, quantity=2)
    assert bill(session, subscription, until=START) == [[("charge", 6000)]]
    plan_change.apply(session, subscription, to=version, quantity=Decimal(5), at=JUNE + 20 * DAY, actor=SYSTEM)
    assert bill(session, subscription, until=JUNE + 20 * DAY) == [[("adjustment", 3000)]]


def test_a_cancellation_now_gives_the_rest_back_unless_the_plan_does_not(session: Session, organization: Organization) -> None:
    for policy, expected in (("credit", [[("credit", -5000)]]), ("none", [])):
        subscription = start(session, organization, make_plan(session, base_price="100.00", credit_policy=policy))
        bill(session, subscription, until=START)
        lifecycle.cancel(session, subscription, at=JUNE + 15 * DAY, actor=SYSTEM, when="now")
        assert bill(session, subscription, until=JUNE + 15 * DAY) == expected
        assert bill(session, subscription, until=JUNE + 90 * DAY) == []


def test_a_pause_is_not_paid_for(session: Session, organization: Organization) -> None:
    subscription = start(session, organization, make_plan(session, base_price="100.00"))
    bill(session, subscription, until=START)
    lifecycle.pause(session, subscription, at=JUNE + 6 * DAY, actor=SYSTEM)
    assert bill(session, subscription, until=JUNE + 6 * DAY) == [[("credit", -8000)]]
    lifecycle.resume(session, subscription, at=JUNE + 12 * DAY, actor=SYSTEM)
    assert bill(session, subscription, until=JUNE + 12 * DAY) == [[("adjustment", 6000)]]


def test_a_planned_return_comes_by_itself_once_and_can_be_taken_back(session: Session, organization: Organization) -> None:
    subscription = start(session, organization, make_plan(session, base_price="100.00"))
    bill(session, subscription, until=START)
    pause, back = JUNE + 6 * DAY, JUNE + 12 * DAY
    for wrong in (pause, pause - DAY, pause + 400 * DAY):
        with pytest.raises(Invalid):
            lifecycle.pause(session, subscription, at=pause, actor=SYSTEM, until=wrong)
    lifecycle.pause(session, subscription, at=pause, actor=SYSTEM, until=JUNE + 20 * DAY)
    assert bill(session, subscription, until=pause) == [[("credit", -8000)]]
    lifecycle.undo_resume(session, subscription, at=pause + DAY, actor=SYSTEM)
    with pytest.raises(Conflict):
        lifecycle.undo_resume(session, subscription, at=pause + DAY, actor=SYSTEM)
    assert status.resumes_at(subscription, pause + DAY) is None
    lifecycle.resume(session, subscription, at=pause + DAY, actor=SYSTEM, when=JUNE + 25 * DAY)
    lifecycle.resume(session, subscription, at=pause + DAY, actor=SYSTEM, when=back)
    assert (subscription.status, status.resumes_at(subscription, pause + DAY)) == ("paused", back)
    assert bill(session, subscription, until=back - timedelta(seconds=1)) == []
    assert status.present(subscription, back) == "active"
    assert bill(session, subscription, until=back) == [[("adjustment", 6000)]]
    assert (subscription.status, subscription.terms[-1].start_at) == ("active", back)
    assert bill(session, subscription, until=JUNE + 30 * DAY) == [[("charge", 10000)]]


def test_who_acts_before_billing_has_seen_the_return_finds_it_running(session: Session, organization: Organization) -> None:
    subscription = start(session, organization, make_plan(session, base_price="100.00"))
    lifecycle.pause(session, subscription, at=JUNE + 6 * DAY, actor=SYSTEM, until=JUNE + 12 * DAY)
    lifecycle.pause(session, subscription, at=JUNE + 13 * DAY, actor=SYSTEM)
    assert (subscription.status, status.resumes_at(subscription, JUNE + 13 * DAY)) == ("paused", None)
    lifecycle.resume(session, subscription, at=JUNE + 14 * DAY, actor=SYSTEM, when=JUNE + 20 * DAY)
    lifecycle.cancel(session, subscription, at=JUNE + 15 * DAY, actor=SYSTEM, when="now")
    billed = bill(session, subscription, until=JUNE + 90 * DAY)
    assert sum(minor for lines in billed for _, minor in lines) == 2333  # seven of thirty days


@pytest.mark.parametrize("without_method", ["convert", "cancel"])
def test_who_acts_before_billing_has_seen_the_trial_end_finds_it_over(
    session: Session, organization: Organization, without_method: str
) -> None:
    plan = make_plan(session, base_price="100.00")
    subscription = start(session, organization, plan, trial_period_days=10, trial_end_without_method=without_method)
    after = JUNE + 11 * DAY
    if without_method == "cancel":  # whether it goes on, billing has to find out first
        with pytest.raises(InvalidTransition):
            lifecycle.pause(session, subscription, at=after, actor=SYSTEM)
        return
    lifecycle.pause(session, subscription, at=after, actor=SYSTEM)
    assert subscription.status == "paused"
    billed = bill(session, subscription, until=after)
    assert sum(minor for lines in billed for _, minor in lines) == 333  # one day of thirty
    assert subscription.status == "paused"


def test_billing_that_comes_late_takes_no_pause_for_over(session: Session, organization: Organization) -> None:
    subscription = start(session, organization, make_plan(session, base_price="100.00"))
    lifecycle.pause(session, subscription, at=JUNE + 6 * DAY, actor=SYSTEM)
    bill(session, subscription, until=JUNE + 7 * DAY)  # the first look is as of the start, when there was no pause yet
    assert subscription.status == "paused"
    assert lifecycle.resume(session, subscription, at=JUNE + 8 * DAY, actor=SYSTEM).status == "active"


def test_a_change_planned_in_place_of_another_starts_from_what_holds_until_then(session: Session, organization: Organization) -> None:
    monthly, yearly = make_plan(session, base_price="100.00"), make_plan(session, base_price="1000.00", billing_period="year")
    begun = datetime(2026, 1, 31, 12, tzinfo=UTC)
    subscription = start(session, organization, monthly, at=begun, quantity=3)
    ends = plan_change.effective_at(subscription, "period_end", at=begun)
    plan_change.apply(session, subscription, to=yearly, quantity=Decimal(7), at=begun, effective_at=ends, actor=SYSTEM)
    plan_change.apply(session, subscription, to=make_plan(session), at=begun, effective_at=ends, actor=SYSTEM)
    held, planned = subscription.terms
    assert (held.quantity, planned.quantity, planned.start_at) == (3, 3, datetime(2026, 2, 28, tzinfo=UTC))
    assert (planned.anchor_day, planned.interval) == (held.anchor_day, held.interval)  # the 31st comes back in March
    plan_change.apply(session, subscription, to=monthly, at=begun, effective_at=ends, actor=SYSTEM)
    assert plan_change.scheduled_change(subscription, at=begun) is None


def test_a_planned_change_takes_hold_with_the_new_period(session: Session, organization: Organization) -> None:
    starter, pro = make_plan(session, base_price="100.00"), make_plan(session, base_price="200.00")
    subscription = start(session, organization, starter)
    bill(session, subscription, until=START)
    ends = plan_change.effective_at(subscription, "period_end", at=START)
    plan_change.apply(session, subscription, to=pro, at=START, effective_at=ends, actor=SYSTEM)
    assert bill(session, subscription, until=ends - timedelta(seconds=1)) == []
    assert bill(session, subscription, until=ends) == [[("charge", 20000)]]
    assert subscription.plan_id == pro.plan_id


def test_changes_planned_one_after_the_other_are_a_ramp_of_a_running_subscription(session: Session, organization: Organization) -> None:
    plans = [make_plan(session, base_price=price) for price in ("100.00", "200.00", "300.00")]
    subscription = start(session, organization, plans[0])
    bill(session, subscription, until=START)
    for month, plan in zip((7, 8), plans[1:], strict=True):
        plan_change.apply(session, subscription, to=plan, at=START, effective_at=datetime(2026, month, 1, tzinfo=UTC), actor=SYSTEM)
    assert bill(session, subscription, until=datetime(2026, 8, 2, tzinfo=UTC)) == [[("charge", 20000)], [("charge", 30000)]]


def test_a_free_plan_has_periods_whatever_is_planned(session: Session, organization: Organization) -> None:
    free, paid = make_plan(session, base_price="0"), make_plan(session, base_price="100.00")
    subscription = start(session, organization, free)
    plan_change.apply(session, subscription, to=paid, at=START, effective_at=START + 40 * DAY, actor=SYSTEM)
    assert plan_change.effective_at(subscription, "period_end", at=START) == datetime(2026, 7, 1, tzinfo=UTC)
    bill(session, subscription, until=datetime(2026, 7, 2, tzinfo=UTC))
    period = subscription.current_period_start, subscription.current_period_end
    assert period == (datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC))
    found = whatif.compare(session, organization.id, subscription.id, versions=[paid], as_of=datetime(2026, 7, 2, tzinfo=UTC))
    assert (found.own.minor, found.plans[0].minor) == ((0,), (10000,))


def test_from_month_to_year_the_cycles_begin_anew(session: Session, organization: Organization) -> None:
    monthly, yearly = make_plan(session, base_price="100.00"), make_plan(session, base_price="1000.00", billing_period="year")
    subscription = start(session, organization, monthly)
    bill(session, subscription, until=START)
    at = JUNE + 15 * DAY
    plan_change.apply(session, subscription, to=yearly, at=at, actor=SYSTEM)
    (lines,) = bill(session, subscription, until=at)
    assert sorted(lines) == [("charge", 100000), ("credit", -5000)]
    assert subscription.current_period_end == datetime(2027, 6, 16, tzinfo=UTC)
