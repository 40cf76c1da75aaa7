"""A key leads to its event: through small rows and large, put together or not, for one account or all, corrected or waiting."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg

from core import clock
from core.audit import SYSTEM
from core.db import transaction
from core.metering import places, queries
from core.metering.corrections import events
from core.metering.corrections.events import Amendment
from core.metering.queries import UsageEvent
from tests.metering.conftest import Metering


def found(metering: Metering, key: str) -> list[tuple[uuid.UUID, UsageEvent]]:
    with metering.app.app_context(), transaction() as session:
        return queries.by_key(session, key)


def of(metering: Metering, organization_id: uuid.UUID, key: str) -> list[UsageEvent]:
    now = datetime.now(UTC)
    with metering.app.app_context(), transaction() as session:
        window = {"start": now - timedelta(days=35), "end": now + timedelta(days=1)}
        return queries.events_page(session, organization_id, **window, idempotency_key=key).rows


def test_every_key_leads_to_its_event(metering: Metering) -> None:
    metering.metric("placed")
    (one, token), (other, second) = metering.organization(), metering.organization()
    for n in range(70):  # small rows, put together once there are 64
        metering.send(token, {"metric_name": "placed", "idempotency_key": f"small-{n}"})
        if n % 10 == 9:
            metering.count()
    past = (datetime.now(UTC) - timedelta(days=20)).isoformat()
    big = [{"metric_name": "placed", "idempotency_key": f"big-{n}", "timestamp": past} for n in range(6_000)]
    metering.send(second, big)
    metering.send(second, {"metric_name": "placed", "idempotency_key": "small-3"})
    metering.count()
    assert metering.value("SELECT count(*) FROM usage_key_places WHERE bits IS NOT NULL") == 1
    for n in (0, 3, 42, 69):
        assert [event.idempotency_key for event in of(metering, one, f"small-{n}")] == [f"small-{n}"]
    for n in range(0, 6_000, 500):
        assert [(owner, event.idempotency_key) for owner, event in found(metering, f"big-{n}")] == [(other, f"big-{n}")]
    assert {owner for owner, _ in found(metering, "small-3")} == {one, other}
    assert of(metering, one, "big-1") == []
    assert found(metering, "never") == []

    with metering.app.app_context(), transaction() as session:
        moved = Amendment(timestamp=datetime.now(UTC) - timedelta(days=9))
        events.amend(session, other, "big-7", moved, reason="The clock was wrong.", actor=SYSTEM, at=clock.now())
        events.void(session, other, "big-8", reason="It was sent by a test.", actor=SYSTEM, at=clock.now())
    assert [event.timestamp for _, event in found(metering, "big-7")] == [moved.timestamp]
    assert found(metering, "big-8") == []
    metering.send(token, {"metric_name": "placed", "idempotency_key": "waits"})
    with psycopg.connect(metering.url, autocommit=True) as connection:
        assert [place.position for place in places.find(connection, "waits")] == [0]
    metering.count()


def test_rows_put_together_lose_no_key(metering: Metering) -> None:
    rng = np.random.default_rng(7)
    with psycopg.connect(metering.url) as connection:
        connection.execute("TRUNCATE usage_key_places RESTART IDENTITY")
        sent = {}
        for flush in range(130):
            hashes, ids = rng.integers(0, 2**64, 100, dtype=np.uint64), 10_000 + flush * 7 + rng.integers(0, 9, 100)
            sent |= dict(zip(hashes.tolist(), ids.tolist(), strict=True))
            places.note(connection, (hashes, ids))
        assert connection.execute("SELECT count(*) FROM usage_key_places").fetchone() == (5,)
        for hashed, batch in list(sent.items())[::97]:
            assert any(first <= batch <= last for first, last in places._ranges(connection, hashed >> 32))
        connection.rollback()
