"""Stories of what a plan says beside its usage prices: seats, included units, commitments, cycles of their own."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.audit import SYSTEM, AuditEvent
from core.catalog import publish
from core.catalog.models import PlanVersion
from core.catalog.negotiated import negotiate
from core.errors import Conflict
from core.invoicing import account_credits, credit_expiry, grants
from core.periods import Interval
from core.subscriptions import items, plan_change
from core.subscriptions.agreement import Contract, Phase
from tests.factories import make_metric
from tests.scenarios.story import Story

INSTANCES = {
    "licensed": "instances",
    "model": "graduated",
    "tiers": [{"up_to": "2", "unit_price": "20"}, {"up_to": None, "unit_price": "15"}],
}


def plan(session: Session, story: Story, code: str = "team", **given: Any) -> PlanVersion:
    """A monthly plan in euros as the API would publish it."""
    document = {"name": code.capitalize(), "currency": "EUR", "billing_period": "month", "base_price": "0", **given}
    return publish.create_version(session, code=code, actor=SYSTEM, at=story.now, **document)


def hold(story: Story, version: PlanVersion, **quantities: int) -> None:
    """Change named quantities this very moment."""
    wanted = {name: Decimal(quantity) for name, quantity in quantities.items()}
    plan_change.apply(story.session, story._current(), to=version, quantities=wanted, at=story.now, actor=SYSTEM)
    story.session.flush()


def test_seats_and_instances_go_up_and_down_in_mid_month(session: Session) -> None:
    story = Story(session)
    seats = {"licensed": "seats", "model": "per_unit", "unit_price": "10"}
    team = plan(session, story, base_price="50", prices=[seats, INSTANCES])

    story.until(story.local(6, 1))
    story.subscribe(team, quantities={"seats": 5, "instances": 3})
    # 5 seats at 10; instances 2 x 20 + 1 x 15
    assert story.until(story.local(6, 2)) == [("2026-06-01", "open", {"base": 5000, "seats": 5000, "instances": 5500})]

    story.until(story.local(6, 16))  # half of June
    hold(story, team, seats=8, instances=1)
    # seats 50/2 + 80/2 = 65, billed 50; instances 55/2 + 20/2 = 37.50, billed 55
    assert story.until(story.local(6, 17)) == [("2026-06-16", "paid", {"instances back": -1750, "seats late": 1500})]
    assert story.until(story.local(7, 2)) == [("2026-07-01", "open", {"base": 5000, "seats": 8000, "instances": 2000})]

    hold(story, team, seats=8, instances=0)  # one of 31 days used: 20/31 = 0.65
    assert story.until(story.local(7, 3)) == [("2026-07-02", "paid", {"instances back": -1935})]
    story.cancel("period_end")
    assert story.until(story.local(9, 1)) == []
    assert story.total() == 5000 + 5000 + 5500 - 250 + 15000 - 1935
    story.ends_well()


def test_units_are_included_for_each_seat_and_in_a_short_month_only_their_share(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    usage = {"metric": calls.code, "code": "calls", "model": "per_unit", "unit_price": "0.01", "included": "100", "licensed": "seats"}
    team = plan(session, story, base_price="30", prices=[{"licensed": "seats", "model": "flat", "flat_price": "0"}, usage])

    story.until(story.local(6, 16))
    story.subscribe(team, anchor="calendar", quantities={"seats": 4})  # the half of June
    story.use(calls, story.local(6, 20), 350)  # 4 x 100 x 15/30 = 200 are included
    told = story.until(story.local(7, 3))
    assert [amounts for _, _, amounts in told] == [{"base": 1500, "seats": 0}, {"base": 3000, "seats": 0, "calls": 150}]

    story.use(calls, story.local(7, 5), 380)  # of 400
    assert story.until(story.local(8, 3))[-1][2] == {"base": 3000, "seats": 0, "calls": 0}
    story.ends_well()


def test_a_minimum_is_trued_up_and_late_usage_fills_it_first(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    prices = [
        {"metric": calls.code, "code": "calls", "model": "per_unit", "unit_price": "0.01"},
        {"code": "minimum", "model": "commitment", "amount": "100"},
    ]
    story.until(story.local(1, 1))
    story.subscribe(plan(session, story, base_price="20", prices=prices))
    assert story.until(story.local(1, 2)) == [("2026-01-01", "open", {"base": 2000})]

    story.use(calls, story.local(1, 10), 3000)  # 30.00; with the base 50.00 of 100.00
    assert story.until(story.local(2, 2)) == [("2026-02-01", "open", {"base": 2000, "calls": 3000, "minimum": 5000})]

    story.use(calls, story.local(1, 20), 1000)  # arrives late: 10.00 more usage, 10.00 less missing
    story.use(calls, story.local(2, 10), 9000)  # February needs no true-up
    told = story.until(story.local(3, 2))
    assert told == [("2026-03-01", "open", {"base": 2000, "calls late": 1000, "calls": 9000, "minimum back": -1000})]
    story.ends_well()


def test_a_prepaid_commitment_is_drawn_down_month_by_month_and_overage_costs_more(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    prices = [
        {"metric": calls.code, "code": "calls", "model": "per_unit", "unit_price": "0.01"},
        {
            "code": "prepaid", "model": "commitment", "amount": "1200", "billing_mode": "in_advance", "billing_period": "year",
            "overage_factor": "1.5", "covers": ["calls"],
        },
    ]  # fmt: skip
    story.until(story.local(1, 1))
    story.subscribe(plan(session, story, prices=prices))
    assert story.until(story.local(1, 2)) == [("2026-01-01", "open", {"prepaid": 120000})]

    for month in range(1, 7):  # 150.00 a month: 900.00 by the end of June
        story.use(calls, story.local(month, 10), 15000)
    told = story.until(story.local(7, 2))
    assert [amounts for _, _, amounts in told] == [{"calls": 15000, "prepaid back": -15000}] * 6

    story.use(calls, story.local(7, 10), 50000)  # 500.00: 300.00 are left of the commitment, 200.00 cost 1.5 times as much
    assert story.until(story.local(8, 2))[0][2] == {"calls": 50000, "prepaid back": -20000}
    assert story.total() == 120000 + 20000 * 3 // 2
    story.cancel("now")
    story.until(story.local(9, 20))
    story.ends_well()


def test_a_yearly_plan_bills_its_usage_every_month(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    usage = {
        "metric": calls.code,
        "code": "calls",
        "model": "per_unit",
        "unit_price": "0.02",
        "included": "1000",
        "billing_period": "month",
    }
    yearly = plan(session, story, "yearly", billing_period="year", base_price="1200", prices=[usage])

    story.until(story.local(1, 31))
    story.subscribe(yearly)
    assert story.until(story.local(2, 1)) == [("2026-01-31", "open", {"base": 120000})]
    story.use(calls, story.local(2, 10), 1500)  # from 31 January to 28 February: 500 over the included
    assert story.until(story.local(3, 1)) == [("2026-02-28", "open", {"calls": 1000})]
    story.use(calls, story.local(3, 10), 900)
    assert story.until(story.local(4, 1)) == [("2026-03-31", "paid", {"calls": 0})]
    story.cancel("now")
    told = story.until(story.local(5, 30))
    # 60 of 365 days are used: 1,200 x 305/365 = 1,002.7397
    assert told == [("2026-04-01", "paid", {"base back": -100274, "calls": 0})]
    story.ends_well()


def test_an_add_on_and_a_coupon_come_and_go_beside_the_plan(session: Session) -> None:
    story = Story(session)
    team = plan(session, story, base_price="100")
    plan(session, story, "support", kind="add_on", base_price="30")
    off = [{"code": "off", "model": "discount", "percent_off": "20"}]
    plan(session, story, "launch", kind="coupon", duration_cycles=2, prices=off)

    story.until(story.local(6, 1))
    story.subscribe(team)
    items.attach(session, story._current(), plan="launch", at=story.now, actor=SYSTEM)
    assert story.until(story.local(6, 2)) == [("2026-06-01", "open", {"base": 10000, "off": -2000})]

    story.until(story.local(6, 16))  # half of June: 2 x 30 / 2, less 20 % of it
    support = items.attach(session, story._current(), plan="support", quantity=2, at=story.now, actor=SYSTEM)
    assert story.until(story.local(6, 17)) == [("2026-06-16", "open", {"base": 3000, "off back": -600})]
    told = story.until(story.local(7, 2))
    assert told == [("2026-07-01", "open", {"base": 16000, "off": -3200})]  # 100 + 2 x 30, less 20 %

    told = story.until(story.local(8, 1, 12))  # the coupon held for two periods
    assert told == [("2026-08-01", "open", {"base": 16000})]
    items.detach(session, story._current(), support.id, when="period_end", at=story.now, actor=SYSTEM)
    assert story.until(story.local(9, 2)) == [("2026-09-01", "open", {"base": 10000})]
    story.ends_well()


def test_cancelling_takes_the_discount_of_the_unused_time_back(session: Session) -> None:
    story = Story(session)
    team = plan(session, story, base_price="100")
    plan(session, story, "friends", kind="coupon", prices=[{"code": "off", "model": "discount", "amount_off": "25"}])
    story.until(story.local(6, 1))
    story.subscribe(team)
    items.attach(session, story._current(), plan="friends", at=story.now, actor=SYSTEM)
    assert story.until(story.local(6, 2)) == [("2026-06-01", "open", {"base": 10000, "off": -2500})]
    story.until(story.local(6, 25))
    story.cancel()  # 24 of 30 days are owed: 80.00; the amount off stays, as it is less than that
    assert story.until(story.local(6, 26)) == [("2026-06-25", "paid", {"base back": -2000})]
    story.ends_well()


def test_spend_earns_a_discount_on_all_of_it(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    rates = [{"up_to": "100", "percent_off": "0"}, {"up_to": "500", "percent_off": "5"}, {"up_to": None, "percent_off": "12.5"}]
    prices = [
        {"metric": calls.code, "code": "calls", "model": "per_unit", "unit_price": "0.01"},
        {"code": "volume", "model": "discount", "tiers": rates, "covers": ["calls"]},
    ]
    story.until(story.local(1, 1))
    story.subscribe(plan(session, story, base_price="20", prices=prices))
    story.use(calls, story.local(1, 10), 10_000)  # 100.00: in the first tier
    story.use(calls, story.local(2, 10), 10_001)  # 100.01: 5 % of it is 5.0005
    story.use(calls, story.local(3, 10), 80_000)  # 800.00: 12.5 % of it
    told = [amounts for _, _, amounts in story.until(story.local(4, 2))]
    assert told[1:] == [
        {"base": 2000, "calls": 10000},
        {"base": 2000, "calls": 10001, "volume": -500},
        {"base": 2000, "calls": 80000, "volume": -10000},
    ]
    story.ends_well()


def test_one_plan_is_sold_in_two_currencies(session: Session) -> None:
    story, calls = Story(session, currency="JPY"), make_metric(session)
    yen = {"base_price": "9800", "prices": [{"metric": calls.code, "code": "calls", "model": "per_unit", "unit_price": "1.5"}]}
    both = plan(session, story, base_price="60", currencies={"JPY": yen})
    story.until(story.local(1, 1))
    assert story.subscribe(both).currency == "JPY"
    story.use(calls, story.local(1, 10), 333)  # 499.5 yen
    told = story.until(story.local(2, 2))
    assert [amounts for _, _, amounts in told] == [{"base": 9800}, {"base": 9800, "calls": 500}]
    story.ends_well()


def test_an_enterprise_contract_ramps_up_and_guarantees_a_minimum(session: Session) -> None:
    """Three years in short: a pilot of three months, then the agreed price with a yearly minimum, two months' notice."""
    story, calls = Story(session), make_metric(session)
    listed = [{"metric": calls.code, "code": "calls", "model": "per_unit", "unit_price": "0.02"}]
    team = plan(session, story, base_price="500", prices=listed)
    story.until(story.local(1, 1))
    given: dict[str, Any] = {"organization_id": story.organization.id, "currency": "EUR", "at": story.now, "actor": SYSTEM}
    pilot = negotiate(session, team, base_price="0", **given)
    cheaper = [
        {"metric": calls.code, "code": "calls", "model": "per_unit", "unit_price": "0.01"},
        {"code": "minimum", "model": "commitment", "amount": "2000", "billing_period": "year", "covers": ["calls"]},
    ]
    agreed = negotiate(session, team, base_price="400", prices=cheaper, **given)
    phases = [Phase(story.local(4, 1), agreed), Phase(story.local(1, 1, year=2027), agreed, quantity=Decimal(2))]
    contract = Contract(Interval.YEAR, notice_days=60)
    story.subscribe(pilot, phases=phases, contract=contract)

    story.use(calls, story.local(2, 10), 1000)
    told = [amounts for _, _, amounts in story.until(story.local(4, 2))]
    assert told == [{"calls": 0}, {"calls": 2000}, {"base": 40000, "calls": 0}]  # 1,000 at the list price of 0.02

    for month in range(4, 13):
        story.use(calls, story.local(month, 10), 10_000)  # 100.00 a month at the agreed price
    story.until(story.local(12, 1))
    story.cancel("period_end")  # one month before the end, notice is two: the next year binds
    assert story._current().ends_at == story.local(1, 1, year=2028)
    told = [amounts for _, _, amounts in story.until(story.local(1, 2, year=2027))]
    # April to December is 275/365 of the year: 2,000 x 275/365 = 1,506.85, less 900.00 of usage
    assert told == [{"base": 40000, "calls": 10000}, {"base": 40000, "calls": 10000, "minimum": 60685}]
    with pytest.raises(Conflict, match="The contract binds until 2028-01-01"):
        story.cancel("now")
    story.ends_well()


