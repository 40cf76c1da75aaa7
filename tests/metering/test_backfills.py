"""Files of past usage: judged line by line, applied as a whole, known to whoever sends the same keys, and taken back to the last row."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core import clock
from core.audit import SYSTEM
from core.db import transaction
from core.errors import Conflict, Invalid, InvalidTransition
from core.identity.models import Organization
from core.metering import recount
from core.metering.corrections import applying, events, gate, progress, staging
from core.metering.corrections.files import FileForm
from core.metering.corrections.progress import Progress, Step
from core.metering.corrections.staging import Backfill
from tests.factories import make_organization
from tests.metering.conftest import Metering
from tests.metering.stored import Store
from tests.metering.test_corrections import AMONG

START = datetime(2026, 5, 4, 22, tzinfo=UTC)
END = START + timedelta(hours=36)
LATER = START + timedelta(days=90)
WHY = "The collector was down."
TABLES = ("usage_events", "usage_rollups", "usage_unique_values", "usage_value_counts", "usage_daily", "usage_dedup_keys")


@pytest.fixture
def store(session: Session) -> Store:
    """Metrics of every aggregation; days before the 6th of May are added up."""
    made = Store(session, batches=itertools.count(1_000_000))  # the log's own numbers begin at 1
    made.metric("count", group_by=["kind"])
    for aggregation in AMONG:
        made.metric(aggregation, property="value")
    made.metric("percentile", property="value", percentile=Decimal(50))
    session.execute(text("UPDATE usage_state SET daily_through = :day"), {"day": datetime(2026, 5, 6, tzinfo=UTC)})
    return made


@pytest.fixture
def organization(session: Session) -> Organization:
    """Whose events they are."""
    return make_organization(session)


def _stage(session: Session, organization: Organization, lines: Sequence[dict[str, Any]], at: datetime = LATER) -> Backfill:
    content = b"\n".join(json.dumps(line).encode() for line in lines)
    given: dict[str, Any] = {"file_name": "may.ndjson", "reason": WHY, "actor": SYSTEM, "at": at}
    return staging.stage(session, organization.id, content, FileForm.NDJSON, **given)


def _line(name: str, key: str, at: datetime, **properties: Any) -> dict[str, Any]:
    return {"event_name": name, "idempotency_key": key, "timestamp": at.isoformat(), "properties": properties}


def _everything(session: Session) -> dict[str, list[Any]]:
    return {name: sorted(map(str, session.execute(text(f"SELECT t::text FROM {name} t")).scalars())) for name in TABLES}


PAST = st.lists(st.tuples(st.integers(0, 35), st.integers(0, 59), st.integers(0, 5), st.sampled_from("ab")), min_size=1, max_size=12)


@settings(max_examples=6, phases=(Phase.explicit, Phase.generate), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PAST, PAST)
def test_a_file_counts_like_events_that_were_sent_and_leaves_no_trace_when_it_is_taken_back(
    session: Session, store: Store, organization: Organization, sent: list[Any], filed: list[Any]
) -> None:
    with session.begin_nested() as savepoint:
        store.count(organization, [(_at(one), {"value": one[2], "kind": one[3]}) for one in sent])
        before = _everything(session)
        lines = [_line(store.event_name, f"f-{n}", _at(one), value=one[2], kind=one[3]) for n, one in enumerate(filed)]
        staged = _stage(session, organization, lines)
        assert _everything(session) == before
        done = applying.apply(session, organization.id, staged.id, actor=SYSTEM, at=LATER)
        assert (done.counted, done.known) == (len(filed), 0)
        assert len(_everything(session)["usage_events"]) == len(before["usage_events"]) + len(filed)
        assert recount.differences(session, start=START, end=END) == []
        applying.revert(session, organization.id, staged.id, reason=WHY, actor=SYSTEM, at=LATER)
        assert _everything(session) == before
        savepoint.rollback()


def _at(one: tuple[int, int, int, str]) -> datetime:
    return START + timedelta(hours=one[0], minutes=one[1])


def test_every_faulty_line_is_named_and_none_is_applied(session: Session, store: Store, organization: Organization) -> None:
    name = store.event_name
    table = (
        "event_name,idempotency_key,timestamp,quantity,properties.value,properties.kind\n"
        f"{name},k-1,2026-05-05T00:00:00Z,1.5,3,a\n"
        f"{name},k-2,2026-05-05T00:00:00Z,-1,3,a\n"
        "nobody.reads,k-3,2026-05-05T00:00:00Z,1,3,a\n"
        f"{name},k-1,2026-05-05T01:00:00Z,1,3,a\n"
        f"{name},k-4,,1,3,a\n"
        f"{name},k-5,2026-05-05T00:00:00Z,1,many,a\n"
    ).encode()
    given: dict[str, Any] = {"file_name": "may.csv", "reason": WHY, "actor": SYSTEM, "at": LATER}
    staged = staging.stage(session, organization.id, table, FileForm.CSV, **given)
    assert (staged.events, staged.refused) == (1, 5)
    found = [(one.line, one.code, one.pointer) for one in staging.faults(session, staged.id)]
    assert found == [
        (3, "invalid_quantity", "/quantity"),
        (4, "unknown_metric", "/metric_name"),
        (5, "repeated_key", "/idempotency_key"),
        (6, "missing_field", "/timestamp"),
        (7, "invalid_property", "/properties/value"),
    ]
    with pytest.raises(Conflict, match="5 lines of the file cannot count"):
        applying.apply(session, organization.id, staged.id, actor=SYSTEM, at=LATER)
    assert staging.stage(session, organization.id, table, FileForm.CSV, **given).id == staged.id
    assert applying.discard(session, organization.id, staged.id, actor=SYSTEM, at=LATER).status == "discarded"
    for broken in (b"", b"\n\n", b"surprise\n1", b"event_name,event_name\n", b"\xff\xfe", b'quantity\n"1'):
        with pytest.raises(Invalid):
            staging.stage(session, organization.id, broken, FileForm.CSV, **given)


def test_what_was_corrected_since_is_not_taken_back(session: Session, store: Store, organization: Organization) -> None:
    lines = [_line(store.event_name, f"f-{n}", START, value=n, kind="a") for n in range(3)]
    staged = _stage(session, organization, lines)
    applying.apply(session, organization.id, staged.id, actor=SYSTEM, at=LATER)
    with pytest.raises(Conflict, match="This very file was applied"):
        _stage(session, organization, lines)
    events.void(session, organization.id, "f-1", reason=WHY, actor=SYSTEM, at=LATER)
    with pytest.raises(Conflict, match="1 events of the file were corrected since"):
        applying.revert(session, organization.id, staged.id, reason=WHY, actor=SYSTEM, at=LATER)
    with pytest.raises(InvalidTransition):
        applying.apply(session, organization.id, staged.id, actor=SYSTEM, at=LATER)
    again = _stage(session, organization, [*lines, _line(store.event_name, "f-3", START, value=9, kind="b")])
    done = applying.apply(session, organization.id, again.id, actor=SYSTEM, at=LATER)
    assert (done.counted, done.known, done.void) == (1, 2, 1)
    assert recount.differences(session, start=START, end=END) == []


GATE = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = :lock AND pid = pg_backend_pid()")


def test_a_trial_lets_counting_go_on(session: Session, store: Store, organization: Organization) -> None:
    staged = _stage(session, organization, [_line(store.event_name, f"f-{n}", START, value=n, kind="a") for n in range(3)])
    epoch, before = session.scalar(text("SELECT epoch FROM usage_state")), _everything(session)
    with session.begin_nested() as savepoint:
        tried = applying.apply(session, organization.id, staged.id, actor=SYSTEM, at=LATER, trial=True)
        assert session.scalar(GATE, {"lock": gate.LOCK}) == 0
        assert session.scalar(text("SELECT epoch FROM usage_state")) == epoch
        savepoint.rollback()
    assert _everything(session) == before
    done = applying.apply(session, organization.id, staged.id, actor=SYSTEM, at=LATER)
    assert session.scalar(GATE, {"lock": gate.LOCK}) == 1
    assert session.scalar(text("SELECT epoch FROM usage_state")) == (epoch or 0) + 1
    assert (tried.counted, tried.instants) == (done.counted, done.instants)


def test_the_keys_of_a_file_are_known_to_the_aggregator_until_it_is_taken_back(metering: Metering) -> None:
    metering.metric("pages", "sum")
    organization_id, token = metering.organization()
    now = clock.now()
    yesterday = (now - timedelta(days=1)).isoformat()
    live = [{"event_name": "pages", "idempotency_key": f"live-{n}", "quantity": "2", "timestamp": yesterday} for n in range(3)]
    metering.send(token, live)
    metering.count()
    filed = [*live, {**live[0], "idempotency_key": "filed", "quantity": "100"}]
    with metering.app.app_context(), transaction() as session:
        owner = session.get_one(Organization, organization_id)
        staged = _stage(session, owner, filed, now)
        done = applying.apply(session, organization_id, staged.id, actor=SYSTEM, at=now)
        assert (done.counted, done.known) == (1, 3)
    metering.send(token, filed)
    metering.count()
    assert metering.value("SELECT sum(quantity) FROM usage_events") == 106
    with metering.app.app_context(), transaction() as session:
        assert recount.lost(session, start=now - timedelta(hours=1), end=now + timedelta(days=1)) == []
        undone = applying.revert(session, organization_id, staged.id, reason=WHY, actor=SYSTEM, at=now)
        assert undone.keys_released
        events.amend(session, organization_id, "live-0", events.Amendment(quantity="7"), reason=WHY, actor=SYSTEM, at=now)
        events.void(session, organization_id, "live-1", reason=WHY, actor=SYSTEM, at=now)
    metering.send(token, filed[-2:])
    metering.count()
    span = {"start": now - timedelta(hours=1), "end": now + timedelta(days=1)}
    with metering.app.app_context(), transaction() as session:
        assert recount.lost(session, **span) == []
        assert recount.differences(session, start=now - timedelta(days=2), end=now + timedelta(hours=1)) == []
        assert session.scalar(text("SELECT sum(quantity) FROM usage_rollups")) == 7 + 2 + 100
        session.execute(text("UPDATE usage_events SET quantity = 2 WHERE idempotency_key = 'live-0'"))
        assert [one.recounted for one in recount.lost(session, **span)] == [(1, 7)]


def test_others_see_how_far_it_is_and_what_is_cut_off_leaves_nothing(metering: Metering) -> None:
    metric_id = metering.metric("steps", "sum")
    organization_id, _ = metering.organization()
    metering.count()
    now = clock.now()
    lines = [_line("steps", f"s-{n}", now - timedelta(days=1)) for n in range(12)]
    with metering.app.app_context(), transaction() as session:
        staged = _stage(session, session.get_one(Organization, organization_id), lines, now)

    def apply(session: Session) -> None:
        applying.apply(session, organization_id, staged.id, actor=SYSTEM, at=now)
        name = "SELECT pid, application_name FROM pg_stat_activity WHERE application_name LIKE 'backfill %%'"
        [(pid, written)] = metering.rows(name)
        assert progress.read([written]) == {staged.id: Progress(Step.COUNTING, 12, 12)}
        if fails:
            metering.rows("SELECT pg_terminate_backend(%s)", pid)

    for fails in (True, False):
        try:
            with metering.app.app_context(), transaction() as session:
                assert progress.running(session) == {}
                apply(session)
        except OperationalError:
            assert fails
        stored = metering.value("SELECT count(*) FROM usage_events WHERE idempotency_key LIKE 's-%%'")
        assert stored == (0 if fails else 12)
    with metering.app.app_context(), transaction() as session:
        assert progress.running(session) == {}
        assert staging.get(session, organization_id, staged.id).status == "applied"
    assert metering.sums([(organization_id, metric_id, now - timedelta(days=2), now)]) == [12]
