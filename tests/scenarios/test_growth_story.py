"""A startup that grows into an enterprise contract, month by month; at the end every invoice replays to the same figures."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.invoicing.models import Invoice
from core.invoicing.replay import replay
from tests.factories import make_metric, make_plan
from tests.scenarios.story import Story


def allowance(free: str, unit_price: str) -> dict[str, object]:
    """So many free, then a price for each."""
    return {"model": "graduated", "tiers": [{"up_to": free, "unit_price": "0"}, {"up_to": None, "unit_price": unit_price}]}


def test_a_startup_grows_into_an_enterprise_contract(session: Session) -> None:
    story, calls = Story(session), make_metric(session)
    starter = make_plan(session, base_price="29.00", prices=[(calls, allowance("1000", "0.02"))])
    growth = make_plan(session, base_price="199.00", prices=[(calls, allowance("10000", "0.01"))])
    per_call = {"model": "per_unit", "unit_price": "0.004"}
    enterprise = make_plan(session, base_price="12000.00", billing_period="year", prices=[(calls, per_call)])

    story.until(story.local(1, 10))
    story.subscribe(starter, trial_period_days=14)
    story.use(calls, story.local(1, 12), 500)  # in the trial: never billed
    assert story.until(story.local(1, 24, 1)) == [("2026-01-24", "open", {"base": 2900})]

    story.use(calls, story.local(2, 20), 2500)  # 1,500 over the allowance at 0.02
    assert story.until(story.local(3, 10)) == [("2026-02-24", "open", {"base": 2900, "calls": 3000})]

    story.use(calls, story.local(3, 1), 600)  # within the allowance
    story.change_plan(growth)  # 14 of the 28 days from 24 February are left: half of 29.00 back, half of 199.00
    assert story.until(story.local(3, 11)) == [("2026-03-10", "open", {"base back": -1450, "base": 9950, "calls": 0})]

    story.use(calls, story.local(3, 12), 15_000)  # 5,000 over at 0.01
    story.use(calls, story.local(4, 1), 30_000)  # 20,000 over
    assert story.until(story.local(5, 1)) == [
        ("2026-03-24", "open", {"base": 19900, "calls": 5000}),
        ("2026-04-24", "open", {"base": 19900, "calls": 20000}),
    ]

    story.change_plan(enterprise)  # a year from today; 23 of the 30 days from 24 April come back: 199.00 x 23/30 = 152.5667
    assert story.until(story.local(5, 2)) == [("2026-05-01", "open", {"base back": -15257, "base": 1_200_000, "calls": 0})]

    story.use(calls, story.local(8, 1), 100_000)
    told = story.until(story.local(5, 2, year=2027))
    assert told == [("2027-05-01", "open", {"base": 1_200_000, "calls": 40_000})]
    story.ends_well()

    issued = session.scalars(select(Invoice).where(Invoice.organization_id == story.organization.id)).all()
    assert len(issued) == 7
    assert all(replay(session, invoice.organization_id, invoice.id).is_identical for invoice in issued)
