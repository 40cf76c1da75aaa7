"""The endpoint around the counting: keys, scopes, waiting for results, load limits, a database that is away."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import zstandard
from werkzeug.test import Client

from api.usage import PATH, UsageEndpoint
from core.audit import SYSTEM
from core.config import Settings
from core.db import transaction
from core.identity import keys
from core.metering import queries, tail
from ops import ports
from tests.metering.conftest import Metering


@pytest.fixture(scope="module", autouse=True)
def calls(metering: Metering) -> uuid.UUID:
    """The metric of this module."""
    return metering.metric("calls")


def one(key: str, **given: Any) -> dict[str, Any]:
    """An event without a timestamp."""
    return {"metric_name": "calls", "idempotency_key": key, **given}


def test_every_name_of_a_field_works(metering: Metering) -> None:
    organization_id, token = metering.organization(external_id="acme-1")
    events = [
        {"metric_name": "calls", "idempotency_key": "1", "organization_id": str(organization_id)},
        {"event_name": "calls", "idempotency_key": "2", "organization": "acme-1"},
        {"metric": "calls", "idempotency_key": "3", "quantity": "2.5", "unit": "call", "subscription_id": str(uuid.uuid4())},
        {"metric": "calls", "idempotency_key": "4", "quantity": 1e-7, "properties": None, "timestamp": None},
    ]
    status, answer = metering.post(token, events)
    assert (status, answer["accepted"]) == (202, 4), answer
    metering.count()
    rows = metering.rows(
        "SELECT quantity::text, unit, subscription_id::text FROM usage_events WHERE batch_id = %s ORDER BY position", answer["batch_id"]
    )
    assert [row[0] for row in rows[:2]] == ["1", "1"]
    assert rows[2] == ("2.5000", "call", events[2]["subscription_id"])
    assert float(rows[3][0]) == 1e-7


@pytest.mark.parametrize("form", ["object", "array", "ndjson", "gzip", "zstd"])
def test_every_form_of_a_body_works(metering: Metering, form: str) -> None:
    _, token = metering.organization()
    events = [one(f"{form}{i}") for i in range(20)]
    lines = "\n".join(map(json.dumps, events)).encode()
    given: dict[str, tuple[Any, dict[str, str], int]] = {
        "object": (events[0], {}, 1),
        "array": (events, {}, 20),
        "ndjson": (lines, {"CONTENT_TYPE": "application/x-ndjson"}, 20),
        "gzip": (gzip.compress(json.dumps(events).encode()), {"HTTP_CONTENT_ENCODING": "gzip"}, 20),
        "zstd": (zstandard.compress(json.dumps(events).encode()), {"HTTP_CONTENT_ENCODING": "zstd"}, 20),
    }
    body, headers, expected = given[form]
    status, answer = metering.post(token, body, **headers)
    assert (status, answer["accepted"]) == (202, expected)


def test_waiting_tells_duplicates_and_conflicts_in_the_answer(metering: Metering) -> None:
    _, token = metering.organization()
    metering.post(token, [one("a"), one("b", quantity=1)])
    metering.count()
    waiter = metering.aggregator(__import__("core.metering.dedup", fromlist=["SegmentStore"]).SegmentStore())
    import threading

    thread = threading.Thread(target=waiter.run)
    thread.start()
    status, answer = metering.post(token, [one("a"), one("b", quantity=2), one("c"), {"metric_name": "calls"}], HTTP_PREFER="wait=5")
    waiter.stop()
    thread.join()
    assert status == 202
    assert [verdict["status"] for verdict in answer["events"]] == ["duplicate", "conflict", "accepted", "rejected"]
    assert (answer["accepted"], answer["rejected"], answer["duplicates"], answer["conflicts"]) == (3, 1, 1, 1)


def test_a_revoked_key_stops_within_a_second(metering: Metering) -> None:
    organization_id, token = metering.organization()
    assert metering.post(token, one("r1"))[0] == 202
    with metering.app.app_context(), transaction() as session:
        key = session.scalar(keys.select(keys.ApiKey).where(keys.ApiKey.organization_id == organization_id))
        assert key is not None
        keys.revoke(session, organization_id, key.id, actor=SYSTEM, at=datetime.now(UTC))
    time.sleep(1.05)
    status, answer = metering.post(token, one("r2"))
    assert (status, answer["code"]) == (401, "revoked_key")


def test_scopes_and_expiry_are_checked(metering: Metering) -> None:
    organization_id, _ = metering.organization()
    with metering.app.app_context(), transaction() as session:
        given = {"organization_id": organization_id, "name": "k", "mode": "test", "actor": SYSTEM, "at": datetime.now(UTC)}
        _, reader = keys.create(session, scopes=["billing:read"], **given)
        _, short = keys.create(session, scopes=["usage:write"], expires_at=datetime.now(UTC) + timedelta(seconds=0.2), **given)
    assert metering.post(reader, one("s"))[1]["code"] == "insufficient_scope"
    time.sleep(0.25)
    assert metering.post(short, one("s"))[1]["code"] == "expired_key"


def test_a_platform_key_names_the_organization(metering: Metering) -> None:
    platform = metering.platform_key()
    first, _ = metering.organization(external_id="plat-1")
    second, _ = metering.organization(external_id="plat-2")
    events = [one(f"p{i}", organization_id="plat-1" if i % 2 else str(second)) for i in range(20)]
    assert metering.post(platform, events)[1]["accepted"] == 20
    status, answer = metering.post(platform, [one("q"), one("q2", organization_id="nobody")])
    assert (status, [verdict["pointer"] for verdict in answer["events"]]) == (422, ["/0/organization_id", "/1/organization_id"])
    metering.count()
    for organization_id in (first, second):
        query = "SELECT count(*) FROM usage_events e JOIN organizations o ON o.number = e.organization_number WHERE o.id = %s"
        assert metering.value(query, organization_id) == 10


def test_a_metric_created_a_moment_ago_is_known(metering: Metering) -> None:
    _, token = metering.organization()
    metering.post(token, one("warm"))
    metering.metric("brand_new")
    time.sleep(0.06)
    assert metering.post(token, {"metric_name": "brand_new", "idempotency_key": "n"})[0] == 202


def test_freshness_knows_what_waits(metering: Metering, calls: uuid.UUID) -> None:
    organization_id, token = metering.organization()
    before = datetime.now(UTC)
    metering.post(token, [one(f"f{i}") for i in range(7)])
    with metering.app.app_context(), transaction() as session:
        now = datetime.now(UTC)
        fresh = queries.freshness(session, organization_id, at=now)
        assert fresh.backlog == 7
        assert before - timedelta(seconds=1) < fresh.counted_up_to <= now
        assert queries.pending_before(session, now)
    metering.count()
    with metering.app.app_context(), transaction() as session:
        assert queries.freshness(session, organization_id, at=now).backlog == 0
        assert not queries.pending_before(session, now)


def client(settings: Settings, inner: Any = None) -> tuple[UsageEndpoint, Any]:
    """An endpoint of its own and a function that posts to it."""
    endpoint = UsageEndpoint(inner, settings)

    def post(token: str, event: Any) -> Any:
        return Client(endpoint).post(PATH, json=event, environ_base={"HTTP_AUTHORIZATION": f"Bearer {token}"})

    return endpoint, post


def test_one_noisy_key_is_slowed_and_no_other(metering: Metering) -> None:
    (_, noisy), (_, quiet) = metering.organization(), metering.organization()
    endpoint, post = client(Settings(environment="test", database_url=metering.url, usage_rate_per_second=10))
    answers = [post(noisy, [one(f"z{n}-{i}") for i in range(60)]) for n in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert int(answers[2].headers["Retry-After"]) >= 1
    assert post(quiet, one("q")).status_code == 202
    endpoint.close()


def test_too_much_backlog_is_refused_and_taken_again_later(metering: Metering) -> None:
    _, token = metering.organization()
    endpoint, post = client(Settings(environment="test", database_url=metering.url, usage_backlog_events_max=50))
    post(token, [one(f"b{i}") for i in range(100)])
    metering.until(lambda: post(token, one("b-more")).status_code == 503, 5)
    refused = post(token, one("b-more"))
    assert (refused.json["code"], refused.headers["Retry-After"]) == ("backlog", "5")
    metering.count()
    metering.until(lambda: post(token, one("b-again")).status_code == 202, 5)
    endpoint.close()
    metering.count()


def test_a_database_that_is_away_means_503_and_nothing_kept(metering: Metering) -> None:
    _, token = metering.organization()
    away = metering.url.rpartition(":")[0] + f":{ports.free()}/nowhere"
    endpoint, post = client(Settings(environment="test", database_url=away))
    for _ in range(3):
        began = time.monotonic()
        answer = post(token, one("away"))
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert time.monotonic() - began < 10
    endpoint.close()


def test_connections_that_were_cut_are_made_again(metering: Metering) -> None:
    """Every server process is ended under the endpoint: at most a few 503s, then it works, and what was acknowledged is there."""
    organization_id, token = metering.organization()
    acknowledged = 0
    for round_ in range(2):
        with psycopg.connect(metering.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        end = time.monotonic() + 30
        status = 503
        while status == 503 and time.monotonic() < end:
            status, _ = metering.post(token, one(f"cut{round_}"))
        assert status == 202
        acknowledged += 1
    metering.count()
    query = "SELECT count(*) FROM usage_events e JOIN organizations o ON o.number = e.organization_number WHERE o.id = %s"
    assert metering.value(query, organization_id) == acknowledged


def test_a_property_no_float_can_hold_is_shown_as_it_was_sent(metering: Metering) -> None:
    organization_id, token = metering.organization()
    body = b'{"metric_name":"calls","idempotency_key":"huge","properties":{"n":1e999999,"d":0.1,"i":%s}}' % (b"7" * 40)
    assert metering.post(token, body)[0] == 202
    metering.count()
    now = datetime.now(UTC)
    with metering.app.app_context(), transaction() as session:
        (found,) = queries.events_page(session, organization_id, start=now - timedelta(days=1), end=now + timedelta(days=1)).rows
    assert found.properties == {"n": "1E+999999", "d": 0.1, "i": int("7" * 40)}


def test_the_tail_shows_the_newest_events_and_what_became_of_them(metering: Metering) -> None:
    (mine, token), (other, stranger) = metering.organization(), metering.organization()
    metering.post(token, [one("t1", quantity="1.5", properties={"a": 1}), one("t2")])
    metering.post(stranger, one("theirs"))
    metering.count()
    metering.post(token, [one("t2"), one("t1", quantity=7), one("t3")])
    metering.count()
    metering.post(token, one("t4"))
    with metering.app.app_context(), transaction() as session:
        seen = tail.newest(session, mine)
        everybody = tail.newest(session, limit=7)
        newer = tail.newest(session, mine, after=tail.Place(int(seen[1].id.split("-")[0])))
    assert [(event.idempotency_key, event.status) for event in seen] == [
        ("t4", "pending"), ("t3", "counted"), ("t1", "conflict"), ("t2", "duplicate"), ("t2", "counted"), ("t1", "counted"),
    ]  # fmt: skip
    assert (seen[-1].quantity, seen[-1].properties) == (Decimal("1.5"), {"a": 1})
    assert {event.organization_id for event in everybody} == {mine, other}
    assert [event.idempotency_key for event in newer] == ["t4"]
    metering.count()