def test_granted_credit_is_used_by_priority_and_taken_back_when_it_expires(session: Session) -> None:
    story = Story(session)
    story.until(story.local(6, 1))
    give: dict[str, Any] = {"session": session, "organization": story.organization, "at": story.now, "actor": SYSTEM}
    welcome = grants.grant(**give, amount_minor=6_000, name="Welcome", expires_at=story.local(7, 1))
    sorry = grants.grant(**give, amount_minor=5_000, name="Sorry", priority=10, expires_at=story.local(12, 1))
    story.subscribe(plan(session, story, base_price="100"))
    assert story.until(story.local(6, 2)) == [("2026-06-01", "paid", {"base": 10000})]  # 50.00 of the one, 50.00 of the other
    assert account_credits.balance(session, story.organization.id) == {"EUR": 1_000}
    assert account_credits.balance(session, story.organization.id, at=story.local(7, 2)) == {}

    clock = story.organization.test_clock_id
    assert clock is not None
    look_at(story, credit_expiry.next_look(session, clock_id=clock), clock)  # two weeks ahead the customer is told of the 10.00 left
    assert (story.now, told(story)) == (story.local(6, 17), [("credit.expiring", 1_000)])
    look_at(story, credit_expiry.next_look(session, clock_id=clock), clock)
    assert (story.now, told(story)) == (story.local(7, 1), [("credit.expiring", 1_000), ("credit.expired", 1_000)])
    assert credit_expiry.next_look(session, clock_id=clock) is None  # nothing is left of the other
    assert story.until(story.local(7, 2)) == [("2026-07-01", "open", {"base": 10000})]
    for credit in (welcome, sorry):
        session.refresh(credit)
    assert [(credit.amount_minor, credit.remaining_minor) for credit in (welcome, sorry)] == [(5_000, 0), (5_000, 0)]
    story.ends_well()


def look_at(story: Story, moment: datetime | None, clock: uuid.UUID) -> None:
    """Let time pass to the next look at credit that expires, and look twice, as a worker may."""
    assert moment is not None
    story.now = moment
    for _ in range(2):
        credit_expiry.look(story.session, credit_expiry.waiting(story.session, as_of=moment, clock_id=clock), at=moment)
    assert not credit_expiry.waiting(story.session, as_of=moment, clock_id=clock)


def told(story: Story) -> list[tuple[str, int]]:
    """What the audit trail says of expiring credit: kind, and the amount it is about."""
    wanted = AuditEvent.organization_id == story.organization.id, AuditEvent.kind.like("credit.expir%")
    rows = story.session.scalars(select(AuditEvent).where(*wanted).order_by(AuditEvent.at)).all()
    return [(row.kind, row.data.get("remaining_minor", row.data.get("amount_minor"))) for row in rows]
