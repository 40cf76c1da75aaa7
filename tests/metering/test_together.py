"""Requests of one event that are judged and stored together are each told what they would have been told alone."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.db import transaction
from core.errors import BillingError, NotFound, Unavailable
from core.metering import bodies, careful, compiled, lone, queries
from core.metering.accept import Verdict
from core.metering.bodies import Form
from core.metering.columns import Lone, pack, unpack
from core.metering.directory import Principal
from core.metering.rates import Rates
from core.metering.together import ALONE_SECONDS_MAX, GATHERED_MIN, Single, Together
from tests.metering.conftest import Metering
from tests.metering.test_roads import NOW, OWN, WINDOW, FixedDirectory

SECONDS_MAX = 30.0
PLATFORM, ACME = (
    Principal(key_id=uuid.UUID(int=n), organization_id=organization, scopes=frozenset({"usage:write"}), revoked_at=None, expires_at=None)
    for n, organization in ((1, None), (2, OWN.id))
)


class Memory:
    """A log that keeps verdicts in memory, packed as they would be stored."""

    def __init__(self) -> None:
        self.batches: list[tuple[Verdict, bytes]] = []
        self.refuse: BillingError | None = None

    def begin(self, verdict: Verdict) -> Any:
        if self.refuse is not None:
            raise self.refuse
        assert verdict.accepted is not None
        self.batches.append((verdict, pack(verdict.accepted)))
        return Done(len(self.batches) - 1)

    def append(self, verdict: Verdict) -> int | None:
        found: int | None = self.begin(verdict).result()
        return found

    def close(self) -> None:
        pass


class Done:
    def __init__(self, batch_id: int) -> None:
        self._batch_id = batch_id

    def result(self) -> int:
        return self._batch_id


def admit(authorization: str) -> Principal:
    found = {"platform": PLATFORM, "acme": ACME}.get(authorization)
    if found is None:
        raise BillingError("There is no such key.")
    return found


def told(log: Any, requests: Sequence[tuple[str, bytes]], directory: Any = None) -> list[Single]:
    """The outcome of requests that all came before the first was looked at."""
    directory = directory or FixedDirectory()
    singles = [Single(authorization, body, None) for authorization, body in requests]
    delivered: list[Single] = []
    together = Together(
        directory, Rates(10_000_000), log, window=WINDOW, now=lambda: NOW, admit=admit, deliver=lambda some: delivered.extend(some)
    )
    for single in singles:
        together.take(single)
    together.start()
    together.close()
    assert sorted(map(id, delivered)) == sorted(map(id, singles)), "each is told once"
    return singles


def event(key: str, **given: Any) -> bytes:
    return json.dumps({"metric_name": "calls", "organization_id": "acme", "idempotency_key": key, **given}).encode()


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    assert compiled.SCAN.load()


def stored_alone(log: Memory, single: Single) -> Any:
    """What the log holds at the place that a request was told, as it would be without the others."""
    assert single.stored is not None
    verdict, payload = log.batches[single.stored.batch_id]
    columns = unpack(payload)
    place = columns.positions.tolist().index(single.stored.position)
    assert list(verdict.fed)[place] == single.stored.codes
    return [getattr(columns, name)[place] for name in ("organizations", "events", "timestamps", "defaulted", "wholes", "fractions")] + [
        columns.texts.all_keys()[place],
        columns.texts.all_properties()[place],
    ]


def test_requests_of_one_key_become_one_batch() -> None:
    log = Memory()
    singles = told(log, [("platform", event(f"key-{i}", quantity=f"{i}.5")) for i in range(20)])
    assert [(single.stored and single.stored[:2]) for single in singles] == [(0, i) for i in range(20)]
    assert [stored_alone(log, single)[4:7] for single in singles] == [[i, 5 * 10**11, f"key-{i}".encode()] for i in range(20)]
    assert log.batches[0][0].api_key_id == PLATFORM.key_id


def test_few_are_judged_one_by_one() -> None:
    log = Memory()
    singles = told(log, [("platform", event(f"key-{i}")) for i in range(GATHERED_MIN - 1)])
    assert [(single.stored and single.stored[:2]) for single in singles] == [(i, 0) for i in range(GATHERED_MIN - 1)]
    assert all(isinstance(verdict.accepted, Lone) for verdict, _ in log.batches)


def test_keys_share_no_batch() -> None:
    log = Memory()
    keys = ["platform", "acme", "stranger"]
    singles = told(log, [(keys[i % 3], event(f"key-{i}")) for i in range(18)])
    assert {key: {single.stored and single.stored.batch_id for single in singles[place::3]} for place, key in enumerate(keys)} == {
        "platform": {0},
        "acme": {1},
        "stranger": {None},
    }
    assert [verdict.organization_id for verdict, _ in log.batches] == [None, OWN.id]


def test_what_needs_a_closer_look_is_given_back_and_harms_nobody() -> None:
    log = Memory()
    odd = [event("odd-1", metric_name="nothing"), b'{"a":1}', b"{", event("odd-2", organization_id="nobody"), event("odd-3", quantity=-1)]
    singles = told(
        log, [("platform", body) for i in range(10) for body in ([event(f"key-{i}"), odd[i]] if i < len(odd) else [event(f"key-{i}")])]
    )
    given_back = [single.body for single in singles if single.stored is None]
    assert given_back == odd
    assert all(single.error is None for single in singles)
    assert sorted(stored_alone(log, single)[6] for single in singles if single.stored) == [f"key-{i}".encode() for i in range(10)]


@pytest.mark.parametrize(
    "tricks",
    [
        [event("a") + event("b"), b"{}"],
        [event("a") + b"\r" + event("b"), b"{}"],
        [event("a") + b" " + event("b"), b"{}"],
        [b'{"metric_name":"calls","organization_id":"acme",', b'"idempotency_key":"half"}', event("c") + event("d")],
        [b'{"metric_name":"calls","organization_id":"acme","idempotency_key":"half', b'"}', event("c") + event("d")],
        [b'{"metric_name":"calls","organization_id":"acme","idempotency_key":"x","properties":{"a":', b'"b"}}', b"{}"],
    ],
)
def test_no_request_speaks_for_another(tricks: list[bytes]) -> None:
    log = Memory()
    honest = [event(f"key-{i}") for i in range(6)]
    for order in (honest + tricks, tricks + honest):
        singles = told(log, [("platform", body) for body in order])
        assert [single.body for single in singles if single.stored] == honest
        assert [stored_alone(log, single)[6] for single in singles if single.stored] == [f"key-{i}".encode() for i in range(6)]


def test_a_key_that_takes_long_to_judge_holds_up_nobody() -> None:
    class Slow(FixedDirectory):
        asked = 0

        def accounts(self, references: Any) -> Any:
            self.asked += 1
            time.sleep(ALONE_SECONDS_MAX / 4)
            return super().accounts(references)

    directory, log = Slow(), Memory()
    strange = [event(f"strange-{i}", organization_id=f"nobody-{i}") for i in range(100)]
    requests = [("platform", body) for body in strange] + [("acme", event(f"key-{i}")) for i in range(5)]
    singles = told(log, requests, directory)
    assert [single.stored is not None for single in singles] == [False] * 100 + [True] * 5
    assert directory.asked < 20


def test_a_log_that_refuses_is_told_to_each() -> None:
    log = Memory()
    log.refuse = Unavailable("Usage cannot be stored right now.")
    singles = told(log, [("platform", event(f"key-{i}")) for i in range(6)])
    assert [single.error for single in singles] == [log.refuse] * 6


def test_a_fault_of_ours_ends_no_thread() -> None:
    class Broken(Memory):
        def begin(self, verdict: Verdict) -> Any:
            class Pending:
                def result(self) -> int:
                    raise ZeroDivisionError

            return Pending()

    singles = told(Broken(), [("platform", event(f"key-{i}")) for i in range(6)])
    assert all(isinstance(single.error, ZeroDivisionError) for single in singles)


names = st.sampled_from(["calls", "plain", "llm", "nothing"])
quantities = st.one_of(st.integers(-2, 10**15), st.decimals("-1", "1000", places=3).map(str), st.just("0.1234567890123"), st.none())
timestamps = st.sampled_from(
    ["2026-06-15T11:59:00Z", "2026-06-15T13:59:00+02:00", "2026-01-01T00:00:00Z", "yesterday", "2026-06-15T12:04:59.123456Z"]
)
properties = st.dictionaries(
    st.sampled_from(["region", "tokens", "ü", ""]), st.one_of(st.just("eu"), st.integers(0, 9), st.none(), st.just([1])), max_size=3
)
events = st.fixed_dictionaries(
    {"metric_name": names, "organization_id": st.sampled_from(["acme", "clocked", "nobody"])},
    optional={"quantity": quantities, "timestamp": timestamps, "properties": properties},
)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(["platform", "acme"]), events), min_size=1, max_size=12), st.sampled_from([(",", ":"), (", ", ": ")])
)
def test_together_as_alone(requests: list[tuple[str, Any]], separators: tuple[str, str]) -> None:
    """What is stored is what the careful road accepts, event by event; and what the lone road accepts is stored."""
    log, directory = Memory(), FixedDirectory()
    given_: list[tuple[str, bytes]] = [
        (key, json.dumps({**one, "idempotency_key": f"key-{i}"}, separators=separators, ensure_ascii=False).encode())
        for i, (key, one) in enumerate(requests)
    ]
    for single in told(log, given_):
        own = OWN if single.authorization == "acme" else None
        reference: Any = directory
        accepted, fed, refused = careful.judge(reference, own, bodies.cut(single.body, Form.JSON), window=WINDOW, at=NOW)
        if single.stored is None:
            assert lone.judge(reference, own, single.body, window=WINDOW, at=NOW) is None
            continue
        assert refused == ()
        assert accepted is not None
        assert [single.stored.codes] == fed
        alone = Memory()
        alone.append(Verdict(1, accepted, fed, (), None, PLATFORM.key_id))
        like = Single("", b"", None)
        like.stored = single.stored._replace(batch_id=0, position=0)
        assert stored_alone(log, single) == stored_alone(alone, like)


@pytest.fixture
def arrived(metering: Metering) -> Iterator[Any]:
    """Sends requests together through the real directory and the real log; what each was told."""
    delivered = threading.Semaphore(0)
    together = metering.endpoint.together(lambda some: delivered.release(len(some)))
    started = False

    def send(requests: Sequence[tuple[str, bytes]]) -> list[Single]:
        nonlocal started
        singles = [Single(f"Bearer {token}", body, None) for token, body in requests]
        for single in singles:
            together.take(single)
        if not started:
            together.start()
            started = True
        assert all(delivered.acquire(timeout=SECONDS_MAX) for _ in singles)
        return singles

    yield send
    together.close()


def test_stored_together_and_counted_once(metering: Metering, arrived: Any) -> None:
    organization, token = metering.organization()
    _, other_token = metering.organization()
    metric = metering.metric("together")
    ours = [json.dumps({"metric_name": "together", "idempotency_key": f"t-{i % 30}", "quantity": "1.25"}).encode() for i in range(40)]
    theirs = [json.dumps({"metric_name": "together", "idempotency_key": f"t-{i}", "quantity": 7}).encode() for i in range(5)]
    assert all(single.stored is None and single.error is None for single in arrived([(token, ours[0])])), "a key nobody used is looked at"
    for key in (token, other_token):
        metering.send(key, {"metric_name": "together", "idempotency_key": "known", "quantity": 1})
    singles = arrived([(token, body) for body in ours] + [(other_token, body) for body in theirs])
    assert all(single.stored for single in singles)
    assert len({single.stored.batch_id for single in singles}) == 2
    metering.count()
    day = datetime.now(UTC)
    [sums] = metering.sums([(organization, metric, day - timedelta(days=1), day + timedelta(days=1))])
    assert sums == 1 + 30 * 125 / 100
    assert metering.value("SELECT duplicates FROM usage_batch_results WHERE batch_id = %s", singles[0].stored.batch_id) == list(
        range(30, 40)
    )


def test_each_reads_what_became_of_its_own_event(metering: Metering, arrived: Any) -> None:
    organization, token = metering.organization()
    stranger, _ = metering.organization()
    metering.metric("apart")
    metering.send(token, {"metric_name": "apart", "idempotency_key": "known", "quantity": 1})
    quantities = {"new-1": 1, "known": 1, "new-2": 2, "new-1 again": 1, "other": 5}
    bodies_ = [
        json.dumps({"metric_name": "apart", "idempotency_key": key.split()[0], "quantity": quantity}).encode()
        for key, quantity in {**quantities, "conflict": 9}.items()
    ]
    bodies_[-1] = bodies_[-1].replace(b"conflict", b"known")
    found = arrived([(token, body) for body in bodies_])
    references = [f"{single.stored.batch_id}-{single.stored.position}" for single in found]
    with metering.app.app_context(), transaction() as session:
        assert {queries.batch(session, organization, reference).status for reference in references} == {"pending"}
    metering.count()
    with metering.app.app_context(), transaction() as session:
        read = [queries.batch(session, organization, reference) for reference in references]
        assert [one.id for one in read] == references
        assert [(one.accepted, one.rejected, one.counted) for one in read] == [(1, 0, n) for n in (1, 0, 1, 0, 1, 0)]
        assert [one.duplicates for one in read] == [(), (0,), (), (0,), (), ()]
        assert [one.conflicts for one in read] == [(), (), (), (), (), (0,)]
        whole = queries.batch(session, organization, references[0].partition("-")[0])
        assert (whole.accepted, whole.counted, whole.duplicates, whole.conflicts) == (6, 3, (1, 3), (5,))
        for whose, reference in (
            (stranger, references[0]),
            (organization, f"{whole.id}-6"),
            (organization, f"{whole.id}-"),
            (organization, "x"),
        ):
            with pytest.raises(NotFound):
                queries.batch(session, whose, reference)


def test_a_revoked_key_is_given_back(metering: Metering, arrived: Any) -> None:
    organization, token = metering.organization()
    metering.metric("revoked")
    metering.send(token, {"metric_name": "revoked", "idempotency_key": "known"})
    body = json.dumps({"metric_name": "revoked", "idempotency_key": "r-1"}).encode()
    assert arrived([(token, body)])[0].stored is not None
    metering.rows("UPDATE api_keys SET revoked_at = now() WHERE organization_id = %s RETURNING id", organization)
    metering.until(lambda: metering.post(token, body)[0] == 401)
    assert arrived([(token, body)])[0].stored is None
