"""A recount finds every sum that is not that of its events, names it, and leaves a trace; the past is counted in steps, each event once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core.audit import AuditEvent
from core.metering import backfill, daily, reading, recount, sampling
from core.metering.meters import meter
from core.metering.models import Metric
from core.metering.reading import Question
from core.metering.windows import Window
from tests.factories import make_organization
from tests.metering.stored import Store

START = datetime(2026, 5, 4, 22, tzinfo=UTC)
END = START + timedelta(hours=12)
METRICS = ("sum", "max", "min", "latest", "weighted_sum")
CHANGES = (
    "UPDATE usage_rollups SET events = events + 1 WHERE ctid = (SELECT max(ctid) FROM usage_rollups)",
    "UPDATE usage_rollups SET moment = moment + 1 WHERE moment IS NOT NULL",
    "DELETE FROM usage_unique_values WHERE ctid = (SELECT max(ctid) FROM usage_unique_values)",
    "UPDATE usage_value_counts SET value = value + 0.5 WHERE ctid = (SELECT max(ctid) FROM usage_value_counts)",
    "UPDATE usage_daily SET quantity = quantity + 0.000000000001 WHERE ctid = (SELECT max(ctid) FROM usage_daily)",
    "DELETE FROM usage_events",
)


@pytest.fixture
def store(session: Session) -> Store:
    """Events of some hours over two days; the first day is added up, and one of its events comes late."""
    made = Store(session)
    for aggregation in METRICS:
        made.metric(aggregation, property="value")
    made.metric("unique_count", property="value")
    made.metric("percentile", property="value", percentile=Decimal(50))
    organization = make_organization(session, slug="watched")
    events = [(START + timedelta(minutes=37 * n), {"value": str(n * n)}) for n in range(18)]
    made.count(organization, events[1:])
    assert made.add_up(START.replace(hour=0) + timedelta(days=1)) == 1
    made.count(organization, events[:1])
    return made


def test_all_is_right_until_something_is_changed(session: Session, store: Store) -> None:
    day = {"start": START.replace(hour=0), "end": START.replace(hour=0) + timedelta(days=1)}
    assert recount.differences(session, **day) == []
    for change in CHANGES:
        span = day if "usage_daily" in change else {"start": START, "end": END}
        with session.begin_nested() as savepoint:
            session.execute(text(change))
            assert recount.differences(session, **span), change
            savepoint.rollback()


def test_what_a_sample_finds_is_kept_and_told(session: Session, store: Store) -> None:
    session.execute(text("UPDATE usage_rollups SET quantity = quantity + 1 WHERE hour = :hour"), {"hour": START})
    wrong = [made for n in (2, 3) for made in sampling.sample(session, at=START + timedelta(hours=n, minutes=5)) if made.differences]
    assert {made.since for made in wrong} == {START}
    assert {(one.organization, one.hour) for made in wrong for one in made.differences} == {("watched", START.isoformat())}
    assert {one.metric.split("-")[0] for one in wrong[0].differences} >= {"sum", "max"}
    told = session.scalars(select(AuditEvent).where(AuditEvent.kind == "usage.recount_differed")).all()
    assert len(told) == len(wrong)
    newest = sampling.latest(session, since=START)
    assert newest is not None
    assert newest.differences


def quantity(session: Session, metric: Metric, organization_id: object) -> Decimal:
    window = Window(organization_id, metric.id, START - timedelta(days=9), END + timedelta(days=9))  # type: ignore[arg-type]
    return reading.quantity(reading.read(session, Question(frozenset({window}), lambda _: None)), window)


def test_the_past_is_counted_step_by_step_while_events_come_in(session: Session, store: Store) -> None:
    late = store.metric("sum", property="value", filters=[{"property": "kind", "in": ["b"]}])
    late.counted_at = None
    store.metrics.remove(late)
    organization = make_organization(session)
    past = [(START + timedelta(hours=5 * n), {"value": "1", "kind": "ab"[n % 2]}) for n in range(40)]
    store.count(organization, past)
    store.metrics.append(late)
    number = session.execute(text("SELECT number FROM usage_event_names WHERE name = :name"), {"name": store.event_name}).scalar_one()
    steps, added = 0, 0
    length = timedelta(hours=20)
    while True:
        done = backfill.step(store.connection, meter(late), number, length)
        late.counted_through = done.through
        session.flush()
        if done.through is None:
            break
        steps += 1
        for offset in (-3, 30) if steps < 8 else ():
            store.count(organization, [(done.through + timedelta(hours=offset), {"value": "1", "kind": "b"})])
            added += 1
    assert steps > 5
    assert quantity(session, late, organization.id) == 20 + added
    late.counted_at = END
    assert daily.through(store.connection) > START
    assert recount.differences(session, start=START, end=START + timedelta(days=2)) == []


def test_steps_get_shorter_when_they_take_long() -> None:
    day = timedelta(days=1)
    assert backfill.next_length(day, 2.0) == day / 2
    assert backfill.next_length(timedelta(minutes=1), 2.0) == timedelta(minutes=1)
    assert backfill.next_length(timedelta(hours=1), 0.01) == timedelta(hours=2)
    assert backfill.next_length(day, 0.01) == day
