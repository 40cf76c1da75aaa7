"""Lenient mode: events without a metric are kept, shown, and counted by the metric that claims them later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from werkzeug.test import Client

from api.usage import PATH, UsageEndpoint
from core.config import Settings
from core.db import transaction
from core.metering import unclaimed, watch
from tests.metering.conftest import Metering


@pytest.fixture(scope="module")
def lenient(metering: Metering) -> Iterator[Any]:
    """Posts to an endpoint in lenient mode: token and events to status and answer."""
    settings = Settings(environment="test", database_url=metering.url, usage_unknown_events="lenient")
    endpoint = UsageEndpoint(None, settings)

    def post(token: str, events: Any) -> tuple[int, Any]:
        answer = Client(endpoint).post(PATH, json=events, environ_base={"HTTP_AUTHORIZATION": f"Bearer {token}"})
        return answer.status_code, json.loads(answer.get_data())

    yield post
    endpoint.close()


def waiting(metering: Metering) -> list[watch.Unclaimed]:
    """What an operator sees."""
    with metering.app.app_context(), transaction() as session:
        return watch.unclaimed(session)


def test_a_metric_claims_what_was_kept_before_it(metering: Metering, lenient: Any) -> None:
    metering.metric("known")
    organization_id, token = metering.organization()
    events = [{"metric_name": "render", "idempotency_key": f"r{i}", "properties": {"seconds": f"{i}.5"}} for i in range(12)]
    status, answer = lenient(token, [*events, {"metric_name": "known", "idempotency_key": "k"}])
    assert (status, answer["accepted"], answer["unclaimed"]) == (202, 13, 12)
    assert (answer["events"][0], answer["events"][12]["status"]) == ({"index": 0, "status": "unclaimed", "metrics": []}, "accepted")
    assert lenient(token, events[0])[1]["events"][0]["status"] == "unclaimed"
    metering.count()
    (kept,) = waiting(metering)
    assert (kept.event_name, kept.organization_id, kept.events) == ("render", organization_id, 12)
    assert set(kept.properties) == {"seconds"}
    with metering.app.app_context(), transaction() as session:
        assert {seen.event_name: seen.status for seen in watch.seen(session).events} == {"render": "unclaimed", "known": "counted"}

    metric_id = metering.metric("render_seconds", event_name="render", property="seconds")
    metering.count()
    now = datetime.now(UTC)
    (usage,) = metering.sums([(organization_id, metric_id, now - timedelta(hours=1), now + timedelta(hours=1))])
    assert usage == sum(Decimal(f"{i}.5") for i in range(12))
    assert waiting(metering) == []

    def claimed() -> bool:
        return bool(lenient(token, events[0])[1]["events"][0]["status"] == "accepted")

    metering.until(claimed)


def test_an_organization_keeps_so_many_names_and_no_more(metering: Metering, lenient: Any) -> None:
    (_, noisy), (_, other) = metering.organization(), metering.organization()
    names = [{"metric_name": f"noise.{i:03}", "idempotency_key": str(i)} for i in range(unclaimed.NAMES_MAX + 3)]
    status, answer = lenient(noisy, names)
    assert (status, answer["unclaimed"], answer["rejected"]) == (202, unclaimed.NAMES_MAX, 3)
    assert answer["events"][-1]["code"] == "unknown_metric"
    assert lenient(noisy, names[-1])[0] == 422
    assert lenient(noisy, names[0] | {"idempotency_key": "again"})[1]["unclaimed"] == 1
    assert lenient(other, names[-1])[1]["unclaimed"] == 1
    assert lenient(other, {"metric_name": "no name for a metric", "idempotency_key": "x"})[0] == 422
    metering.count()


def test_strict_mode_rejects_and_keeps_no_name(metering: Metering) -> None:
    _, token = metering.organization()
    before = metering.value("SELECT count(*) FROM usage_event_names")
    status, answer = metering.post(token, {"metric_name": "strictly_unknown", "idempotency_key": "s"})
    assert (status, answer["events"][0]["code"]) == (422, "unknown_metric")
    assert metering.value("SELECT count(*) FROM usage_event_names") == before
