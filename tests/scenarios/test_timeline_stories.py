"""Stories of timelines: what is sold stays the same, when it holds changes. Every amount is worked out by hand beside it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.catalog.models import PlanVersion
from core.errors import Conflict, Invalid
from core.invoicing import account_credits, figure
from core.payments.models import PaymentMethod
from core.subscriptions import lifecycle, plan_change
from core.subscriptions.models import Subscription
from core.subscriptions.status import Act
from tests.factories import make_metric, make_plan
from tests.scenarios.story import Story


def begin(session: Session, month: int, day: int, plan: PlanVersion, *, zone: str = "UTC", **given: Any) -> tuple[Story, Subscription]:
    """A customer who subscribes to `plan` at local midnight of the day; the first invoice is told already."""
    organization = {name: given.pop(name) for name in ("currency",) if name in given}
    story = Story(session, timezone=zone, **organization)
    story.until(story.local(month, day))
    subscription = story.subscribe(plan, **given)
    story.until(story.local(month, day, 1))
    return story, subscription


def credit(story: Story) -> dict[str, int]:
    return account_credits.balance(story.session, story.organization.id)


def test_a_downgrade_on_the_31st_of_a_subscription_that_began_on_a_31st(session: Session) -> None:
    big, small = make_plan(session, base_price="310.00"), make_plan(session, base_price="62.00")
    story, _ = begin(session, 1, 31, big)
    assert story.until(story.local(3, 31, 12)) == [("2026-02-28", "open", {"base": 31000}), ("2026-03-31", "open", {"base": 31000})]
    # Noon of 31 March: half a day of the 30 up to 30 April is gone. 310 x 0.5/30 = 5.17 of 310.00 is used, 62 x 29.5/30 = 60.97.
    story.change_plan(small)
    assert story.until(story.local(4, 1)) == [("2026-03-31", "paid", {"base back": 517 - 31000, "base": 6097})]
    assert credit(story) == {"EUR": 31000 - 517 - 6097}
    # April has no 31st and May has one again; the credit of 243.86 pays three months of 62.00 and 57.86 of the fourth.
    told = story.until(story.local(8, 1))
    assert [(day, status) for day, status, _ in told] == [
        ("2026-04-30", "paid"), ("2026-05-31", "paid"), ("2026-06-30", "paid"), ("2026-07-31", "open"),
    ]  # fmt: skip
    assert all(amounts == {"base": 6200} for _, _, amounts in told)
    story.ends_well()


@pytest.mark.parametrize(
    ("proration", "back", "charge"),
    [
        # 1 April to 1 May in Auckland is 721 hours: the clocks went back on the 5th. At midnight of the 16th 361 are gone.
        ("seconds", 5007 - 10000, 9986),  # 100 x 361/721 = 50.069; 200 x 360/721 = 99.861
        ("days", -5000, 10000),  # 15 of 30 local days
        ("fixed_30", -5000, 10000),
        ("none", -10000 + 10000, 20000),  # any part is the whole: nothing back, the new plan in full
    ],
)
def test_an_upgrade_in_auckland_in_the_month_the_clocks_go_back(session: Session, proration: str, back: int, charge: int) -> None:
    old, new = (make_plan(session, base_price=price, proration=proration) for price in ("100.00", "200.00"))
    story, _ = begin(session, 4, 1, old, zone="Pacific/Auckland")
    story.until(story.local(4, 16))
    story.change_plan(new)
    changed = {"base back": back, "base": charge} if back else {"base": charge}
    assert story.until(story.local(4, 16, 1)) == [("2026-04-16", "open", changed)]
    assert story.until(story.local(5, 1, 2)) == [("2026-05-01", "open", {"base": 20000})]
    story.ends_well()


def test_fixed_months_of_30_days_in_a_month_of_31(session: Session) -> None:
    old, new = (make_plan(session, base_price=price, proration="fixed_30") for price in ("100.00", "200.00"))
    story, _ = begin(session, 7, 1, old)
    story.until(story.local(7, 16))
    story.change_plan(new)  # 15 of 30 days are left, though the calendar has 16
    assert story.until(story.local(7, 17)) == [("2026-07-16", "open", {"base back": -5000, "base": 10000})]
    story.ends_well()


@pytest.mark.parametrize("policy", ["convert", "cancel", "pause"])
@pytest.mark.parametrize("card", [False, True])
def test_a_trial_with_and_without_a_card(session: Session, policy: str, card: bool) -> None:
    plan = make_plan(session, base_price="50.00", trial_end_without_method=policy)
    story, subscription = begin(session, 3, 1, plan, trial_period_days=14)
    if card:
        owner = story.organization.id
        session.add(
            PaymentMethod(
                organization_id=owner,
                provider="fake",
                provider_payment_method_id="pm_1",
                type="card",
                is_default=True,
                created_at=story.now,
            )
        )
        session.flush()
    told = story.until(story.local(4, 1))
    session.refresh(subscription)
    if card or policy == "convert":
        assert told == [("2026-03-15", "open", {"base": 5000})]
        assert subscription.status == "active"
        return
    assert told == []
    assert subscription.status == {"cancel": "canceled", "pause": "paused"}[policy]
    assert (subscription.ends_at is not None) == (policy == "cancel")
    # They come back on 1 April: by resuming or by reactivating. The trial is over, so a full month from that day is charged.
    if policy == "pause":
        story.resume()
    else:
        lifecycle.reactivate(session, subscription, at=story.now, actor=SYSTEM)
    assert story.until(story.local(4, 2)) == [("2026-04-01", "open", {"base": 5000})]
    story.ends_well()


def test_four_changes_on_one_day_are_each_paid_for_by_the_hour(session: Session) -> None:
    # June has 720 hours: 72.00 is 0.10 an hour, 144.00 is 0.20, 720.00 is 1.00.
    small, middle, big = (make_plan(session, base_price=price) for price in ("72.00", "144.00", "720.00"))
    story, _ = begin(session, 6, 1, small)
    expected = [
        (9, middle, "open", {"base back": 2250 - 7200, "base": 9900}),  # 225 hours of small are gone, 495 of middle ahead
        (12, big, "open", {"base back": 60 - 9900, "base": 49200}),  # three hours of middle were used
        (15, small, "paid", {"base back": 300 - 49200, "base late": 4890}),  # three of big; 489 of small again, beside its 225
    ]
    for hour, plan, paid, amounts in expected:
        story.until(story.local(6, 10, hour))
        story.change_plan(plan)
        assert story.until(story.local(6, 10, hour + 1)) == [("2026-06-10", paid, amounts)]
    story.until(story.local(6, 10, 18))
    story.change_plan(big)  # two changes in one instant: the last one holds, the other never did
    story.change_plan(middle)
    assert story.until(story.local(6, 10, 19)) == [("2026-06-10", "paid", {"base back": 2280 - 7140, "base late": 9720})]
    assert story.total() == 2280 + 60 + 300 + 9720  # 225 + 3 hours of small, 3 and 486 of middle, 3 of big
    story.ends_well()


def test_a_pause_and_its_end_cost_what_was_shown_before(session: Session) -> None:
    story, subscription = begin(session, 6, 1, make_plan(session, base_price="30.00"))
    story.until(story.local(6, 11))
    assert figure.of_act(session, subscription, Act.PAUSE, at=story.now).net == -2000
    assert figure.of_act(session, subscription, Act.CANCEL, at=story.now).net == -2000
    story.pause()
    assert story.until(story.local(6, 21)) == [("2026-06-11", "paid", {"base back": -2000})]
    assert figure.of_act(session, subscription, Act.RESUME, at=story.now).net == 1000  # ten of June's thirty days are left
    story.resume()
    assert story.until(story.local(6, 22)) == [("2026-06-21", "paid", {"base late": 1000})]
    assert story.until(story.local(7, 2)) == [("2026-07-01", "open", {"base": 3000})]
    story.ends_well()


def test_an_upgrade_that_holds_from_a_day_last_month(session: Session) -> None:
    calls = make_metric(session)
    per_call = {"model": "per_unit", "unit_price": "0.01"}
    old = make_plan(session, base_price="100.00", prices=[(calls, per_call)])
    new = make_plan(session, base_price="200.00", prices=[(calls, {**per_call, "unit_price": "0.02"})])
    story, subscription = begin(session, 6, 1, old)
    story.use(calls, story.local(6, 10), 500)
    story.use(calls, story.local(6, 20), 300)
    assert story.until(story.local(7, 10)) == [("2026-07-01", "open", {"base": 10000, "calls": 800})]
    with pytest.raises(Invalid, match="cannot change then"):
        plan_change.apply(session, subscription, to=new, at=story.now, effective_at=story.now - timedelta(days=46), actor=SYSTEM)
    plan_change.apply(session, subscription, to=new, at=story.now, effective_at=story.local(6, 16), actor=SYSTEM)
    # June: half of 100 back, half of 200 due. July: 100 back, 200 due. The 300 calls of 20 June cost 0.02 instead of 0.01.
    assert story.until(story.local(7, 11)) == [
        ("2026-07-10", "open", {"base back": -5000 - 10000, "base": 10000 + 20000, "calls back": -300, "calls": 600})
    ]
    story.use(calls, story.local(7, 20), 100)
    assert story.until(story.local(8, 2)) == [("2026-08-01", "open", {"base": 20000, "calls": 200})]
    story.ends_well()


def test_a_customer_who_left_comes_back_in_the_same_month_and_much_later(session: Session) -> None:
    story, subscription = begin(session, 6, 1, make_plan(session, base_price="30.00"))
    story.until(story.local(6, 11))
    story.cancel()
    assert story.until(story.local(6, 16)) == [("2026-06-11", "paid", {"base back": -2000})]
    lifecycle.reactivate(session, subscription, at=story.now, actor=SYSTEM)  # 15 of 30 days are left, and the credit pays for them
    assert story.until(story.local(7, 2)) == [("2026-06-16", "paid", {"base late": 1500}), ("2026-07-01", "open", {"base": 3000})]
    story.until(story.local(7, 5))
    story.cancel("period_end")
    assert story.until(story.local(10, 5, 14)) == []
    session.refresh(subscription)
    assert subscription.status == "canceled"
    story.session.expire_all()
    lifecycle.reactivate(session, subscription, at=story.now, actor=SYSTEM)  # a new cycle of its own, from the 5th
    assert story.until(story.local(10, 6)) == [("2026-10-05", "open", {"base": 3000})]
    assert story.until(story.local(11, 6)) == [("2026-11-05", "open", {"base": 3000})]
    story.cancel()
    other = story.subscribe(make_plan(session))
    assert lifecycle.reactivate(session, subscription, at=story.now + timedelta(hours=1), actor=SYSTEM).status == "active"
    lifecycle.cancel(session, subscription, at=story.now + timedelta(hours=2), actor=SYSTEM, when="now")
    plan_change.apply(session, other, to=subscription.terms[-1].plan_version, at=story.now + timedelta(hours=3), actor=SYSTEM)
    with pytest.raises(Conflict, match="already"):
        lifecycle.reactivate(session, subscription, at=story.now + timedelta(hours=4), actor=SYSTEM)


def test_periods_begin_on_the_day_of_the_month_that_was_agreed(session: Session) -> None:
    # From 10 June to 30 June are 20 of the 30 days of the cycle from 31 May: 20.00 of 30.00.
    story, _ = begin(session, 6, 10, make_plan(session, base_price="30.00"), billing_day=31)
    assert story.total() == 2000
    told = story.until(story.local(10, 1, 2))
    assert told == [(day, "open", {"base": 3000}) for day in ("2026-06-30", "2026-07-31", "2026-08-31", "2026-09-30")]
    quarterly = make_plan(session, base_price="90.00", billing_period="quarter")
    later, _ = begin(session, 1, 31, quarterly, billing_day=31)
    assert [day for day, _, _ in later.until(later.local(11, 1, 2))] == ["2026-04-30", "2026-07-31", "2026-10-31"]
    with pytest.raises(Invalid):
        later.subscribe(make_plan(session, billing_period="week"), billing_day=3)
    story.ends_well()


@pytest.mark.parametrize(
    ("currency", "price", "back", "charge"),
    [
        ("JPY", "1000", 333 - 1000, 1333),  # 1000 x 10/30 = 333.3 used, 2000 x 20/30 = 1333.3
        ("KWD", "10", 3333 - 10000, 13333),  # fils: 3.3333 -> 3.333 of 10.000, 13.3333 -> 13.333
    ],
)
def test_yen_and_dinars_round_a_change_to_their_own_unit(session: Session, currency: str, price: str, back: int, charge: int) -> None:
    old, new = (make_plan(session, base_price=amount, currency=currency) for amount in (price, str(2 * Decimal(price))))
    story, _ = begin(session, 6, 1, old, currency=currency)
    story.until(story.local(6, 11))
    story.change_plan(new)
    assert story.until(story.local(6, 12)) == [("2026-06-11", "open", {"base back": back, "base": charge})]
    story.ends_well()


@pytest.mark.parametrize(
    ("policy", "at_once", "next_month"),
    [
        ("credit", [("2026-06-16", "open", {"base back": -5000, "base": 10000})], {"base": 20000}),
        ("next_invoice", [], {"base back": -5000, "base": 10000 + 20000}),
        ("none", [("2026-06-16", "open", {"base": 10000})], {"base": 20000}),
    ],
)
def test_unused_time_is_credited_at_once_with_the_next_invoice_or_not(
    session: Session, policy: str, at_once: list[Any], next_month: dict[str, int]
) -> None:
    old, new = (make_plan(session, base_price=price, credit_policy=policy) for price in ("100.00", "200.00"))
    story, _ = begin(session, 6, 1, old)
    story.until(story.local(6, 16))
    story.change_plan(new)
    assert story.until(story.local(6, 30)) == at_once
    assert story.until(story.local(7, 2)) == [("2026-07-01", "open", next_month)]
    story.ends_well()
