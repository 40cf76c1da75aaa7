"""Rejected events are replayed as they were sent, once the cause is mended; whatever races, each key counts once."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core import clock
from core.audit import SYSTEM
from core.db import transaction
from core.errors import NotFound
from core.metering.rejections import finding, replaying
from core.metering.rejections.finding import Rejection, Wanted
from core.metering.rejections.replaying import Replayed
from tests.metering.conftest import Metering


def replay(metering: Metering, at: datetime | None = None, **given: Any) -> Replayed:
    """Replay what goes by these words."""
    with metering.app.app_context(), transaction() as session:
        return replaying.replay(session, Wanted(**given), actor=SYSTEM, at=at or clock.now())


def rejected(metering: Metering, **given: Any) -> list[Rejection]:
    """What is listed, oldest first."""
    with metering.app.app_context(), transaction() as session:
        return finding.page(session, Wanted(**given)).rows[::-1]


def total(metering: Metering, organization_id: uuid.UUID, metric_id: uuid.UUID) -> Decimal:
    now = datetime.now(UTC)
    return metering.sums([(organization_id, metric_id, now - timedelta(days=34), now + timedelta(hours=1))])[0]


def test_a_replay_says_of_each_event_what_became_of_it(metering: Metering) -> None:
    metering.metric("mended.known")
    organization_id, token = metering.organization()
    name = f"mended-{organization_id.hex[:8]}"
    old = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    sent: list[dict[str, Any]] = [
        {"metric_name": name, "idempotency_key": "a", "quantity": 2, "timestamp": old},
        {"metric_name": name, "idempotency_key": "b", "quantity": 3},
        {"metric_name": name, "idempotency_key": "c", "quantity": -1},
        {"metric_name": "mended.other", "idempotency_key": "d"},
    ]
    assert metering.post(token, sent)[0] == 422
    rows = rejected(metering, organization_id=organization_id)
    assert [(row.event_name, row.idempotency_key) for row in rows] == [(name, "a"), (name, "b"), (name, "c"), ("mended.other", "d")]
    assert [row.idempotency_key for row in rejected(metering, organization_id=organization_id, event_name=name, code="unknown_metric")] == [
        "a",
        "b",
    ]
    assert replay(metering, organization_id=organization_id, event_name=name).accepted == 0  # the cause is still there

    metric_id = metering.metric(name)
    metering.until(lambda: metering.post(token, {"metric_name": name, "idempotency_key": "b", "quantity": 3})[0] == 202)  # the sender's own
    done = replay(metering, organization_id=organization_id, event_name=name)
    assert (done.accepted, [one.code for one in done.tried]) == (2, ["", "", "invalid_quantity"])
    assert replay(metering, organization_id=organization_id, event_name=name).accepted == 0  # what was accepted is not taken again
    metering.count()
    assert total(metering, organization_id, metric_id) == 5
    status = {row.idempotency_key: row.replay.status if row.replay else None for row in rejected(metering, organization_id=organization_id)}
    assert status == {"a": "counted", "b": "duplicate", "c": "refused", "d": None}
    open_ones = rejected(metering, organization_id=organization_id, state="open")
    assert [row.idempotency_key for row in open_ones] == ["c", "d"]
    at, came = metering.rows('SELECT "timestamp", received_at FROM usage_events WHERE idempotency_key = %s AND quantity = 2', "a")[0]
    assert at.isoformat() == old
    assert came > rows[0].received_at
    with metering.app.app_context(), transaction() as session:
        assert finding.counts(session, organization_id, since=rows[0].received_at) == {"invalid_quantity": 1, "unknown_metric": 1}
        attempts = finding.get(session, organization_id, rows[0].id)[1]
        assert [one.status for one in attempts] == ["counted", "refused"]
        with pytest.raises(NotFound):
            finding.get(session, uuid.uuid4(), rows[0].id)


def test_an_event_without_a_time_has_the_one_it_came_at_and_old_rejections_stay(metering: Metering) -> None:
    organization_id, token = metering.organization()
    name = f"timeless-{organization_id.hex[:8]}"
    metering.metric("timeless.known")
    metering.post(token, [{"metric_name": name, "idempotency_key": "t"}, {"metric_name": name, "idempotency_key": "u"}])
    metering.rows("UPDATE usage_rejections SET received_at = received_at - interval '2 days' WHERE idempotency_key = 't' RETURNING 1")
    metering.rows("UPDATE usage_rejections SET received_at = received_at - interval '36 days' WHERE idempotency_key = 'u' RETURNING 1")
    first = rejected(metering, organization_id=organization_id, idempotency_key="t")[0]
    metering.metric(name)
    done = replay(metering, organization_id=organization_id)
    assert [one.code for one in done.tried] == ["", "rejected_long_ago"]
    metering.count()
    stored = 'SELECT "timestamp" FROM usage_events WHERE idempotency_key = %s AND batch_id = %s'
    assert metering.value(stored, "t", done.tried[0].batch_id) == first.received_at


def test_a_replay_that_races_the_senders_retry_and_another_replay_counts_once(metering: Metering) -> None:
    organization_id, token = metering.organization()
    name = f"raced-{organization_id.hex[:8]}"
    metering.metric("raced.known")
    events = [{"metric_name": name, "idempotency_key": f"r{i}", "quantity": i} for i in range(60)]
    metering.post(token, events)
    metric_id = metering.metric(name)
    metering.until(lambda: metering.post(token, [events[0]])[0] == 202)
    failed: list[BaseException] = []

    def attempt(act: Any) -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)

    acts = [lambda: replay(metering, organization_id=organization_id)] * 2 + [lambda: metering.send(token, events)] * 2
    threads = [threading.Thread(target=attempt, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    metering.count()
    for thread in threads:
        thread.join(30)
    metering.count()
    assert failed == []
    assert total(metering, organization_id, metric_id) == sum(range(60))
    assert {row.replay.status for row in rejected(metering, organization_id=organization_id) if row.replay} <= {"counted", "duplicate"}
    assert rejected(metering, organization_id=organization_id, state="open") == []


def test_a_metric_may_refuse_what_comes_too_late(metering: Metering) -> None:
    organization_id, token = metering.organization()
    name = f"late-{organization_id.hex[:8]}"
    metric_id = metering.metric(name, late_policy="reject", late_after_hours=24)
    metering.metric(f"{name}-eu", event_name=name, filters=[{"property": "region", "in": ["eu"]}])
    ago = [(datetime.now(UTC) - timedelta(hours=hours)).isoformat() for hours in (1, 25, 25)]
    events = [{"metric_name": name, "idempotency_key": f"l{i}", "timestamp": at} for i, at in enumerate(ago)]
    answer = metering.send(token, events)
    assert [one.get("code") for one in answer["events"]] == [None, "late_event", "late_event"]
    assert answer["events"][1]["pointer"] == "/1/timestamp"
    assert metering.post(token, events[1])[1]["events"][0]["code"] == "late_event"  # alone as in company
    metering.rows("UPDATE usage_rejections SET received_at = received_at - interval '5 hours' WHERE idempotency_key = 'l1' RETURNING 1")
    done = replay(metering, organization_id=organization_id)  # late is what came late, not what is replayed late
    assert sorted(one.code for one in done.tried) == ["", "", "late_event"]
    metering.count()
    assert total(metering, organization_id, metric_id) == 2
