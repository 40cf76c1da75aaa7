"""Idempotency keys: one request, one effect, one answer, also when two arrive at the same moment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db import db
from core.identity.models import IdempotencyRecord, Organization
from tests.api.conftest import Api, organization_body
from tests.conftest import Clock
from tests.people import make_key


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Organization)) or 0


def test_the_same_key_and_body_give_the_first_answer_again(api: Api, session: Session) -> None:
    body = organization_body()
    first, again = (api.post("/billing/organizations", body, key="order-1") for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.data == again.data
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert count(session) == 1


def test_the_order_of_fields_does_not_make_another_request(api: Api, session: Session) -> None:
    body = organization_body()
    api.post("/billing/organizations", body, key="order-1")
    again = api.post("/billing/organizations", dict(reversed(body.items())), key="order-1")
    assert (again.status_code, count(session)) == (201, 1)


def test_another_body_under_the_same_key_is_refused(api: Api, session: Session) -> None:
    api.post("/billing/organizations", organization_body(), key="order-1")
    other = api.post("/billing/organizations", organization_body(), key="order-1")
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_key_reused")
    assert count(session) == 1


def test_a_refused_request_leaves_the_key_free(api: Api, session: Session) -> None:
    assert api.post("/billing/organizations", organization_body(currency="XXX"), key="order-1").status_code == 422
    assert api.post("/billing/organizations", organization_body(), key="order-1").status_code == 201


def test_keys_of_other_addresses_and_other_organizations_are_other_keys(api: Api, session: Session) -> None:
    one, other = (api.made("/billing/organizations", organization_body()) for _ in range(2))
    body = {"line_items": [{"description": "Work", "unit_price": "5"}]}
    for row in (one, other):
        bound = Api(api.client, make_key(session, session.get_one(Organization, row["id"])))
        answer = bound.post("/billing/invoices", body, key="order-1")
        assert answer.status_code == 201
        assert answer.get_json()["organization_id"] == row["id"]
    assert api.post("/test-clocks", {"frozen_time": "2026-01-01T00:00:00Z"}, key="order-1").status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "schlüssel", "two words", "tab\there"])
def test_a_key_that_is_none_is_refused(api: Api, key: str) -> None:
    answer = api.post("/billing/organizations", organization_body(), key=key.encode().decode("latin-1"))
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad_idempotency_key")


def test_reading_takes_no_notice_of_a_key(api: Api, session: Session) -> None:
    for _ in range(2):
        assert api.call("GET", "/billing/organizations", key="order-1").status_code == 200
    assert session.scalar(select(func.count()).select_from(IdempotencyRecord)) == 0


def test_a_claim_left_by_a_dead_process_is_taken_over_after_a_minute(api: Api, session: Session, clock: Clock) -> None:
    path = "/billing/payment-methods/setup-sessions"
    record = IdempotencyRecord(principal=f"platform /api/v1{path}", key="order-1", request_hash=b"", created_at=clock.now())
    session.add(record)
    session.flush()
    body = {"success_url": "https://a.example/", "cancel_url": "https://a.example/", "organization_id": "nobody"}
    record.request_hash = _hash_of(api, path, body)
    session.flush()
    assert api.post(path, body, key="order-1").get_json()["code"] == "idempotency_in_flight"
    clock.advance(seconds=61)
    assert api.post(path, body, key="order-1").get_json()["code"] == "not_found"


def _hash_of(api: Api, path: str, body: Any) -> bytes:
    from api import call, execution

    found = {}
    with api.client.application.test_request_context(f"/api/v1{path}", method="POST", headers={"Idempotency-Key": "order-1"}):
        key = execution.key_of(call.Call(None, None, None, (), "test"), body)  # type: ignore[arg-type]
        assert key is not None
        found["hash"] = key.request_hash
    return found["hash"]


@pytest.fixture
def racing(committed_app: Flask) -> tuple[FlaskClient, str]:
    with committed_app.app_context():
        token = make_key(db.session(), None)
        db.session().commit()
    return committed_app.test_client(), token


def test_of_sixteen_requests_at_once_one_is_carried_out(committed_app: Flask, racing: tuple[FlaskClient, str]) -> None:
    _, token = racing
    body, start = organization_body(), threading.Barrier(16)

    def send(_: int) -> tuple[int, str]:
        client = Api(committed_app.test_client(), token)
        start.wait()
        answer = client.post("/billing/organizations", body, key="race-1")
        return answer.status_code, answer.get_json().get("code", "")

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(16)))
    assert set(answers) <= {(201, ""), (409, "idempotency_in_flight")}
    assert (201, "") in answers
    with committed_app.app_context():
        assert count(db.session()) == 1


def test_two_requests_for_one_slug_at_once_are_one_success_and_one_conflict(committed_app: Flask, racing: tuple[FlaskClient, str]) -> None:
    _, token = racing
    body, start = organization_body(), threading.Barrier(8)

    def send(_: int) -> int:
        client = Api(committed_app.test_client(), token)
        start.wait()
        return client.post("/billing/organizations", body).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(send, range(8))) == [201] + [409] * 7


def test_a_usage_request_with_a_key_is_answered_once(committed_app: Flask, racing: tuple[FlaskClient, str]) -> None:
    client, token = racing
    api = Api(client, token)
    if api.get("/billing/organizations/usage-once").status_code == 404:
        api.made("/billing/metrics", {"code": "once", "name": "Once", "aggregation": "count"})
        api.made("/billing/organizations", organization_body(slug="usage-once"))
    customer = api.get("/billing/organizations/usage-once").get_json()
    bound = Api(client, _key_for(committed_app, customer["id"]))
    event = {"event_name": "once", "idempotency_key": "e-1"}
    first, again = (bound.post("/billing/usage", event, key="batch-1") for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202), first.text
    assert first.get_json()["batch_id"] == again.get_json()["batch_id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert bound.post("/billing/usage", {**event, "idempotency_key": "e-2"}, key="batch-1").get_json()["code"] == "idempotency_key_reused"
    assert bound.post("/billing/usage", {"event_name": "nothing"}, key="batch-2").status_code == 422
    assert bound.post("/billing/usage", event, key="batch-2").status_code == 202
    assert client.post("/api/v1/billing/usage", json=event, headers={"Idempotency-Key": "k"}).status_code == 401


def _key_for(app: Flask, organization_id: str) -> str:
    with app.app_context():
        session = db.session()
        token = make_key(session, session.get_one(Organization, organization_id))
        session.commit()
    return token
