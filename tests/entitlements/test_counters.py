"""The counters of limits: hours and days added up give what an invoice measures, and a guessed window is never believed unseen."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy.orm import Session

from core.entitlements import check, counters, facts, together
from core.entitlements.bounds import Bound, Span
from core.entitlements.facts import Measured
from core.metering.models import Aggregation, LimitAction, LimitPeriod, LimitSource
from tests.entitlements.test_limits import decide, limit
from tests.factories import make_metric, make_organization, use
from tests.metering.stored import Store

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("aggregation", ["sum", "max", "min"])
def test_windows_of_any_length_count_what_an_invoice_counts(session: Session, aggregation: str) -> None:
    store, chance = Store(session), random.Random(4)
    metric = store.metric(aggregation, property="quantity", group_by=["model"])
    organization, other = make_organization(session), make_organization(session)
    for late in (False, True):  # the second half is late for days that were added up
        for each in (organization, other):
            moments = [AT - timedelta(minutes=chance.randrange(70 * 24 * 60)) for _ in range(90)]
            store.count(each, [(at, {"quantity": chance.randrange(1, 99), "model": chance.choice("ab")}) for at in sorted(moments)])
        assert (store.add_up(AT - timedelta(days=2, hours=12)) > 60) is not late
    measured = Measured(metric.id, metric.code, metric.name, metric.unit, Aggregation(aggregation), metric.number, simple=True)
    found = facts.of_one(session, organization.id, at=AT)

    def bound(i: int) -> Bound:
        start = AT - HOUR * chance.choice([0, 1, 13, 36, 60, 61, 84, 200, 1000, 1683, 1700])
        window = Span(start, start + HOUR * chance.choice([1, 11, 24, 35, 36, 48, 72, 300, 1700]))
        return Bound(
            f"limit:{i}", organization.id, measured, Decimal(1), LimitPeriod.MONTHLY, LimitAction.BLOCK, LimitSource.OPERATOR, (), window
        )

    holding = [bound(i) for i in range(40)]
    right = counters.used(session, holding, at=AT)
    for few in (holding[:1], holding[1:4], holding[4:]):
        got = counters.read(session, found, few, at=AT)
        assert {subject: one.used for subject, one in got.items()} == {each.subject: right[organization.id, each.subject] for each in few}
    assert len({right[organization.id, each.subject] for each in holding}) > 5


def test_a_guess_is_checked_before_it_is_believed(session: Session) -> None:
    metric, organization = make_metric(session, "calls"), make_organization(session)
    limit(session, organization, metric, 100)
    asked: list[check.Decision] = []

    def used(at: datetime = AT) -> tuple[Decimal | None, Decimal | None]:
        asked.append(decide(session, organization, metric, at=at))
        return asked[-1].limit, asked[-1].used

    assert (used(), used()) == ((100, 0), (100, 0))
    use(session, organization, metric, AT, 7)
    assert (used(), used(AT + timedelta(days=40)), used(AT + timedelta(days=40)), used()) == ((100, 7), (100, 0), (100, 0), (100, 7))
    limit(session, organization, metric, 50)
    assert used() == (50, 7)
    limit(session, organization, metric, 20, period=LimitPeriod.DAILY)
    assert used() == (20, 7)
    assert used(AT + timedelta(days=1)) == (20, 0)
    found = together.read(session, organization.id, metric.code, at=AT)
    assert [found.counted[bound.subject].used for bound in found.holding] == [7, 7]
