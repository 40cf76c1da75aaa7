"""What was billed is compared with what is counted now: late usage waits for its adjustment, anything else is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from core import selfcheck
from core.identity.models import Organization
from core.invoicing import recount
from core.invoicing.recount import Compared
from core.metering import sampling
from core.metering.models import Metric
from tests.factories import make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.books import issued

START, NEXT = (datetime(2026, month, 1, tzinfo=UTC) for month in (6, 7))
ADJUSTED, CLOSED = NEXT + timedelta(days=44), NEXT + timedelta(days=45)
PER_UNIT = {"model": "per_unit", "unit_price": "0.01"}


@pytest.fixture
def billed(session: Session) -> tuple[Organization, Metric]:
    """A customer whose June is billed: a price by the unit, and a peak, which is not one number that adds up."""
    organization, calls, peak = make_organization(session, slug="billed"), make_metric(session), make_metric(session, aggregation="max")
    plan = make_plan(session, base_price="10.00", prices=[(calls, PER_UNIT), (peak, PER_UNIT)])
    subscription = make_subscription(session, organization, plan, start_at=START)
    issued(session, subscription, START)
    for day, quantity in ((0, 40), (9, 2)):
        use(session, organization, calls, START + timedelta(days=day), quantity)
    use(session, organization, peak, START, 7)
    issued(session, subscription, NEXT)
    return organization, calls


def compared(session: Session, at: datetime, day: int = 20) -> Compared:
    start = START + timedelta(days=day)
    return recount.compare(session, start=start, end=start + timedelta(days=1), at=at, adjustment_days=45)


def test_what_was_billed_is_what_is_counted(session: Session, billed: tuple[Organization, Metric]) -> None:
    assert compared(session, CLOSED) == Compared(1, 0, 1, ())
    assert compared(session, CLOSED, day=40) == Compared(0, 0, 0, ()), "no window touches that day"


def test_late_usage_waits_and_is_a_fault_once_its_cycle_is_closed(session: Session, billed: tuple[Organization, Metric]) -> None:
    organization, calls = billed
    use(session, organization, calls, START + timedelta(days=3), 1)
    assert compared(session, ADJUSTED) == Compared(1, 1, 1, ())
    (told,) = compared(session, CLOSED).differences
    assert (told.organization, told.metric, told.stored, told.recounted) == ("billed", calls.code, "42 billed", "43 counted")
    made = sampling.keep(session, [], since=START, until=NEXT, compared=1, at=CLOSED, billed=[told])
    assert sampling.latest(session, since=CLOSED) == made
    assert session.scalar(text("SELECT count(*) FROM audit_events WHERE kind = 'usage.recount_differed'")) == 1


def test_a_loss_after_billing_is_told(session: Session, billed: tuple[Organization, Metric]) -> None:
    session.execute(text("DELETE FROM usage_rollups WHERE quantity = 40"))
    (told,) = compared(session, CLOSED).differences
    assert Decimal(told.recounted.split()[0]) == 2


def test_what_is_taken_back_within_a_package_is_no_fault(session: Session) -> None:
    organization, calls = make_organization(session), make_metric(session)
    hundreds = {"model": "package", "package_size": "100", "package_price": "5"}
    subscription = make_subscription(session, organization, make_plan(session, prices=[(calls, hundreds)]), start_at=START)
    issued(session, subscription, START)
    for day, quantity in ((0, 40), (9, 3)):
        use(session, organization, calls, START + timedelta(days=day), quantity)
    issued(session, subscription, NEXT)
    session.execute(text("DELETE FROM usage_rollups WHERE quantity = 3"))
    assert compared(session, CLOSED).differences == ()
    session.execute(text("DELETE FROM usage_rollups"))
    assert [told.recounted for told in compared(session, CLOSED).differences] == ["0 counted"]


def test_verify_takes_a_voided_event_for_no_loss(session: Session, billed: tuple[Organization, Metric]) -> None:
    session.execute(text("DELETE FROM usage_rollups WHERE quantity = 2"))
    assert "V10-billed-usage" in {finding.code for finding in selfcheck.run(session)}
    session.execute(
        text(
            "INSERT INTO usage_corrections (kind, at, actor_kind, actor_id, actor_label, reason, organization_number, event_number,"
            " batch_id, position, idempotency_key, received_at, old_timestamp, old_quantity, old_properties) VALUES"
            " ('void', :at, 'system', '', 'system', 'a mistake', :number, 1, 1, 1, 'key', :at, :at, 2, '')"
        ),
        {"at": START + timedelta(days=9), "number": billed[0].number},
    )
    assert "V10-billed-usage" not in {finding.code for finding in selfcheck.run(session)}
