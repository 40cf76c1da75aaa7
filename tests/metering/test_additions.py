"""What a flush writes: both roads write the same rows and sums, and PostgreSQL reads from the rows what was accepted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.metering import additions, pgcopy
from core.metering.additions import PGROWS, Chosen
from core.metering.columns import Columns, quantity
from core.metering.rollups import COPY_EVENTS
from core.metering.texts import texts
from tests.metering.conftest import Metering

START = 1_781_500_000_000_000
WHOLES = st.one_of(st.integers(0, 10**14 - 1), st.sampled_from([0, 1, 9_999, 10_000, 10**8, 10**12, 10**13, 10**14 - 1]))
FRACTIONS = st.one_of(st.integers(0, 10**12 - 1), st.sampled_from([0, 1, 10**4, 10**8, 5 * 10**11, 10**12 - 1, 50_000_000]))
Event = tuple[int, int, int, int, int]
EVENTS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(0, 10**10), WHOLES, FRACTIONS), min_size=1, max_size=40)


def chosen(events: list[Event]) -> Chosen:
    """The events in the order a flush writes them; each third belongs to the second batch, each seventh is left out."""
    numbers = np.array(events, np.int64)
    places = np.arange(len(events), dtype=np.int64)
    columns = Columns(
        numbers[:, 0].astype(np.int32),
        numbers[:, 1].astype(np.int32),
        START + numbers[:, 2],
        np.zeros(len(events), np.bool_),
        numbers[:, 3].copy(),
        numbers[:, 4].copy(),
        places.astype(np.int16),
        texts([b"key-%d" % place for place in places], [b'{"n":%d}' % place for place in places], {0: "GB"}, {1: bytes(16)}),
    )
    order = np.lexsort((columns.timestamps, columns.events, columns.organizations)).astype(np.int64)
    order = order[order % 7 != 6]
    return Chosen(columns, order, (places % 3 == 2).astype(np.int64), np.array([11, 12]), np.array([START + 5, START + 6]))


@given(EVENTS)
def test_both_roads_add_up_alike(events: list[Event]) -> None:
    some = chosen(events)
    assert PGROWS.load()
    compiled = additions.groups(some)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PGROWS, "_module", None)
        plain = additions.groups(some)
    assert [column.tolist() for column in compiled] == [column.tolist() for column in plain]
    total = sum(quantity(int(some.columns.wholes[row]), int(some.columns.fractions[row])) for row in some.order)
    assert sum(quantity(int(whole), int(fraction)) for whole, fraction in zip(plain.wholes, plain.fractions, strict=True)) == total


def test_sums_that_do_not_fit_are_an_error_on_either_road() -> None:
    some = chosen([(1, 1, 0, 10**14 - 1, 0)] * 60_000)
    assert PGROWS.load()
    some = replace(some, order=np.tile(some.order, 2))
    with pytest.raises(OverflowError):
        additions.groups(some)


@pytest.fixture(scope="module")
def rows_table(metering: Metering) -> Any:
    """A connection with a table of the same columns, which is gone with it."""
    with psycopg.connect(metering.url) as connection:
        connection.execute("CREATE TEMPORARY TABLE copied (LIKE usage_events)")
        yield connection


@pytest.mark.parametrize("code", [True, False], ids=["compiled", "plain"])
@given(EVENTS)
def test_postgresql_reads_what_was_accepted(rows_table: Any, code: bool, events: list[Event]) -> None:
    some = chosen(events)
    assert PGROWS.load()
    with pytest.MonkeyPatch.context() as patch:
        if not code:
            patch.setattr(PGROWS, "_module", None)
        rows = additions.rows(some)
    assert bytes(rows).startswith(pgcopy.HEADER)
    rows_table.execute("TRUNCATE copied")
    with rows_table.cursor().copy(COPY_EVENTS.replace("usage_events", "copied")) as copy:
        copy.write(rows)
    found = rows_table.execute(
        """SELECT "timestamp", received_at, batch_id, organization_number, event_number, position, quantity, unit, subscription_id,
          idempotency_key, properties FROM copied ORDER BY position"""
    ).fetchall()
    wanted = []
    for row in sorted(some.order.tolist()):
        organization, kind, offset, whole, fraction = events[row]
        batch = int(row % 3 == 2)
        at, received = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=n) for n in (START + offset, START + 5 + batch))
        value, unit, subscription = quantity(whole, fraction), "GB" if row == 0 else None, bytes(16) if row == 1 else None
        wanted.append((at, received, 11 + batch, organization, kind, row, value, unit, subscription, f"key-{row}", b'{"n":%d}' % row))
    shown = [(*row[:8], row[8] and row[8].bytes, row[9], bytes(row[10])) for row in found]
    assert shown == wanted
    assert all(Decimal(row[6]).as_tuple().exponent in (0, -4, -8, -12) for row in found)
