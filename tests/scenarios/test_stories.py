"""Customers' lives month by month; every story ends with books that are right and a billing that finds nothing more to bill."""

from decimal import Decimal

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.invoicing import account_credits
from core.invoicing.models import Invoice
from core.subscriptions.models import Subscription
from tests.factories import make_metric, make_plan
from tests.scenarios.story import Story

PER_CALL = {"model": "per_unit", "unit_price": "0.01"}
ALLOWANCE = {"model": "graduated", "tiers": [{"up_to": "1000", "unit_price": "0"}, {"up_to": None, "unit_price": "0.02"}]}


def test_a_base_price_in_advance_and_overage_in_arrears(session: Session) -> None:
    story, calls = Story(session, tax_rate_percent=Decimal(19)), make_metric(session)
    plan = make_plan(session, base_price="99.00", prices=[(calls, ALLOWANCE)])

    story.until(story.local(1, 15, 9))
    story.subscribe(plan)
    assert story.until(story.local(1, 15, 10)) == [("2026-01-15", "open", {"base": 9900})]

    story.use(calls, story.local(1, 20), 1500)  # 500 over the allowance
    assert story.until(story.local(2, 20)) == [("2026-02-15", "open", {"base": 9900, "calls": 1000})]

    story.use(calls, story.local(2, 20), 900)  # within the allowance
    assert story.until(story.local(3, 20)) == [("2026-03-15", "open", {"base": 9900, "calls": 0})]
    story.ends_well()


def test_upgrade_downgrade_and_cancellation_inside_their_months(session: Session) -> None:
    story = Story(session)
    starter, pro = make_plan(session, base_price="100.00"), make_plan(session, base_price="200.00")

    story.until(story.local(6, 1))
    story.subscribe(starter)
    assert story.until(story.local(6, 2)) == [("2026-06-01", "open", {"base": 10000})]

    story.until(story.local(6, 16))
    story.change_plan(pro)
    assert story.until(story.local(6, 17)) == [("2026-06-16", "open", {"base back": -5000, "base": 10000})]
    assert story.until(story.local(7, 5)) == [("2026-07-01", "open", {"base": 20000})]

    assert story.until(story.local(8, 1, 12)) == [("2026-08-01", "open", {"base": 20000})]
    story.change_plan(starter)  # half a day of August is gone
    assert story.until(story.local(8, 2)) == [("2026-08-01", "paid", {"base back": -19677, "base": 9839})]
    assert account_credits.balance(session, story.organization.id) == {"EUR": 9838}

    assert story.until(story.local(9, 11)) == [("2026-09-01", "open", {"base": 10000})]
    assert account_credits.balance(session, story.organization.id) == {}
    story.cancel()
    assert story.until(story.local(9, 12)) == [("2026-09-11", "paid", {"base back": -6667})]
    assert story.until(story.local(12, 1)) == []
    assert story.total() == 10000 + 5000 + 20000 + 20000 - 9838 + 10000 - 6667
    story.ends_well()


