"""Each accepted event counts exactly once, whatever is repeated, raced, killed or broken on the way."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.metering import aggregate, flushes, suspects
from core.metering.aggregate import Superseded, keep_counting
from core.metering.columns import pack, unpack
from core.metering.counting import Batch
from core.metering.dedup import KeyTable, SegmentStore
from core.metering.flushes import Flush
from core.metering.halving import Halving
from core.metering.texts import texts
from tests.metering.conftest import Metering

KILLS = 20


@pytest.fixture(scope="module", autouse=True)
def metrics(metering: Metering) -> dict[str, uuid.UUID]:
    """The metrics of this module."""
    return {
        code: metering.metric(code) for code in ("calls", "gb", "raced", "stored", "killed", "cut", "poison", "shifted", "again", "halved")
    }


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


@pytest.mark.parametrize("hints", [True, False], ids=["with hints", "without"])
def test_poison_batches_are_set_aside_and_the_rest_is_counted_together(
    metering: Metering, metrics: dict[str, uuid.UUID], hints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    guesses: list[str | None] = []

    def suspect(flush: Flush, error: Exception) -> int | None:
        place = suspects.suspect(flush, error)
        guesses.append(None if place is None else str(flush.batches[place].id))
        return place if hints else None

    monkeypatch.setattr(aggregate, "suspect", suspect)
    organization_id, token = metering.organization()
    batches = [metering.send(token, [event("poison", f"p{n}-{i}") for i in range(10)])["batch_id"] for n in range(30)]
    before = metering.value("SELECT quarantined_batches FROM usage_totals")
    metering.rows("UPDATE usage_batches SET payload = %s WHERE id = %s RETURNING id", b"\x00", batches[0])
    poison(metering, batches[2], batches[25])
    bad = [batches[0], batches[2], batches[25]]
    aggregator = metering.count()
    quarantined = metering.rows(
        "SELECT batch_id::text, error FROM usage_quarantine q WHERE batch_id = ANY(%s::bigint[]) ORDER BY q.batch_id", batches
    )
    assert [batch_id for batch_id, _ in quarantined] == bad
    assert all(error for _, error in quarantined)
    assert metering.value("SELECT quarantined_batches FROM usage_totals") == before + 3
    assert aggregator.progress.poisoned == 3
    assert aggregator.progress.flushes <= (3 if hints else 11), "the good batches were counted one by one"
    assert guesses[0] == batches[2]
    assert set(guesses) == {batches[2], batches[25]}
    assert len(guesses) <= (4 if hints else 12)
    assert counted(metering, organization_id, metrics["poison"]) == 270


def unwritable(metering: Metering, batch_id: str) -> bytes:
    """The batch's payload with a key that can be read and not be written."""
    good = unpack(metering.value("SELECT payload FROM usage_batches WHERE id = %s", batch_id))
    keys = [b"a\x00b", *good.texts.all_keys()[1:]]
    return pack(replace(good, texts=texts(keys, good.texts.all_properties())))


@pytest.mark.parametrize("bad", [{0}, {99}, {37}, {37, 38}, {0, 50, 99}, set(range(100))])
def test_what_makes_a_flush_fail_is_found_in_few_flushes(bad: set[int]) -> None:
    counted, quarantined, failed, work = halved(range(100), lambda batches: bool(bad & set(batches)))
    assert quarantined == sorted(bad)
    assert counted == [number for number in range(100) if number not in bad], "fates follow the order of the log"
    assert failed <= 8 * len(bad)
    assert work <= 100 + 210 * len(bad)


@pytest.mark.parametrize("bad", [{0}, {99}, {37}, {37, 38}, set(range(100))])
def test_a_batch_that_is_suspected_rightly_costs_one_more_failure(bad: set[int]) -> None:
    def guess(batches: Sequence[int]) -> int:
        return next(place for place, number in enumerate(batches) if number in bad)

    counted, quarantined, failed, _ = halved(range(100), lambda batches: bool(bad & set(batches)), guess)
    assert quarantined == sorted(bad)
    assert counted == [number for number in range(100) if number not in bad]
    assert failed <= 2 * len(bad)


@given(st.lists(st.integers(1, 9), max_size=60), st.integers(4, 40), st.randoms(use_true_random=False), st.booleans())
def test_batches_that_fail_in_company_alone_are_all_counted(weights: list[int], too_much: int, rng: random.Random, guessing: bool) -> None:
    """Whatever fails for its sum, like quantities too big to add, and wrong suspicion: what is too much by itself is set aside alone."""
    guess = (lambda batches: rng.choice([None, rng.randrange(len(batches))])) if guessing else None
    counted, quarantined, _, _ = halved(range(len(weights)), lambda batches: sum(weights[number] for number in batches) > too_much, guess)
    assert quarantined == [number for number, weight in enumerate(weights) if weight > too_much]
    assert counted == [number for number, weight in enumerate(weights) if weight <= too_much]


def halved(
    log: Sequence[int], fails: Callable[[Sequence[int]], bool], guess: Callable[[Sequence[int]], int | None] | None = None
) -> tuple[list[int], list[int], int, int]:
    """What becomes of a log whose flushes fail like that: counted, quarantined, how many flushes failed, batches of all flushes."""
    halving, waiting, counted, quarantined = Halving(), list(log), list[int](), list[int]()
    failed = work = 0
    while waiting:
        taken = waiting[: halving.next(100)]
        work += len(taken)
        if not fails(taken):
            counted += taken
            halving.counted()
        else:
            failed += 1
            halving.failed(len(taken), guess(taken) if guess else None)
            if len(taken) > 1:
                continue
            quarantined += taken
        del waiting[: len(taken)]
    assert not halving
    return counted, quarantined, failed, work


