"""Stories of discounts whose time is not that of the lines they take from. Every amount is worked out by hand beside it."""

from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.subscriptions import items, plan_change
from tests.factories import make_metric
from tests.scenarios.story import Story
from tests.scenarios.test_plan_level_stories import plan

TENTH: dict[str, Any] = {"code": "loyal", "model": "discount", "percent_off": "10"}


def test_a_discount_of_a_yearly_plan_keeps_what_it_took_from_months_that_are_closed(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    usage = {"metric": calls.code, "code": "calls", "model": "per_unit", "unit_price": "0.02", "billing_period": "month"}
    story.until(story.local(1, 1))
    story.subscribe(plan(session, story, "yearly", billing_period="year", base_price="1200", prices=[usage, TENTH]))
    assert story.until(story.local(1, 2)) == [("2026-01-01", "open", {"base": 120000, "loyal": -12000})]
    for month in (1, 2):
        story.use(calls, story.local(month, 10), 1000)  # 20.00 a month, and 2.00 off
        told = story.until(story.local(month + 1, 2))
        assert [amounts for _, _, amounts in told] == [{"calls": 2000, "loyal back": -200}]
    # The year turns: its discount is open still, January and February are closed for good. Nothing is taken back of it.
    told = [amounts for _, _, amounts in story.until(story.local(2, 2, year=2027)) if any(amounts.values())]
    assert told == [{"base": 120000, "loyal": -12000, "calls": 0}]
    story.ends_well()


def test_a_discount_follows_a_yearly_price_however_long_its_own_month_is_over(session: Session) -> None:
    story = Story(session)
    seats = {"licensed": "seats", "code": "seats", "model": "per_unit", "unit_price": "120", "billing_period": "year"}
    minimum = {"code": "minimum", "model": "commitment", "amount": "1000"}
    monthly = plan(session, story, "monthly", base_price="100", prices=[seats, {**TENTH, "covers": ["seats"]}, minimum])
    story.until(story.local(1, 1))
    subscription = story.subscribe(monthly, quantities={"seats": 10})
    assert story.until(story.local(1, 2)) == [("2026-01-01", "open", {"base": 10000, "seats": 120000, "loyal": -12000})]
    told = [amounts for _, _, amounts in story.until(story.local(7, 1, 1))]
    assert told == [{"base": 10000}] + [{"base": 10000, "minimum": 90000}] * 5  # January came to more than 1,000.00
    given: dict[str, Any] = {"to": monthly, "quantities": {"seats": Decimal(4)}, "effective_at": story.local(7, 1), "actor": SYSTEM}
    plan_change.apply(session, subscription, at=story.now, **given)
    # 184 of 365 days of six seats are given back, less the tenth that was taken off: 362.96 - 36.30. January now came to
    # 100.00 + 837.04 - 83.70 = 853.34: 146.66 are missing to its minimum.
    assert [amounts for _, _, amounts in story.until(story.local(7, 2))] == [{"seats back": -36296, "loyal late": 3630, "minimum": 14666}]
    story.ends_well()


def test_a_coupon_comes_after_the_discount_of_the_plan_that_was_changed_to(session: Session) -> None:
    story = Story(session)
    small, big = plan(session, story, "small", base_price="100"), plan(session, story, "big", base_price="200", prices=[TENTH])
    off = [{"code": "off", "model": "discount", "percent_off": "20"}]
    plan(session, story, "friends", kind="coupon", prices=off)
    story.until(story.local(6, 1))
    story.subscribe(small)
    items.attach(session, story._current(), plan="friends", at=story.now, actor=SYSTEM)
    assert story.until(story.local(6, 2)) == [("2026-06-01", "open", {"base": 10000, "off": -2000})]

    story.until(story.local(6, 16))
    story.change_plan(big)
    # Half of each is owed: 50.00 and 100.00. The new plan takes a tenth of its 100.00; the coupon a fifth of the 140.00 left, 28.00.
    assert story.until(story.local(6, 17)) == [
        ("2026-06-16", "open", {"base back": -5000, "base": 10000, "loyal": -1000, "off back": -800})
    ]
    assert story.until(story.local(7, 2)) == [("2026-07-01", "open", {"base": 20000, "loyal": -2000, "off": -3600})]
    story.ends_well()


def test_a_plan_taken_again_within_its_old_month_gives_its_discount_once(session: Session) -> None:
    story = Story(session)
    monthly, weekly = (
        plan(session, story, "monthly", base_price="100", prices=[TENTH]),
        plan(session, story, "weekly", billing_period="week", base_price="70"),
    )
    story.until(story.local(6, 1))
    story.subscribe(monthly)
    assert story.until(story.local(6, 11)) == [("2026-06-01", "open", {"base": 10000, "loyal": -1000})]
    story.change_plan(weekly)  # a third of June was used: 33.33, and 3.33 off
    told = story.until(story.local(6, 21))
    assert [amounts for _, _, amounts in told] == [{"base back": -6667, "base": 7000, "loyal late": 667}, {"base": 7000}]
    story.change_plan(monthly)  # three of seven days of the second week; a month that begins today, of which a tenth comes off, once
    told = story.until(story.local(7, 20))
    assert [amounts for _, _, amounts in told] == [{"base back": -4000, "base": 10000, "loyal": -1000}]
    story.ends_well()


def test_a_coupon_leaves_alone_what_was_billed_before_its_cycles_were_entered(session: Session) -> None:
    story = Story(session)
    weekly = plan(session, story, "weekly", billing_period="week", base_price="70")
    yearly = plan(session, story, "yearly", billing_period="year", base_price="365")
    plan(session, story, "thanks", kind="coupon", prices=[{"code": "off", "model": "discount", "amount_off": "30"}])
    story.until(story.local(6, 1))
    story.subscribe(weekly, anchor="calendar")
    assert [amounts for _, _, amounts in story.until(story.local(6, 10))] == [{"base": 7000}, {"base": 7000}]
    story.change_plan(yearly)  # two of seven days of the second week; 205 days of the year are left
    assert [amounts for _, _, amounts in story.until(story.local(6, 20))] == [{"base back": -5000, "base": 20500}]
    items.attach(session, story._current(), plan="thanks", at=story.now, actor=SYSTEM)  # of the year, not of the weeks in it
    assert [amounts for _, _, amounts in story.until(story.local(6, 21))] == [{"off": -3000}]
    story.ends_well()


def test_a_coupon_taken_away_never_lasts_longer_for_it(session: Session) -> None:
    story = Story(session)
    monthly = plan(session, story, "monthly", base_price="100")
    weekly = plan(session, story, "weekly", billing_period="week", base_price="70")
    plan(session, story, "once", kind="coupon", duration_cycles=1, prices=[{"code": "off", "model": "discount", "percent_off": "20"}])
    story.until(story.local(6, 1))
    subscription = story.subscribe(monthly)
    coupon = items.attach(session, subscription, plan="once", at=story.now, actor=SYSTEM)
    story.until(story.local(6, 27))
    story.change_plan(weekly)  # its weeks end on 4 July and later, the coupon with June
    items.detach(session, subscription, coupon.id, at=story.local(6, 28), actor=SYSTEM)
    assert coupon.end_at == story.local(7, 1)
