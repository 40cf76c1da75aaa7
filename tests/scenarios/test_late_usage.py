"""Usage that is as late as it may be is billed, however long the cycles are."""

from sqlalchemy.orm import Session

from tests.factories import make_metric, make_plan
from tests.scenarios.story import Story

PER_CALL = {"model": "per_unit", "unit_price": "0.01"}


def test_usage_of_a_month_that_arrives_after_the_next_invoice_is_on_the_one_after(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    plan = make_plan(session, base_price="10.00", prices=[(calls, PER_CALL)])
    story.until(story.local(2, 1))
    story.subscribe(plan)
    story.until(story.local(4, 3))  # February was billed on 1 March, March on 1 April
    story.use(calls, story.local(2, 28, 12), 700)  # 34 days late, within the 35 that are accepted
    assert story.until(story.local(5, 2)) == [("2026-05-01", "open", {"base": 1000, "calls late": 700, "calls": 0})]
    story.ends_well()


def test_usage_of_a_year_that_arrives_after_its_invoice_is_billed_with_the_next(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    plan = make_plan(session, base_price="1000.00", prices=[(calls, PER_CALL)], billing_period="year")
    story.until(story.local(2, 1))
    story.subscribe(plan)
    story.until(story.local(2, 20, year=2027))
    story.use(calls, story.local(1, 31, year=2027), 700)  # 20 days late
    told = story.until(story.local(2, 2, year=2028))
    assert sum(amounts.get("calls late", 0) for _, _, amounts in told) == 700
    story.ends_well()


def test_a_change_planned_meanwhile_does_not_keep_late_usage_of_a_year_waiting(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    plan, larger = (
        make_plan(session, base_price=price, prices=[(calls, PER_CALL)], billing_period="year") for price in ("1000.00", "2000.00")
    )
    story.until(story.local(2, 1))
    story.subscribe(plan)
    story.until(story.local(2, 20, year=2027))
    story.use(calls, story.local(1, 31, year=2027), 700)  # 20 days late
    story.change_plan(larger, when="period_end")
    told = story.until(story.local(3, 31, year=2027))
    assert told[-1] == ("2027-03-08", "open", {"calls late": 700})  # 35 days after the year ended
    story.ends_well()