def test_a_trial_costs_nothing_and_the_first_charge_comes_when_it_ends(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    plan = make_plan(session, base_price="50.00", prices=[(calls, PER_CALL)])

    story.until(story.local(3, 1))
    subscription = story.subscribe(plan, trial_period_days=14)
    story.use(calls, story.local(3, 5), 5000)
    assert story.until(story.local(3, 14)) == []
    assert subscription.status == "trialing"

    assert story.until(story.local(3, 15, 1)) == [("2026-03-15", "open", {"base": 5000})]
    session.refresh(subscription)
    assert subscription.status == "active"
    assert story.until(story.local(4, 15, 3)) == [("2026-04-15", "open", {"base": 5000, "calls": 0})]
    story.ends_well()


def test_a_trial_that_is_cancelled_costs_nothing_at_all(session: Session) -> None:
    story = Story(session)
    story.until(story.local(3, 1))
    subscription = story.subscribe(make_plan(session, base_price="50.00"), trial_period_days=14)
    story.until(story.local(3, 7))
    story.cancel("period_end")
    assert story.until(story.local(5, 1)) == []
    session.refresh(subscription)
    assert (subscription.status, subscription.next_bill_at) == ("canceled", None)
    story.ends_well()


def test_late_usage_is_on_the_next_invoice_and_after_the_end_on_a_last_one(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    plan = make_plan(session, base_price="10.00", prices=[(calls, PER_CALL)])

    story.until(story.local(6, 1))
    story.subscribe(plan)
    story.use(calls, story.local(6, 10), 1000)
    assert story.until(story.local(7, 2)) == [("2026-06-01", "open", {"base": 1000}), ("2026-07-01", "open", {"base": 1000, "calls": 1000})]

    story.use(calls, story.local(6, 29), 40)  # arrives in July
    story.use(calls, story.local(7, 10), 500)
    story.until(story.local(7, 20))
    story.cancel("period_end")
    assert story.until(story.local(8, 2)) == [("2026-08-01", "open", {"calls late": 40, "calls": 500})]

    story.use(calls, story.local(7, 31), 25)  # arrives in August, after the end
    assert story.until(story.local(9, 10)) == [("2026-09-05", "open", {"calls late": 25})]
    assert story.until(story.local(12, 1)) == []
    story.ends_well()


def test_a_pause_gives_the_rest_of_the_month_back_and_owes_nothing(session: Session) -> None:
    story = Story(session)
    story.until(story.local(6, 1))
    story.subscribe(make_plan(session, base_price="30.00"))
    assert story.until(story.local(6, 11)) == [("2026-06-01", "open", {"base": 3000})]
    story.pause()
    assert story.until(story.local(7, 10)) == [("2026-06-11", "paid", {"base back": -2000})]
    story.until(story.local(7, 17))
    story.resume()  # 15 of July's 31 days are left: 14.52, paid by credit
    assert story.until(story.local(7, 18)) == [("2026-07-17", "paid", {"base": 1452})]
    assert account_credits.balance(session, story.organization.id) == {"EUR": 548}
    assert story.until(story.local(8, 2)) == [("2026-08-01", "open", {"base": 3000})]
    story.ends_well()


def test_seats_are_added_for_the_rest_of_the_month(session: Session) -> None:
    story = Story(session)
    plan = make_plan(session, base_price="0")
    per_seat = {"model": "per_unit", "unit_price": "30"}
    plan.rules[0].model, plan.rules[0].rules = "per_unit", per_seat
    session.flush()
    story.until(story.local(6, 1))
    story.subscribe(plan, quantity=2)
    assert story.until(story.local(6, 11)) == [("2026-06-01", "open", {"base": 6000})]
    story.change_plan(plan, quantity=5)
    assert story.until(story.local(7, 2)) == [("2026-06-11", "open", {"base late": 6000}), ("2026-07-01", "open", {"base": 15000})]
    story.ends_well()


@pytest.mark.parametrize(("currency", "base", "calls"), [("JPY", 980, 37), ("KWD", 980000, 37020)])
def test_yen_have_no_cents_and_dinars_have_thousandths(session: Session, currency: str, base: int, calls: int) -> None:
    story, metric = Story(session, currency=currency, tax_rate_percent=Decimal(10)), make_metric(session)
    prices = [(metric, {"model": "per_unit", "unit_price": "0.03"})]
    plan = make_plan(session, base_price="980", billing_mode="in_arrears", currency=currency, prices=prices)
    story.until(story.local(2, 1))
    story.subscribe(plan)
    story.use(metric, story.local(2, 9), 1234)  # 37.02
    assert story.until(story.local(3, 2)) == [("2026-03-01", "open", {"base": base, "calls": calls})]
    story.ends_well()


def test_days_begin_at_midnight_in_auckland_also_when_clocks_change(session: Session) -> None:
    story, calls = Story(session, timezone="Pacific/Auckland"), make_metric(session)
    plan = make_plan(session, base_price="31.00", billing_mode="in_arrears", prices=[(calls, PER_CALL)])

    story.until(story.local(3, 31))
    subscription = story.subscribe(plan)
    story.use(calls, story.local(4, 29, 23), 100)  # the last hour of the cycle
    story.use(calls, story.local(4, 30), 7)  # the first of the next
    assert story.until(story.local(4, 30, 2)) == [("2026-04-30", "open", {"base": 3100, "calls": 100})]
    session.refresh(subscription)
    assert subscription.current_period_end is not None
    assert subscription.current_period_end == story.local(5, 31)  # anchored on the 31st
    assert story.until(story.local(5, 31, 2)) == [("2026-05-31", "open", {"base": 3100, "calls": 7})]
    story.ends_well()


def test_an_upgrade_in_the_hour_of_the_renewal_does_not_bill_twice(session: Session) -> None:
    story = Story(session)
    story.until(story.local(6, 1))
    story.subscribe(make_plan(session, base_price="100.00"))
    story.until(story.local(7, 1))  # the renewal is drafted and waits its hour
    story.now = story.local(7, 1, 0)
    story.change_plan(make_plan(session, base_price="200.00"))
    story.until(story.local(7, 2))
    assert story.total() == 10000 + 20000
    story.ends_well()


def test_many_changes_on_one_day_cost_what_the_day_was_worth(session: Session) -> None:
    story = Story(session)
    small, big = make_plan(session, base_price="30.00"), make_plan(session, base_price="300.00")
    story.until(story.local(6, 1))
    story.subscribe(small)
    for hour, plan in ((6, big), (12, small), (18, big), (20, small)):
        story.until(story.local(6, 10, hour))
        story.change_plan(plan)
    story.until(story.local(6, 30))
    story.until(story.local(7, 2))
    # eight hours of the big plan instead of the small one: a third of a day of 9.00, in July the small plan alone
    assert abs(story.total() - (3000 + 300 + 3000)) <= 2
    story.ends_well()
    assert len(session.scalars(select(Subscription).where(Subscription.organization_id == story.organization.id)).one().terms) == 5


def test_a_month_of_inference_in_berlin(session: Session) -> None:
    story = Story(session, timezone="Europe/Berlin", tax_rate_percent=None)
    tokens, answers, requests = (make_metric(session, name) for name in ("input", "output", "requests"))
    tiers = [{"up_to": "10000000", "unit_price": "0.000002"}, {"up_to": None, "unit_price": "0.0000015"}]
    prices = [
        (tokens, {"model": "graduated", "tiers": tiers}),
        (answers, {"model": "per_unit", "unit_price": "0.000008"}),
        (requests, {"model": "package", "package_size": "1000", "package_price": "0.40"}),
    ]
    story.until(story.local(11, 1))
    story.subscribe(make_plan(session, base_price="99.00", billing_mode="in_arrears", prices=prices), anchor="calendar")
    for metric, quantity in ((tokens, 22_361_870), (answers, 4_088_665), (requests, 19_366)):
        story.use(metric, story.local(11, 16, 19), quantity)
    assert story.until(story.local(12, 2)) == [("2026-12-01", "open", {"base": 9900, "input": 3854, "output": 3271, "requests": 800})]
    invoice = session.scalars(select(Invoice).where(Invoice.organization_id == story.organization.id)).one()
    assert (invoice.subtotal_minor, invoice.tax_minor, invoice.total_minor) == (17825, 3387, 21212)
    story.ends_well()
