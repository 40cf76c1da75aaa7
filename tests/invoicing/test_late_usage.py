"""Late is what comes when an invoice has billed the cycle it belongs to, for each metric that it feeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from core.identity.models import TestClock
from core.invoicing import late_usage
from core.invoicing.late_usage import Arrival, Late
from core.invoicing.models import Invoice
from core.metering.models import Metric
from tests.factories import make_metric, make_organization, make_plan
from tests.scenarios.story import Story

YEAR = 2099  # issued after the rows of this test were made, so that the instants of both can be told apart
PER_CALL = {"model": "per_unit", "unit_price": "0.01"}
HOUR = timedelta(hours=1)


def _billed(session: Session, *metrics: Metric) -> tuple[Story, Invoice]:
    """A customer in real time, and the invoice that billed its May."""
    story = Story(session, timezone="UTC")
    plan = make_plan(session, prices=[(metric, PER_CALL) for metric in metrics])
    story.until(story.local(5, 1, year=YEAR))
    story.subscribe(plan)
    story.until(story.local(6, 20, year=YEAR))
    newest = select(Invoice).where(Invoice.organization_id == story.organization.id).order_by(Invoice.finalized_at.desc())
    story.organization.test_clock = None
    session.flush()
    return story, session.scalars(newest.limit(1)).one()


def _asked(session: Session, story: Story, at: datetime, came: datetime, **given: Any) -> tuple[Late, ...]:
    [found] = late_usage.find(session, [Arrival(story.organization.id, "call", at, came, given)])
    return found


def test_what_comes_after_its_cycle_was_billed_is_late(session: Session) -> None:
    calls = make_metric(session, event_name="call")
    story, invoice = _billed(session, calls)
    in_may, issued = story.local(5, 31, 23, year=YEAR), invoice.finalized_at
    assert issued is not None
    assert _asked(session, story, in_may, issued - HOUR) == ()  # its cycle is over, and can still take it
    [late] = _asked(session, story, in_may, issued + HOUR)
    assert (late.metric_name, late.invoice_id, late.invoice_number) == (calls.code, invoice.id, invoice.invoice_number)
    assert (late.cycle_start, late.cycle_end) == (story.local(5, 1, year=YEAR), story.local(6, 1, year=YEAR))
    assert (late.billed_at, late.adjusts) == (issued, True)
    assert _asked(session, story, story.local(6, 1, year=YEAR), issued + HOUR) == ()  # of the cycle that runs
    stranger = Arrival(make_organization(session).id, "call", in_may, issued + HOUR, {})
    assert late_usage.find(session, [stranger]) == [()]


def test_each_metric_that_reads_the_event_has_its_own_policy(session: Session) -> None:
    ignores = make_metric(session, "a-ignores", event_name="call", late_policy="ignore")
    adjusts = make_metric(session, "b-adjusts", event_name="call")
    filtered = make_metric(session, "c-filtered", event_name="call", filters=[{"property": "region", "in": ["eu"]}])
    story, _ = _billed(session, ignores, adjusts, filtered)
    in_may, came = story.local(5, 2, year=YEAR), story.local(6, 19, year=YEAR)
    found = _asked(session, story, in_may, came, region="us")
    assert [(late.metric_name, late.adjusts) for late in found] == [(ignores.code, False), (adjusts.code, True)]
    assert len(_asked(session, story, in_may, came, region="eu")) == 3


def test_a_void_invoice_billed_nothing(session: Session) -> None:
    story, invoice = _billed(session, make_metric(session, event_name="call"))
    session.execute(Invoice.__table__.update().where(Invoice.id == invoice.id).values(status="void", voided_at=invoice.finalized_at))  # type: ignore[attr-defined]
    assert _asked(session, story, story.local(5, 2, year=YEAR), story.local(6, 19, year=YEAR)) == ()


def test_a_customer_on_a_test_clock_is_late_by_real_time(session: Session) -> None:
    story, invoice = _billed(session, make_metric(session, event_name="call"))
    story.organization.test_clock_id = session.scalars(select(TestClock.id).limit(1)).one()
    session.flush()
    assert _asked(session, story, story.local(5, 2, year=YEAR), invoice.created_at - HOUR) == ()
    assert len(_asked(session, story, story.local(5, 2, year=YEAR), invoice.created_at + HOUR)) == 1


def test_a_thousand_events_take_two_statements(session: Session) -> None:
    story, invoice = _billed(session, make_metric(session, event_name="call"))
    assert invoice.finalized_at is not None
    first, came = story.local(5, 1, year=YEAR), invoice.finalized_at + HOUR
    arrivals = [Arrival(story.organization.id, "call", first + n * timedelta(minutes=60), came, {}) for n in range(1_000)]
    with _counted(session) as statements:
        found = late_usage.find(session, arrivals)
    assert len(statements) == 2
    assert [bool(late) for late in found] == [n < 31 * 24 for n in range(1_000)]
    with _counted(session) as statements:
        assert late_usage.find(session, arrivals[-10:]) == [()] * 10
    assert len(statements) == 1
    assert late_usage.find(session, []) == []


@contextmanager
def _counted(session: Session) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(*args: Any) -> None:
        seen.append(str(args[2]))

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)
