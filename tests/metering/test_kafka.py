"""Kafka as the log: the same exactness, against the mock cluster of the client library, with the relay killed at random."""

from __future__ import annotations

import multiprocessing
import random
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from api.usage import UsageEndpoint
from core import clock, config
from core.config import Settings
from core.db import transaction
from core.metering import queries
from core.metering.kafka.log import KafkaLog
from core.metering.kafka.relay import Relay, keep_relaying
from tests.metering.conftest import Metering

kafka = pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed: no mock cluster")
KILLS = 4
TOPIC = "usage"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of three mock brokers, which live in this process."""
    brokers = kafka.Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 3, "log_level": 3})
    found = brokers.list_topics(timeout=30).brokers.values()
    yield f"kafka://{','.join(f'{one.host}:{one.port}' for one in found)}/{TOPIC}"
    brokers.flush(0)


@pytest.fixture(scope="module")
def through_kafka(metering: Metering, url: str) -> Iterator[Metering]:
    """The stack with its log in Kafka."""
    settings = Settings(environment="test", database_url=metering.url, usage_log_url=url, usage_rate_per_second=10_000_000)
    endpoint = UsageEndpoint(metering.app.wsgi_app, settings)
    config.use(settings)
    yield Metering(metering.app, metering.url, endpoint)
    endpoint.close()


def event(key: str, **given: Any) -> dict[str, Any]:
    return {"metric_name": "calls", "idempotency_key": key, "timestamp": datetime.now(UTC).isoformat(), **given}


def test_a_killed_relay_loses_and_doubles_nothing(through_kafka: Metering, url: str) -> None:
    metering = through_kafka
    metric_id = metering.metric("calls")
    organizations = [metering.organization() for _ in range(3)]
    rng, acknowledged, batches = random.Random(3), [set() for _ in organizations], []
    context = multiprocessing.get_context("forkserver")  # never fork a process in which brokers run
    context.set_forkserver_preload(["core.metering.kafka.relay"])
    never = context.Event()
    for round_ in range(KILLS):
        process = context.Process(target=Relay(metering.url, url, now=clock.now).run, args=(never,), daemon=True)
        process.start()
        before = metering.value("SELECT coalesce(sum(next_offset), 0) FROM usage_log_offsets")
        for part in range(6):
            which = rng.randrange(3)
            keys = [f"{round_ - (part % 3 == 2)}-{part}-{i}" for i in range(100)]
            batches.append(metering.send(organizations[which][1], [event(key, quantity="1.5") for key in keys])["batch_id"])
            acknowledged[which].update(keys)
        metering.until(lambda before=before: metering.value("SELECT coalesce(sum(next_offset), 0) FROM usage_log_offsets") > before)
        process.kill()
        process.join(10)
    status, refused = metering.post(organizations[0][1], [event("new"), event("new2", quantity=-1)])
    assert (status, refused["rejected"]) == (202, 1)
    acknowledged[0].add("new")
    with metering.app.app_context(), transaction() as session:
        assert queries.pending_before(session, datetime.now(UTC)), "what Kafka still has is not counted"
    stopped = threading.Event()
    taking = threading.Thread(target=keep_relaying, args=(lambda: Relay(metering.url, url, now=clock.now), stopped))
    sent = datetime.now(UTC)
    taking.start()
    try:
        metering.until(lambda: metering.value("SELECT min(caught_up_at) > %s FROM usage_log_offsets", sent))
    finally:
        stopped.set()
        taking.join(30)
    metering.count()
    now = datetime.now(UTC)
    sums = metering.sums([(one, metric_id, now - timedelta(days=2), now + timedelta(days=1)) for one, _ in organizations])
    plain = [Decimal("1.5") * len(keys) for keys in acknowledged]
    plain[0] -= Decimal("0.5")
    assert sums == plain
    assert metering.value("SELECT count(*) FROM usage_events") == sum(map(len, acknowledged))
    taken = {str(row[0]) for row in metering.rows("SELECT batch_id FROM usage_batch_results")}
    assert set(batches) <= taken, "every acknowledged batch has its result under the id of its answer"
    assert metering.value("SELECT count(*) FROM usage_rejections") == 1
    with metering.app.app_context(), transaction() as session:
        assert not queries.pending_before(session, sent)
    Relay(metering.url, url, now=clock.now).retire()
    with metering.app.app_context(), transaction() as session:
        assert not queries.pending_before(session, datetime.now(UTC)), "a log that is not used any more holds nothing up"


def test_brokers_that_are_away_refuse_and_keep_nothing(metering: Metering) -> None:
    before = metering.value("SELECT count(*) FROM usage_batches")
    settings = Settings(environment="test", database_url=metering.url, usage_log_url="kafka://127.0.0.1:9/usage")
    endpoint = UsageEndpoint(metering.app.wsgi_app, settings)
    _, token = metering.organization()
    code = f"m{uuid.uuid4().hex[:6]}"
    metering.metric(code)
    try:
        status, problem = Metering(metering.app, metering.url, endpoint).post(token, {**event("x"), "metric_name": code})
    finally:
        endpoint.close()
    assert (status, problem["title"]) == (503, "Temporarily unavailable")
    assert metering.value("SELECT count(*) FROM usage_batches") == before
    assert isinstance(endpoint._log, KafkaLog)
