"""The usage summary over HTTP: filters, groups, zones, windows and the range before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.orm import Session

from tests.api.conftest import Api
from tests.factories import make_organization
from tests.metering.stored import Store
from tests.people import bearer

DAY = datetime(2026, 6, 10, tzinfo=UTC)


@pytest.fixture
def asked(api: Api, session: Session) -> Any:
    """Asks for the summary of a customer in India with ten events a day on two days."""
    store = Store(session)
    store.metric("sum", property="n", group_by=["region", "model"])
    metric = store.metrics[0].code
    customer = make_organization(session, timezone="Asia/Kolkata", external_id="known")
    for day in (DAY - timedelta(days=1), DAY):
        events = [(day + timedelta(hours=2 * n, minutes=31), {"n": str(n), "region": ["eu", "us"][n % 2], "model": "a"}) for n in range(10)]
        store.count(customer, events)

    def get(query: str) -> Any:
        path = f"/api/v1/billing/usage/summary?organization_id=known&metric_name={metric}&{query}"
        return api.client.get(path, headers=bearer(api.token))

    return get


def one(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    (found,) = answer.get_json()["metrics"]
    return found


def test_days_are_those_of_the_zone_asked_for(asked: Any) -> None:
    days = "start_date=2026-06-10&end_date=2026-06-10"
    assert Decimal(one(asked(f"{days}&timezone=UTC"))["quantity"]) == 45
    here = one(asked(f"{days}&compare=previous&granularity=hour"))
    assert Decimal(here["quantity"]) == 36 + 9
    assert len(here["buckets"]) == 24
    assert here["buckets"][0]["start"] == "2026-06-09T18:30:00Z"
    assert here["previous"]["start"] == "2026-06-08T18:30:00Z"
    assert Decimal(here["previous"]["quantity"]) == 36
    assert Decimal(here["previous"]["change_percent"]) == 25


def test_minutes_groups_and_filters(asked: Any) -> None:
    found = one(asked("start_date=2026-06-10T02:00:00Z&end_date=2026-06-10T03:00:00Z&granularity=minute&group_by=region&filters=region=us"))
    assert len(found["buckets"]) == 60
    assert [bucket["start"] for bucket in found["buckets"] if bucket["events"]] == ["2026-06-10T02:31:00Z"]
    assert {name: Decimal(value) for name, value in found["groups"].items()} == {"us": 1}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("filters=region", "/filters"),
        ("filters=color=red", "/filters"),
        ("group_by=color", "/group_by"),
        ("timezone=Mars/Olympus", "/timezone"),
    ],
)
def test_what_cannot_be_asked_is_told(asked: Any, query: str, pointer: str) -> None:
    answer = asked(query)
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["pointer"] == pointer
