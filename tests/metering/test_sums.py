"""Sums and summaries equal a naive count of the events, for every aggregation and any window."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.db import transaction
from core.errors import NotFound
from core.metering import queries, recount
from core.metering.rejections import finding
from core.metering.summary import summary
from core.pricing.aggregation import Aggregation as Pure
from core.pricing.aggregation import Reading, aggregate
from tests.metering.conftest import Metering

METRICS: dict[str, dict[str, Any]] = {
    "requests": {"aggregation": "count"},
    "units": {"aggregation": "sum"},
    "tokens": {"aggregation": "sum", "property": "tokens", "group_by": ["model", "region"]},
    "eu_tokens": {"aggregation": "sum", "property": "tokens", "filters": [{"property": "region", "in": ["eu"]}]},
    "peak": {"aggregation": "max", "property": "tokens", "group_by": ["region"]},
    "level": {"aggregation": "latest", "property": "tokens"},
    "users": {"aggregation": "unique_count", "property": "user", "group_by": ["region"]},
}
EVENTS = 1_500


@dataclass(frozen=True)
class World:
    """Two organizations, their events as sent, and the metrics."""

    organizations: list[uuid.UUID]
    events: list[list[dict[str, Any]]]
    metrics: dict[str, uuid.UUID]
    start: datetime
    end: datetime


@pytest.fixture(scope="module")
def world(metering: Metering) -> World:
    """Ten days of random events, sent in random order and counted in many flushes; `late` metrics are created afterwards."""
    rng = random.Random(3)
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    start = end - timedelta(days=10)
    names = list(METRICS)
    ids = {name: metering.metric(name, event_name="llm", **METRICS[name]) for name in names[:4]}
    organizations, sent = [], []
    for number in range(2):
        organization_id, token = metering.organization()
        events = [made(rng, number, i, start, end) for i in range(EVENTS)]
        organizations.append(organization_id)
        sent.append(events)
        for first in range(0, EVENTS, 250):
            assert metering.post(token, events[first : first + 250])[0] == 202
            if first == 500:
                metering.count()
    metering.count()
    ids |= {name: metering.metric(name, event_name="llm", **METRICS[name]) for name in names[4:]}
    metering.count()
    return World(organizations, sent, ids, start, end)


def made(rng: random.Random, number: int, i: int, start: datetime, end: datetime) -> dict[str, Any]:
    """A random event; instants repeat so that ties occur."""
    at = start + timedelta(seconds=rng.choice([rng.randrange(864_000), rng.randrange(240) * 3_600]))
    properties: dict[str, Any] = {
        "region": rng.choice(["eu", "us"]),
        "model": rng.choice(["a", "b", None]),
        "user": f"u{rng.randrange(60)}",
    }
    if rng.random() < 0.9:
        properties["tokens"] = rng.choice([rng.randrange(10_000), f"{rng.random():.6f}", round(rng.random() * 100, 3)])
    return {
        "metric_name": "llm",
        "idempotency_key": f"{number}-{i}",
        "timestamp": at.isoformat(),
        "quantity": f"{rng.randrange(100)}.{rng.randrange(10**12):012}",
        "properties": {name: value for name, value in properties.items() if value is not None},
    }


def naive(events: Sequence[dict[str, Any]], name: str, start: datetime, end: datetime, group: dict[str, str] | None = None) -> Decimal:
    """The aggregate by core.pricing.aggregation of the events in the window."""
    given = METRICS[name]
    readings = []
    for event in events:
        at = datetime.fromisoformat(event["timestamp"])
        properties = event["properties"]
        wanted = {item["property"]: item["in"] for item in given.get("filters", ())}
        if not start <= at < end or any(properties.get(key) not in values for key, values in wanted.items()):
            continue
        if any(properties.get(key, "") != value for key, value in (group or {}).items()):
            continue
        source = given.get("property")
        if source is not None and source not in properties:
            continue
        if given["aggregation"] == "unique_count":
            readings.append(Reading(at, value=str(properties["user"])))
        else:
            readings.append(Reading(at, Decimal(str(properties[source])) if source else Decimal(event["quantity"])))
    return Decimal(aggregate(Pure(given["aggregation"]), readings))  # type: ignore[arg-type]


def windows(world: World) -> list[tuple[datetime, datetime]]:
    """Whole, hour-aligned, ragged, inside one hour, empty and beyond the events."""
    rng = random.Random(9)
    at = world.start + timedelta(hours=77)
    fixed = [
        (world.start, world.end),
        (at, at + timedelta(hours=5)),
        (at + timedelta(minutes=30), at + timedelta(days=2, minutes=30)),
        (at + timedelta(minutes=10), at + timedelta(minutes=20)),
        (at, at + timedelta(minutes=59, seconds=59, microseconds=999_999)),
        (world.end + timedelta(days=1), world.end + timedelta(days=2)),
        (world.start - timedelta(days=3), world.end + timedelta(days=3)),
    ]
    instants = [
        sorted(world.start + timedelta(seconds=rng.randrange(864_000), microseconds=rng.randrange(10**6)) for _ in range(2))
        for _ in range(25)
    ]
    return fixed + [(first, last) for first, last in instants]


@pytest.mark.parametrize("name", METRICS)
def test_sums_of_any_window_equal_a_naive_count(metering: Metering, world: World, name: str) -> None:
    asked = [(organization, world.metrics[name], *span) for organization in world.organizations for span in windows(world)]
    expected = [naive(events, name, *span) for events in world.events for span in windows(world)]
    assert metering.sums(asked) == expected
    assert any(expected)


def test_all_windows_are_answered_by_a_handful_of_statements(metering: Metering, world: World) -> None:
    from sqlalchemy import event as sqlalchemy_event

    from core.db import db

    asked = [
        (organization, metric, *span)
        for organization in world.organizations
        for metric in world.metrics.values()
        for span in windows(world)
    ]
    statements: list[str] = []
    with metering.app.app_context(), transaction() as session:
        sqlalchemy_event.listen(db.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        answers = queries.usage_sums(session, asked)
    assert len(answers) == len(asked)
    assert len(statements) <= 12


def test_a_summary_by_day_and_group_equals_a_naive_count(metering: Metering, world: World) -> None:
    with metering.app.app_context(), transaction() as session:
        found = summary(
            session, world.organizations[0], start=world.start, end=world.end, timezone="Asia/Kolkata", granularity="day", group_by="region"
        )
        assert [item.metric.code for item in found] == ["peak", "tokens", "users"]
        for item in found:
            assert item.total == naive(world.events[0], item.metric.code, world.start, world.end)
            assert item.buckets[0].start == world.start
            assert item.buckets[-1].end == world.end
            for bucket in item.buckets:
                assert bucket.quantity == naive(world.events[0], item.metric.code, bucket.start, bucket.end)
                for region, quantity in bucket.groups.items():
                    assert quantity == naive(world.events[0], item.metric.code, bucket.start, bucket.end, {"region": region})


def test_a_summary_can_be_filtered(metering: Metering, world: World) -> None:
    with metering.app.app_context(), transaction() as session:
        (found,) = summary(
            session,
            world.organizations[1],
            start=world.start,
            end=world.end,
            metric_codes=["tokens"],
            filters={"region": ["us"]},
            group_by="model",
        )
    assert found.total == naive(world.events[1], "tokens", world.start, world.end, {"region": "us"})
    assert set(found.groups) == {"", "a", "b"}


def test_events_behind_a_number_come_page_by_page(metering: Metering, world: World) -> None:
    seen: list[str] = []
    cursor = None
    with metering.app.app_context(), transaction() as session:
        while True:
            page = queries.events_page(
                session,
                world.organizations[0],
                start=world.start,
                end=world.end,
                metric_id=world.metrics["tokens"],
                cursor=cursor,
                limit=400,
            )
            seen += [event.idempotency_key for event in page.rows]
            cursor = page.next_cursor
            if cursor is None:
                break
    assert len(seen) == len(set(seen)) == EVENTS
    assert set(seen) == {event["idempotency_key"] for event in world.events[0]}


def test_another_organization_sees_nothing(metering: Metering, world: World) -> None:
    stranger, _token = metering.organization()
    batch = metering.post(metering.organization()[1], {"metric_name": "llm", "idempotency_key": "x", "properties": {"tokens": 1}})[1][
        "batch_id"
    ]
    with metering.app.app_context(), transaction() as session:
        assert queries.events_page(session, stranger, start=world.start, end=world.end).rows == []
        assert finding.page(session, finding.Wanted(stranger)).rows == []
        for reference in (batch, f"{batch}-0"):
            with pytest.raises(NotFound):
                queries.batch(session, stranger, reference)
    assert metering.sums([(stranger, metric, world.start, world.end) for metric in world.metrics.values()]) == [0] * len(METRICS)


def test_a_recount_agrees_and_finds_what_was_changed(metering: Metering, world: World) -> None:
    metering.count()
    span = {"start": world.start - timedelta(days=1), "end": world.end + timedelta(days=1)}
    with metering.app.app_context(), transaction() as session:
        assert recount.differences(session, **span) == []
    first = "WHERE ctid = (SELECT ctid FROM usage_rollups ORDER BY hour LIMIT 1)"
    changed = metering.rows(f"UPDATE usage_rollups SET quantity = quantity + 0.000000000001 {first} RETURNING hour")
    metering.rows("DELETE FROM usage_rollups WHERE ctid = (SELECT ctid FROM usage_rollups ORDER BY hour DESC LIMIT 1) RETURNING hour")
    with metering.app.app_context(), transaction() as session:
        every = recount.differences(session, **span)
    found = [item for item in every if not item.daily]
    assert len(found) == 2
    assert {item.hour.date() for item in every if item.daily} <= {item.hour.date() for item in found}  # where days were added up already
    assert changed[0][0] in [item.hour for item in found]
    assert [item.stored for item in found].count(None) == 1
