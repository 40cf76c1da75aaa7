"""A metric gets another definition: counted beside the old one, put in its place at once, and right for every event before and after."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core import clock
from core.audit import SYSTEM
from core.db import transaction
from core.errors import Conflict, Invalid, InvalidTransition
from core.metering import metrics, recount
from core.metering.revisions import proposing, settling
from core.metering.revisions.models import MetricRevision
from tests.metering.conftest import Metering

WHY = "The meter left cached tokens out."


def propose(metering: Metering, metric_id: uuid.UUID, since: datetime | None = None, **given: Any) -> uuid.UUID:
    """Begin a revision."""
    with metering.app.app_context(), transaction() as session:
        metric = metrics.find(session, str(metric_id))
        return proposing.propose(session, metric, since=since, reason=WHY, actor=SYSTEM, at=clock.now(), **given).id


def settle(metering: Metering, metric_id: uuid.UUID, revision_id: uuid.UUID, act: Any = settling.apply) -> MetricRevision:
    """Apply or discard it."""
    with metering.app.app_context(), transaction() as session:
        revision = proposing.get(session, metrics.find(session, str(metric_id)), revision_id)
        made: MetricRevision = act(session, revision, actor=SYSTEM, at=clock.now())
        return made


def total(metering: Metering, organization_id: uuid.UUID, metric_id: uuid.UUID) -> Decimal:
    now = datetime.now(UTC)
    return metering.sums([(organization_id, metric_id, now - timedelta(days=40), now + timedelta(days=1))])[0]


def differences(metering: Metering) -> list[Any]:
    now = datetime.now(UTC)
    with metering.app.app_context(), transaction() as session:
        return recount.differences(session, start=now - timedelta(days=4), end=now + timedelta(hours=1))


def test_a_revision_counts_beside_the_metric_and_takes_its_place(metering: Metering) -> None:
    organization_id, token = metering.organization()
    name = f"tokens-{organization_id.hex[:8]}"
    metric_id = metering.metric(name, property="input", group_by=["model"])
    now = datetime.now(UTC)

    def send(place: int, ago: timedelta, **properties: Any) -> None:
        properties = {"input": 10, "cached": 5, "model": "m-1", **properties}
        event = {"metric_name": name, "idempotency_key": f"e{place}", "timestamp": (now - ago).isoformat(), "properties": properties}
        metering.send(token, event)

    for place, days in enumerate((3, 2, 1)):
        send(place, timedelta(days=days))
    metering.count()
    with pytest.raises(Invalid, match="not revised"):
        propose(metering, metric_id, aggregation="sum", property="input", group_by=["model"])
    revision_id = propose(
        metering, metric_id, aggregation="max", expression="input + cached", filters=[{"property": "model", "in": ["m-1"]}]
    )
    with pytest.raises(Conflict, match="already"):
        propose(metering, metric_id, aggregation="count")
    with pytest.raises(Conflict, match="still being counted"):
        settle(metering, metric_id, revision_id)
    send(3, timedelta(days=2, hours=1), cached=50)
    metering.count()
    send(4, timedelta(), cached=70)
    send(5, timedelta(), cached=900, model="m-2")
    metering.count()
    assert total(metering, organization_id, metric_id) == 60  # nothing shows before it is applied
    assert differences(metering) == []

    with metering.app.app_context(), transaction() as session, session.begin_nested() as savepoint:
        revision = proposing.get(session, metrics.find(session, str(metric_id)), revision_id)
        settling.apply(session, revision, actor=SYSTEM, at=clock.now(), trial=True)
        send(5, timedelta(hours=5), cached=20)
        metering.count()  # a trial lets counting go on
        savepoint.rollback()
    settle(metering, metric_id, revision_id)
    assert total(metering, organization_id, metric_id) == 80
    send(6, timedelta(hours=5), cached=71)
    metering.count()
    assert total(metering, organization_id, metric_id) == 81
    assert differences(metering) == []
    with pytest.raises(InvalidTransition):
        settle(metering, metric_id, revision_id)
    with metering.app.app_context(), transaction() as session:
        metric = metrics.find(session, str(metric_id))
        assert (metric.version, metric.aggregation, metric.group_by) == (2, "max", [])
        before = proposing.newest(session, metric)[0]
        assert (before.status, before.property, before.aggregation) == ("applied", "input", "sum")  # what it said is kept
        old = before.number
    metering.count()  # its housekeeping sweeps sums that nobody reads
    assert metering.value("SELECT count(*) FROM usage_rollups WHERE metric_number = %s", old) == 0


def test_since_an_instant_what_was_before_stays_also_for_what_comes_late(metering: Metering) -> None:
    organization_id, token = metering.organization()
    name = f"calls-{organization_id.hex[:8]}"
    metric_id = metering.metric(name, property="a")
    now = datetime.now(UTC)
    since = (now - timedelta(hours=30)).replace(minute=0, second=0, microsecond=0)

    def send(place: int, at: datetime) -> None:
        event = {"metric_name": name, "idempotency_key": f"s{place}", "timestamp": at.isoformat(), "properties": {"a": 1, "b": 100}}
        metering.send(token, event)

    send(0, since - timedelta(hours=1))
    send(1, since + timedelta(minutes=1))
    metering.count()
    with pytest.raises(Invalid) as refused:
        propose(metering, metric_id, since, aggregation="count")
    assert [error.pointer for error in refused.value.errors] == ["/aggregation"]
    revision_id = propose(metering, metric_id, since, aggregation="sum", property="b")
    metering.count()
    settle(metering, metric_id, revision_id)
    assert total(metering, organization_id, metric_id) == 101
    send(2, since - timedelta(hours=2))
    send(3, since)
    metering.count()
    assert total(metering, organization_id, metric_id) == 202
    second = propose(metering, metric_id, since + timedelta(hours=3), aggregation="sum", expression="a + b")
    metering.count()
    send(4, since + timedelta(hours=4))
    metering.count()
    settle(metering, metric_id, second)
    assert total(metering, organization_id, metric_id) == 303
    assert differences(metering) == []
    third = propose(metering, metric_id, aggregation="count")
    metering.count()
    settle(metering, metric_id, third, settling.discard)
    assert total(metering, organization_id, metric_id) == 303
