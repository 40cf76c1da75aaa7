"""A decision on the connections the product answers it with: committed data, connections that are cut, a database that is away."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text

from core import clock
from core.audit import SYSTEM
from core.db import transaction
from core.entitlements import limits
from core.errors import Unavailable
from core.identity import keys
from core.identity.models import Organization
from core.metering import metrics
from core.metering.models import LimitAction, LimitPeriod, LimitSource
from core.reader import Reader
from ops import ports
from tests.factories import make_metric, make_organization, use
from tests.people import bearer, make_key

WHO = text("SELECT pg_backend_pid() AS pid, CAST(:number AS int) AS number")


def set_limit(app: Flask, organization_id: object, code: str, value: int) -> None:
    with app.app_context(), transaction() as session:
        limits.set_limit(
            session, organization_id, metric=metrics.find(session, code), value=Decimal(value), period=LimitPeriod.MONTHLY,
            action=LimitAction.BLOCK, source=LimitSource.OPERATOR, actor=SYSTEM, at=clock.now(), now=clock.now(),
        )  # fmt: skip


def cut_connections(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_what_was_committed_holds_for_the_next_question(
    committed_app: Flask, committed_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with committed_app.app_context(), transaction() as session:
        organization, other, metric = make_organization(session), make_organization(session), make_metric(session, "calls")
        organization_id, code = organization.id, metric.code
        token, others = make_key(session, organization), make_key(session, other)
    client = committed_app.test_client()

    def ask(token: str = token, **query: str) -> tuple[int, dict[str, object]]:
        answer = client.get("/api/v1/entitlements/check", query_string={"metric": code, **query}, headers=bearer(token))
        return answer.status_code, dict(answer.json or {})

    assert ask()[1]["reason"] == "no_limit"
    set_limit(committed_app, organization_id, code, 10)
    assert (ask()[1]["limit"], ask()[1]["used"]) == ("10", "0")
    with committed_app.app_context(), transaction() as session:
        use(session, session.get_one(Organization, organization_id), metrics.find(session, code), clock.now(), 4)
    assert (ask()[1]["used"], ask(quantity="7")[1]["allowed"]) == ("4", False)
    set_limit(committed_app, organization_id, code, 1000)
    assert ask(quantity="7")[1]["allowed"] is True

    cut_connections(committed_database_url)
    assert (ask()[0], ask()[1]["used"]) == (200, "4")
    assert ask(others)[1]["reason"] == "no_limit"
    assert ask(others, organization_id=str(organization_id))[0] == 404
    with committed_app.app_context(), transaction() as session:
        key = keys.authenticate(session, token, at=clock.now())
        keys.revoke(session, organization_id, key.id, actor=SYSTEM, at=clock.now())
    held = client.post("/api/v1/entitlements/consume", json={"metric": code, "key": "late"}, headers=bearer(token))
    assert (held.status_code, held.json and held.json["code"]) == (401, "revoked_key")
    monkeypatch.setattr(keys, "RECENT_SECONDS", 0.0)  # what only asks may know the key for so long
    assert (ask()[0], ask()[1]["code"]) == (401, "revoked_key")


@pytest.fixture
def reader(committed_database_url: str) -> Iterator[Reader]:
    made = Reader(committed_database_url)
    yield made
    made.close()


def test_a_connection_is_kept_and_one_that_was_cut_is_replaced(reader: Reader, committed_database_url: str) -> None:
    first, again = (reader.execute(WHO, {"number": 1})[0] for _ in range(2))
    assert (first.pid, first.number) == (again.pid, 1)
    cut_connections(committed_database_url)
    assert reader.execute(WHO, {"number": 2})[0].pid != first.pid
    with pytest.raises(psycopg.DataError):
        reader.execute(text("SELECT 1 / CAST(:number AS int)"), {"number": 0})
    assert reader.execute(WHO, {"number": 3})[0].number == 3


def test_a_database_that_is_away_is_told_at_once() -> None:
    reader = Reader(f"postgresql://nobody@127.0.0.1:{ports.free()}/nothing")
    for _ in range(8):  # more than the connections it may have: a failure gives its turn back
        with pytest.raises(Unavailable):
            reader.execute(WHO, {"number": 1})
