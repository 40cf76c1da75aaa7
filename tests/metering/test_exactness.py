"""Each accepted event counts exactly once, whatever is repeated, raced, killed or broken on the way."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.metering.aggregate import Superseded, keep_counting
from core.metering.columns import pack, unpack
from core.metering.counting import Batch
from core.metering.dedup import KeyTable, SegmentStore
from core.metering.flushes import culprits
from core.metering.texts import texts
from tests.metering.conftest import Metering

KILLS = 20


@pytest.fixture(scope="module", autouse=True)
def metrics(metering: Metering) -> dict[str, uuid.UUID]:
    """The metrics of this module."""
    return {code: metering.metric(code) for code in ("calls", "gb", "raced", "stored", "killed", "cut", "poison", "shifted")}


def event(name: str, key: str, **given: Any) -> dict[str, Any]:
    """An event of now."""
    return {"metric_name": name, "idempotency_key": key, "timestamp": datetime.now(UTC).isoformat(), **given}


def counted(metering: Metering, organization_id: uuid.UUID, metric_id: uuid.UUID) -> Decimal:
    """All usage of the metric by the organization in the last days."""
    now = datetime.now(UTC)
    return metering.sums([(organization_id, metric_id, now - timedelta(days=40), now + timedelta(days=1))])[0]


def test_a_repeated_batch_counts_once_and_says_so(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    organization_id, token = metering.organization()
    events = [event("calls", f"k{i}", quantity=i) for i in range(100)]
    assert metering.post(token, events)[0] == 202
    _, again = metering.post(token, events)
    metering.count()
    assert counted(metering, organization_id, metrics["calls"]) == sum(range(100))
    duplicates, conflicts = metering.rows("SELECT duplicates, conflicts FROM usage_batch_results WHERE batch_id = %s", again["batch_id"])[0]
    assert (sorted(duplicates), conflicts) == (list(range(100)), [])
    assert (
        metering.value(
            "SELECT count(*) FROM usage_events e JOIN organizations o ON o.number = e.organization_number AND o.id = %s", organization_id
        )
        == 100
    )


def test_the_same_key_with_other_content_is_a_conflict_and_the_first_wins(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    organization_id, token = metering.organization()
    metering.post(token, event("gb", "once", quantity="1.5"))
    _, second = metering.post(token, event("gb", "once", quantity="2.5"))
    metering.count()
    assert counted(metering, organization_id, metrics["gb"]) == Decimal("1.5")
    assert metering.rows("SELECT counted, conflicts FROM usage_batch_results WHERE batch_id = %s", second["batch_id"]) == [(0, [0])]


def test_properties_in_another_order_are_the_same_content(metering: Metering) -> None:
    _, token = metering.organization()
    at = datetime.now(UTC).isoformat()
    metering.post(token, event("gb", "order", timestamp=at, properties={"a": 1, "b": "x"}))
    _, second = metering.post(token, event("gb", "order", timestamp=at, properties={"b": "x", "a": 1}))
    metering.count()
    assert metering.rows("SELECT duplicates, conflicts FROM usage_batch_results WHERE batch_id = %s", second["batch_id"]) == [([0], [])]


def test_a_key_that_comes_back_with_another_timestamp_counts_once(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    organization_id, token = metering.organization()
    now = datetime.now(UTC)
    for shift in (0, 1, 9, 34):
        events = [event("shifted", f"s{i}", timestamp=(now - timedelta(days=shift, seconds=i)).isoformat()) for i in range(500)]
        assert metering.post(token, events)[0] == 202
    metering.count()
    assert counted(metering, organization_id, metrics["shifted"]) == 500


def test_one_key_of_two_organizations_counts_for_each(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    organizations = [metering.organization() for _ in range(2)]
    for _, token in organizations:
        metering.post(token, [event("calls", f"shared{i}") for i in range(50)])
    metering.count()
    assert [counted(metering, organization_id, metrics["calls"]) for organization_id, _ in organizations] == [50, 50]


@pytest.mark.parametrize("store", [SegmentStore, KeyTable])
def test_both_stores_remember_across_restarts(metering: Metering, metrics: dict[str, uuid.UUID], store: Any) -> None:
    organization_id, token = metering.organization()
    events = [event("stored", f"{store.__name__}{i}", quantity="0.000000000001") for i in range(300)]
    for part in (events[:200], events[100:], events):
        metering.post(token, part)
        metering.count(store)
    assert counted(metering, organization_id, metrics["stored"]) == Decimal("0.0000000003")


def test_racing_clients_and_retries_are_exact(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    """16 clients send 8,000 events, each 1 to 5 times, in overlapping requests."""
    organization_id, token = metering.organization()
    events = [event("raced", f"r{i}", quantity=f"{i % 7}.25") for i in range(8_000)]
    rng = random.Random(11)
    sendings = [chosen for start in range(0, 8_000, 100) for chosen in [events[start : start + 100]] * rng.randint(1, 5)]
    rng.shuffle(sendings)
    with ThreadPoolExecutor(16) as clients:
        statuses = list(clients.map(lambda chosen: metering.post(token, chosen)[0], sendings))
    assert set(statuses) == {202}
    metering.count()
    assert counted(metering, organization_id, metrics["raced"]) == sum(Decimal(f"{i % 7}.25") for i in range(8_000))


def test_killing_the_aggregator_loses_and_doubles_nothing(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    """kill -9 at random moments while 60 batches, a third of them repeats, are being counted."""
    organization_id, token = metering.organization()
    rng = random.Random(5)
    for round_ in range(KILLS):
        for part in range(8):
            name = f"{round_ - (part % 3 == 2)}-{part}"
            metering.post(token, [event("killed", f"{name}-{i}", quantity=2) for i in range(500)])
        before = metering.value("SELECT count(*) FROM usage_batch_results")
        process = multiprocessing.get_context("fork").Process(target=metering.aggregator(SegmentStore()).run)
        process.start()
        metering.until(lambda before=before: metering.value("SELECT count(*) FROM usage_batch_results") > before)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join(10)
    metering.count()
    keys = metering.value(
        "SELECT count(DISTINCT idempotency_key) FROM usage_events e JOIN metrics m ON m.code = 'killed'"
        " JOIN usage_event_names n ON n.number = e.event_number AND n.name = m.event_name"
    )
    rows = metering.value("SELECT count(*) FROM usage_events e JOIN usage_event_names n ON n.number = e.event_number AND n.name = 'killed'")
    assert rows == keys
    sent = {f"{round_ - (part % 3 == 2)}-{part}" for round_ in range(KILLS) for part in range(8)}
    assert rows == 500 * len(sent)
    assert counted(metering, organization_id, metrics["killed"]) == 2 * rows


def test_a_database_that_cuts_every_connection_interrupts_and_no_more(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    """Every backend is ended again and again while 40 batches are sent and counted."""
    organization_id, token = metering.organization()
    stopped = threading.Event()
    make = lambda: metering.aggregator(SegmentStore())  # noqa: E731
    counting = threading.Thread(target=keep_counting, args=(make, stopped), kwargs={"retry_seconds": 0.05})
    counting.start()
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'"
    )
    try:
        for part in range(40):
            events = [event("cut", f"c{part}-{i}", quantity=3) for i in range(200)]
            metering.send(token, events)
            if part % 3 == 0:
                metering.rows(cut)
        metering.until(metering.is_counted)
    finally:
        stopped.set()
        counting.join()
    assert counted(metering, organization_id, metrics["cut"]) == 40 * 200 * 3


def test_an_aggregator_that_lost_its_lock_cannot_commit(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    """A newer one has taken over; the older, still connected, is fenced off at its next flush."""
    organization_id, token = metering.organization()
    old = metering.aggregator(SegmentStore())
    failed: list[BaseException] = []

    def run() -> None:
        try:
            old.run()
        except Superseded as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    metering.until(lambda: old.is_counting)
    metering.rows("UPDATE usage_state SET epoch = epoch + 1 RETURNING epoch")
    metering.send(token, [event("cut", f"fence{i}") for i in range(10)])
    thread.join(20)
    assert failed
    metering.count()
    assert counted(metering, organization_id, metrics["cut"]) == 10


def test_poison_batches_are_set_aside_and_the_rest_is_counted_together(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    organization_id, token = metering.organization()
    batches = [metering.send(token, [event("poison", f"p{n}-{i}") for i in range(10)])["batch_id"] for n in range(30)]
    before = metering.value("SELECT quarantined_batches FROM usage_totals")
    bad = {batches[0]: b"\x00", batches[2]: unwritable(metering, batches[2]), batches[25]: unwritable(metering, batches[25])}
    for batch_id, payload in bad.items():
        metering.rows("UPDATE usage_batches SET payload = %s WHERE id = %s RETURNING id", payload, batch_id)
    aggregator = metering.count()
    quarantined = metering.rows("SELECT batch_id::text, error FROM usage_quarantine q ORDER BY q.batch_id")
    assert [batch_id for batch_id, _ in quarantined] == list(bad)
    assert all(error for _, error in quarantined)
    assert metering.value("SELECT quarantined_batches FROM usage_totals") == before + 3
    assert aggregator.progress.poisoned == 3
    assert aggregator.progress.flushes < 5, "the good batches were counted one by one"
    assert counted(metering, organization_id, metrics["poison"]) == 270


def unwritable(metering: Metering, batch_id: str) -> bytes:
    """The batch's payload with a key that can be read and not be written."""
    good = unpack(metering.value("SELECT payload FROM usage_batches WHERE id = %s", batch_id))
    keys = [b"a\x00b", *good.texts.all_keys()[1:]]
    return pack(replace(good, texts=texts(keys, good.texts.all_properties())))


@pytest.mark.parametrize("bad", [{0}, {99}, {37, 38}, set()])
def test_what_makes_a_flush_fail_is_found_in_few_trials(bad: set[int]) -> None:
    batches = [Batch(number, 0, b"") for number in range(100)]
    tried: list[int] = []

    def trial(some: Sequence[Batch]) -> Exception | None:
        tried.append(len(some))
        return ValueError("bad") if any(batch.id in bad for batch in some) else None

    assert [failed.batches[0].id for failed in culprits(batches, trial)] == sorted(bad)
    assert len(tried) <= 8 + 7 * len(bad)
    assert sum(tried) <= 100 + 110 * len(bad)


def test_quantities_too_big_to_add_in_one_flush_are_exact(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    organization_id, token = metering.organization()
    for part in range(12):
        metering.send(
            token,
            [event("calls", f"big{part}-{i}", quantity="99999999999999.999999999999") for i in range(10_000)][: 4_000 if part else 10_000],
        )
    metering.count()
    assert counted(metering, organization_id, metrics["calls"]) == Decimal("99999999999999.999999999999") * (10_000 + 11 * 4_000)
