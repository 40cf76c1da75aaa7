"""Voided and amended events: every aggregation is that of the events that are left, and what was stays readable."""

from __future__ import annotations

import itertools
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core.audit import SYSTEM, AuditEvent
from core.errors import Conflict, Invalid, NotFound
from core.identity.models import Organization
from core.metering import recount
from core.metering.corrections import events
from core.metering.corrections.events import Amendment
from core.metering.instants import micros
from core.metering.meters import Event, Usage, add, meter, read
from core.metering.models import Aggregation, Metric
from core.metering.queries import usage_sums
from tests.factories import make_organization
from tests.metering.stored import Store

START = datetime(2026, 5, 4, 22, tzinfo=UTC)
END = START + timedelta(hours=36)
LATER = START + timedelta(days=20)
WHY = "The meter ran twice."
AMONG = ("sum", "max", "min", "avg", "latest", "weighted_sum", "unique_count")


@pytest.fixture
def store(session: Session) -> Store:
    """Metrics of every aggregation; days before the 6th of May are added up."""
    made = Store(session)
    made.metric("count", group_by=["kind"])
    made.metric("sum")
    for aggregation in AMONG:
        made.metric(aggregation, property="value")
    made.metric("percentile", property="value", percentile=Decimal(50))
    session.execute(text("UPDATE usage_state SET daily_through = :day"), {"day": datetime(2026, 5, 6, tzinfo=UTC)})
    return made


@pytest.fixture
def organization(session: Session) -> Organization:
    """Whose events they are."""
    return make_organization(session)


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "void", "amend"]),
        st.integers(0, 35),
        st.integers(0, 5),
        st.sampled_from("ab"),
        st.integers(0, 100),
    ),
    max_size=14,
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTS)
def test_any_corrections_leave_what_the_remaining_events_say(
    session: Session, store: Store, organization: Organization, acts: list[Any]
) -> None:
    with session.begin_nested() as savepoint:
        left: dict[str, Event] = {}
        for batch, (act, hour, value, kind, chosen) in enumerate(acts, 1):
            says = {"value": value, "kind": kind}
            at = START + timedelta(hours=hour, minutes=chosen % 60)
            if act == "send":
                store.batches = itertools.count(batch)
                store.count(organization, [(at, says)])
                left[f"{batch}-0"] = Event(at, (batch, 0), Decimal(1), says)
            elif left:
                key = sorted(left)[chosen % len(left)]
                if act == "void":
                    events.void(session, organization.id, key, reason=WHY, actor=SYSTEM, at=LATER)
                    del left[key]
                else:
                    new = Amendment(quantity=str(chosen + 2), timestamp=at, properties=says)
                    with suppress(Invalid):  # nothing would change
                        events.amend(session, organization.id, key, new, reason=WHY, actor=SYSTEM, at=LATER)
                    left[key] = Event(at, left[key].place, Decimal(chosen + 2), says)
        assert recount.differences(session, start=START, end=END) == []
        for metric in store.metrics:
            assert _states(session, organization, metric) == _naive(metric, left.values())
        savepoint.rollback()


def _naive(metric: Metric, left: Any) -> tuple[int, Decimal | None]:
    """Events, and the quantity of the whole span where hours say it alone."""
    counted, whole = meter(metric), None
    for event in left:
        usage = read(counted, event)
        assert usage is not None
        whole = usage if whole is None else add(counted.aggregation, whole, usage)
    return (whole.events, _told(metric, whole)) if whole else (0, None)


def _states(session: Session, organization: Organization, metric: Metric) -> tuple[int, Decimal | None]:
    rows = session.execute(
        text("SELECT coalesce(sum(events), 0) FROM usage_rollups WHERE organization_number = :o AND metric_number = :m"),
        {"o": organization.number, "m": metric.number},
    )
    counted = int(rows.scalar_one())
    asked = (organization.id, metric.id, START, END)
    return counted, usage_sums(session, [asked])[asked] if counted else None


def _told(metric: Metric, whole: Usage) -> Decimal:
    match Aggregation(metric.aggregation):
        case Aggregation.AVG:
            return round(whole.quantity / whole.events, 12)
        case Aggregation.PERCENTILE:
            ordered = sorted(value for value, times in whole.counts.items() for _ in range(times))
            return ordered[(len(ordered) + 1) // 2 - 1]
        case Aggregation.WEIGHTED_SUM:
            area = whole.quantity * micros(END) - whole.moment
            return round(area / (micros(END) - micros(START)), 12)
        case _:
            return whole.quantity


def _sent(session: Session, store: Store, organization: Organization) -> str:
    store.count(organization, [(START, {"value": 3, "kind": "a"}), (START + timedelta(minutes=5), {"value": 4, "kind": "b"})])
    return str(session.execute(text("SELECT min(idempotency_key) FROM usage_events")).scalar_one())


def test_what_was_is_kept_with_who_when_and_why(session: Session, store: Store, organization: Organization) -> None:
    key = _sent(session, store, organization)
    events.amend(session, organization.id, key, Amendment(quantity="2.5"), reason=WHY, actor=SYSTEM, at=LATER)
    events.void(session, organization.id, key, reason="It never happened.", actor=SYSTEM, at=LATER + timedelta(days=1))
    voided, amended = events.history(session, organization.id, key)
    assert (voided.kind, voided.old.quantity, voided.new) == ("void", Decimal("2.5"), None)
    assert (amended.old.quantity, amended.reason, amended.actor) == (1, WHY, SYSTEM.label)
    assert amended.new is not None
    assert amended.new.properties == {"value": 3, "kind": "a"}
    told = session.scalars(select(AuditEvent).where(AuditEvent.kind.like("usage_event.%")).order_by(AuditEvent.id)).all()
    assert [(one.kind, one.reason) for one in told] == [
        ("usage_event.amended", WHY),
        ("usage_event.voided", "It never happened."),
    ]
    with pytest.raises(Conflict, match="was voided on 2026-05-25"):
        events.void(session, organization.id, key, reason=WHY, actor=SYSTEM, at=LATER)


def test_what_cannot_be_corrected(session: Session, store: Store, organization: Organization) -> None:
    key = _sent(session, store, organization)
    other = make_organization(session)
    given: dict[str, Any] = {"reason": WHY, "actor": SYSTEM, "at": LATER}
    with pytest.raises(NotFound):
        events.void(session, other.id, key, **given)
    for wrong, pointer in (
        (Amendment(), ""),
        (Amendment(quantity="1.0", properties={"kind": "a", "value": 3}), ""),
        (Amendment(quantity="-1"), "/quantity"),
        (Amendment(timestamp=LATER + timedelta(seconds=1)), "/timestamp"),
        (Amendment(properties={"value": [1]}), "/properties/value"),
        (Amendment(properties={"value": "many"}), "/properties/value"),
    ):
        with pytest.raises(Invalid) as caught:
            events.amend(session, organization.id, key, wrong, **given)
        assert caught.value.errors[0].pointer == pointer
    session.execute(text("DELETE FROM usage_events WHERE idempotency_key <> :key"), {"key": key})
    with pytest.raises(Conflict, match="archived"):
        events.void(session, organization.id, key, **given)
