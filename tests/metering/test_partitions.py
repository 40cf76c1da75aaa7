"""A day without a partition loses nothing, and gets one."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import psycopg

from core.metering import partitions
from core.metering.instants import micros
from tests.metering.conftest import Metering


def names(metering: Metering) -> set[str]:
    """Partitions that exist."""
    return {
        row[0]
        for row in metering.rows(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN ('usage_events'::regclass, 'usage_batches'::regclass)"
        )
    }


def test_rows_of_a_day_without_a_partition_move_into_it(metering: Metering) -> None:
    metering.metric("calls")
    _, token = metering.organization()
    today = datetime.now(UTC)
    for table in partitions.PARTITIONED:
        for name in [name for name in names(metering) if name.startswith(f"{table}_2")]:
            metering.rows(f"DROP TABLE {name}; SELECT 1")
    events = [
        {"metric_name": "calls", "idempotency_key": f"k{i}", "timestamp": (today - timedelta(days=i % 3)).isoformat()} for i in range(30)
    ]
    assert metering.post(token, events)[0] == 202
    metering.count()
    day = f"{today:%Y%m%d}"
    assert {f"usage_events_{day}", f"usage_batches_{day}"} <= names(metering)
    with psycopg.connect(metering.url, autocommit=True) as connection:
        assert partitions.keep_house(connection, today.date(), dedup_days=42) == []
        made = partitions.keep_house(connection, today.date() + timedelta(days=1), dedup_days=42)
    assert len(made) == 2
    assert metering.value("SELECT count(*) FROM usage_events") == 30
    assert metering.value("SELECT count(*) FROM usage_events_default") == 10
    assert metering.value(f"SELECT count(*) FROM usage_events_{day}") == 10


def test_expired_keys_and_results_are_deleted(metering: Metering) -> None:
    metering.rows("INSERT INTO usage_dedup_segments (received_on, entries, keys) VALUES ('2020-01-01', 0, '') RETURNING id")
    metering.rows("INSERT INTO usage_batch_results VALUES (%s, '2020-01-01', 0, '{}', '{}') RETURNING 1", micros(datetime.now(UTC)))
    with psycopg.connect(metering.url, autocommit=True) as connection:
        partitions.keep_house(connection, datetime.now(UTC).date(), dedup_days=42)
    assert metering.value("SELECT count(*) FROM usage_dedup_segments WHERE received_on < '2021-01-01'") == 0
    assert metering.value("SELECT count(*) FROM usage_batch_results WHERE counted_at < '2021-01-01'") == 0


def test_an_event_at_midnight_of_a_missing_day_is_taken(metering: Metering) -> None:
    metering.metric(f"m{uuid.uuid4().hex[:6]}")
    _, token = metering.organization()
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=20)
    assert metering.post(token, {"metric_name": "calls", "idempotency_key": "midnight", "timestamp": midnight.isoformat()})[0] == 202
    metering.count()
    assert metering.value("SELECT tableoid::regclass::text FROM usage_events WHERE idempotency_key = 'midnight'") == "usage_events_default"