@pytest.mark.parametrize("told", [True, False], ids=["in the database", "in the process"])
@pytest.mark.parametrize("store", [SegmentStore, KeyTable])
def test_keys_of_a_flush_that_failed_count_once_afterwards(
    metering: Metering, metrics: dict[str, uuid.UUID], store: Any, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of poison flushes come again in them, behind them and in those prepared on top: fates are those of a log without poison.

    Also when PostgreSQL hears nothing of the failure, while the flush on top waits for a key of the one that failed.
    """
    organization_id, token = metering.organization()
    events = [[event("again", f"a{n}-{i}") for i in range(20)] for n in range(40)]
    sent = [(n, metering.send(token, events[n])["batch_id"]) for n in (*range(12), *range(6, 12), *range(40))]
    bad = {sent[3][1], sent[40][1]}
    if told:
        poison(metering, *bad)
    else:
        monkeypatch.setattr(flushes, "write", failing_late(bad))
    fates: dict[str, tuple[int, int, int]] = {}
    seen: set[int] = set()
    for n, batch_id in sent:
        if batch_id not in bad:
            fates[batch_id] = (0, 20, 0) if n in seen else (20, 0, 0)
            seen.add(n)
    aggregator = metering.count(store)
    found = metering.rows(
        "SELECT batch_id::text, counted, cardinality(duplicates), cardinality(conflicts) FROM usage_batch_results"
        " WHERE batch_id = ANY(%s::bigint[])",
        [batch_id for _, batch_id in sent],
    )
    assert {batch_id: tuple(fate) for batch_id, *fate in found} == fates
    assert aggregator.progress.poisoned == 2
    assert counted(metering, organization_id, metrics["again"]) == 20 * len(seen)


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("step", ["take", "write", "quarantine"])
def test_killing_the_search_for_poison_loses_and_doubles_nothing(
    metering: Metering, metrics: dict[str, uuid.UUID], step: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 the first time the aggregator comes by, then the second time and so on, until it gets through."""
    organization_id, token = metering.organization()
    events = [[event("halved", f"h{n}-{i}", quantity=n) for i in range(10)] for n in range(15)]
    sent = [metering.send(token, events[n % 15])["batch_id"] for n in range(20)]
    poison(metering, sent[4], sent[13])
    kills = 0
    while not metering.is_counted():
        with monkeypatch.context() as patched:
            patched.setattr(aggregate, "suspect", lambda *_: None)
            patched.setattr(flushes, step, fatal(getattr(flushes, step), kills, before=before))
            process = multiprocessing.get_context("fork").Process(target=metering.aggregator(SegmentStore()).run)
            process.start()
        metering.until(lambda process=process: not process.is_alive() or metering.is_counted())
        process.kill()
        process.join(10)
        kills += 1
        assert kills < 40
    assert kills > 2, "it was not killed on the way"
    fates = metering.rows("SELECT counted, cardinality(duplicates) FROM usage_batch_results WHERE batch_id = ANY(%s::bigint[])", sent)
    assert sorted(fates) == [(0, 10)] * 4 + [(10, 0)] * 14
    assert counted(metering, organization_id, metrics["halved"]) == sum(10 * n for n in range(15) if n != 13)
    assert metering.value("SELECT count(*) FROM usage_quarantine WHERE batch_id = ANY(%s::bigint[])", sent) == 2


def failing_late(bad: set[str]) -> Callable[..., None]:
    """flushes.write, which fails before it has written anything when one of these batches is in the flush."""
    original = flushes.write

    def write(line: Any, batches: Sequence[Batch], *given: Any, **named: Any) -> None:
        if any(str(batch.id) in bad for batch in batches):
            time.sleep(0.1)
            raise TypeError("a batch that nobody can write")
        original(line, batches, *given, **named)

    return write


def fatal(original: Callable[..., Any], times: int, *, before: bool) -> Callable[..., Any]:
    """The function, which kills its process before or behind the next call when it has been called so often without an error."""
    done = 0

    def called(*given: Any, **named: Any) -> Any:
        nonlocal done
        if before and done == times:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = original(*given, **named)
        if not before and done == times:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        return answer

    return called


def poison(metering: Metering, *batches: str) -> None:
    """Make the batches unwritable."""
    for batch_id in batches:
        payload = unwritable(metering, batch_id)
        metering.rows("UPDATE usage_batches SET payload = %s WHERE id = %s RETURNING id", payload, batch_id)


def test_quantities_too_big_to_add_in_one_flush_are_exact(metering: Metering, metrics: dict[str, uuid.UUID]) -> None:
    organization_id, token = metering.organization()
    for part in range(12):
        metering.send(
            token,
            [event("calls", f"big{part}-{i}", quantity="99999999999999.999999999999") for i in range(10_000)][: 4_000 if part else 10_000],
        )
    metering.count()
    assert counted(metering, organization_id, metrics["calls"]) == Decimal("99999999999999.999999999999") * (10_000 + 11 * 4_000)
