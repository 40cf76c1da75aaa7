"""The events as a TimescaleDB hypertable: nothing is lost on the way in, days go and come as partitions do.

Runs where the test server has the extension, or on the server that TIMESCALE_URL names (one connection is enough).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from core.errors import Conflict
from core.metering import hypertable, partitions
from core.metering.archive import rows
from ops import postgres

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = [START.date() + timedelta(days=n) for n in range(3)]
EVENTS = """CREATE TABLE usage_events ("timestamp" timestamptz NOT NULL, received_at timestamptz NOT NULL, batch_id bigint NOT NULL,
  organization_number int NOT NULL, event_number int NOT NULL, position smallint NOT NULL, quantity numeric NOT NULL,
  idempotency_key text COLLATE "C" NOT NULL, properties bytea NOT NULL, subscription_id uuid, unit text,
  CHECK (quantity >= 0 AND quantity < 'Infinity')) PARTITION BY RANGE ("timestamp")"""
FILLED = """INSERT INTO usage_events SELECT %s + n * interval '1 hour', %s, n, n %% 2 + 1, 1, 0, n * 1.000000000001, 'k' || n, '{}'
  FROM generate_series(0, 71) n"""


@pytest.fixture
def line(cluster: postgres.Cluster) -> Iterator[Connection[Any]]:
    """A connection whose `usage_events` are partitioned, with three days of events, the last of them in the default partition."""
    with psycopg.connect(os.environ.get("TIMESCALE_URL") or cluster.url("postgres", "postgres"), autocommit=True) as connection:
        if not hypertable.is_available(connection):
            pytest.skip("this PostgreSQL has no TimescaleDB, and TIMESCALE_URL names none")
        connection.execute("SET TIME ZONE 'UTC'")
        _drop(connection)
        connection.execute(EVENTS)
        connection.execute("CREATE TABLE usage_events_default PARTITION OF usage_events DEFAULT")
        for day in DAYS[:2]:
            assert partitions.make_day(connection, "usage_events", day)
        connection.execute(FILLED, (START, START))
        yield connection
        _drop(connection)


def _drop(connection: Connection[Any]) -> None:
    for table in ("usage_events", "usage_events_default"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def digests(line: Connection[Any]) -> list[rows.Digest]:
    return [rows.stored(line, day) for day in DAYS]


def test_every_event_moves_and_days_are_dropped_but_for_what_is_held(line: Connection[Any]) -> None:
    before = digests(line)
    hypertable.convert(line, compress_after_days=37)
    assert (digests(line), hypertable.is_used(line)) == (before, True)
    with pytest.raises(Conflict):
        hypertable.convert(line, compress_after_days=37)
    assert partitions.days(line, "usage_events", before=date.max) == DAYS
    assert partitions.make_day(line, "usage_events", date(2030, 1, 1)), "there is nothing to make"
    assert partitions.stray(line, "usage_events") == []
    policies = (
        "SELECT count(*) FROM timescaledb_information.jobs WHERE hypertable_name = 'usage_events' AND proc_name = 'policy_compression'"
    )
    assert line.execute(policies).fetchone() == (1,)
    line.execute("SELECT compress_chunk(c) FROM show_chunks('usage_events') c")
    assert digests(line) == before, "compressed, it reads the same"
    held = rows.stored(line, DAYS[1], organizations=[2])
    with line.transaction():
        for day, keep in ((DAYS[0], []), (DAYS[1], [2])):
            partitions.lock_day(line, "usage_events", day)
            partitions.drop_day(line, "usage_events", day, keep=keep)
    assert digests(line) == [rows.NONE, held, before[2]]
    assert held.rows == 12
    assert partitions.days(line, "usage_events", before=DAYS[2]) == [DAYS[1]]
    line.execute(FILLED, (START, START))
    assert digests(line)[0] == before[0], "a restored day gets its chunk again"
