"""The stores of keys against a plain dict, with tables so small that every collision and overflow happens."""

from __future__ import annotations

import contextlib
import random
from datetime import date
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.metering import dedup
from core.metering.columns import Columns
from core.metering.dedup import SegmentStore
from core.metering.entries import ENTRY, HASHES, PROBING, distinct, entries, mixed
from core.metering.slots import Table
from core.metering.texts import texts
from tests.metering.conftest import Metering

DAY = date(2026, 6, 15)


class Segments:
    """Stands in for the connection: keeps what was written, gives it back to load()."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, date, bytes]] = []
        self.last = 0

    def transaction(self) -> Any:
        """Nothing to begin."""
        return contextlib.nullcontext()

    def execute(self, statement: str, values: tuple[Any, ...], **_: Any) -> Any:
        if statement.startswith("INSERT"):
            self.last += 1
            self.rows.append((self.last, values[0], values[2]))
            return type("Cursor", (), {"fetchone": lambda _self: (self.last,)})()
        if "usage_dedup_runs" in statement:
            return ()
        last, since, limit = values
        found = [row for row in self.rows if row[0] > last and row[1] >= since][:limit]
        return type("Cursor", (), {"fetchall": lambda _self: found})()


def keyed(numbers: list[int], fingerprint: int = 0) -> Any:
    """Entries whose hash words are crowded together, so that slots collide and high words repeat."""
    rows = np.zeros(len(numbers), ENTRY)
    rows["high"] = np.array(numbers, np.uint64) // 3 + 1
    rows["low"] = np.array(numbers, np.uint64)
    rows["fingerprint"] = fingerprint
    return rows


@pytest.mark.parametrize("seed", range(6))
def test_claims_equal_a_dict(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(dedup, "SLOTS_FIRST", 16)
    monkeypatch.setattr(dedup, "SLOTS_MAX", 64)
    rng = random.Random(seed)
    segments: Any = Segments()
    store, known = SegmentStore(), dict[int, int]()
    for round_ in range(40):
        numbers = [rng.randrange(600) for _ in range(rng.randrange(1, 60))]
        claim = store.claim(segments, keyed(numbers, round_), DAY)
        for number, first, fingerprint in zip(numbers, claim.first.tolist(), claim.fingerprints.tolist(), strict=True):
            assert first == (number not in known)
            assert known.setdefault(number, round_) == fingerprint
        if round_ % 10 == 9:
            store = SegmentStore()
            assert store.load(segments, DAY) == len(known)


@given(st.lists(st.tuples(st.lists(st.integers(0, 90), max_size=40), st.integers(0, 2)), max_size=25))
@settings(max_examples=200)
def test_claims_that_were_undone_leave_no_trace(steps: list[tuple[list[int], int]]) -> None:
    """Random claims, of which the last one or two are undone now and then, against a dict; and the tables bit for bit."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dedup, "SLOTS_FIRST", 16)
        patched.setattr(dedup, "SLOTS_MAX", 64)
        segments: Any = Segments()
        store, known, before = SegmentStore(), dict[int, int](), list[Any]()
        for step, (numbers, undone) in enumerate(steps):
            before = [*before[-1:], (store.claims, dict(known), state(store), list(segments.rows))]
            claim = store.claim(segments, keyed(numbers, step), DAY)
            for number, first, fingerprint in zip(numbers, claim.first.tolist(), claim.fingerprints.tolist(), strict=True):
                assert first == (number not in known)
                assert known.setdefault(number, step) == fingerprint
            if 0 < undone <= len(before):
                claims, known, was, segments.rows = before[-undone]
                store.undo(claims)
                assert state(store) == was
                before = []
        loaded = SegmentStore()
        assert loaded.load(segments, DAY) == len(known)


def state(store: SegmentStore) -> list[tuple[int, list[int], list[int]]]:
    """What the tables hold, slot by slot."""
    return [(table.used, table._high.tolist(), np.where(table._high > 0, table._low, 0).tolist()) for table in store._tables]


def test_claims_that_were_committed_cannot_be_undone() -> None:
    segments: Any = Segments()
    store = SegmentStore()
    for number in range(4):
        store.claim(segments, keyed([number]), DAY)
    with pytest.raises(RuntimeError):
        store.undo(1)
    store.undo(2)
    assert store.claim(segments, keyed([0, 1, 2, 3]), DAY).first.tolist() == [False, False, True, True]


@pytest.mark.parametrize("memory_mib", [0, 0.02], ids=["no filters", "filters"])
def test_claims_that_sealed_a_table_are_undone(metering: Metering, monkeypatch: pytest.MonkeyPatch, memory_mib: float) -> None:
    """Of many small flushes, each prepared while the one before is uncommitted, some fail, alone or with the one before.

    Each is so small that no two in a row seal a table: the second would wait for the first, which here nobody commits meanwhile.
    """
    monkeypatch.setattr(dedup, "SLOTS_FIRST", 256)
    monkeypatch.setattr(dedup, "SLOTS_MAX", 256)
    rng, known, seals_undone = random.Random(f"undo {memory_mib}"), dict[int, int](), 0
    store: Any = SegmentStore(memory_mib)
    first = rng.randrange(2**40)
    with psycopg.connect(metering.url, autocommit=True) as a, psycopg.connect(metering.url, autocommit=True) as b:
        store.load(a, date.max)
        lines: list[Any] = [a, b]
        before: list[tuple[int, dict[int, int]]] = []
        for round_ in range(300):
            line, other = lines
            line.execute("BEGIN")
            before = [*before[-1:], (store.claims, dict(known))]
            numbers = [first + rng.randrange(9_000) for _ in range(rng.randrange(1, 88))]
            rows = keyed(numbers, round_)
            rows["high"] = mixed(rows["high"])
            claim = store.claim(line, rows, DAY)
            for number, is_first, fingerprint in zip(numbers, claim.first.tolist(), claim.fingerprints.tolist(), strict=True):
                assert is_first == (number not in known)
                assert known.setdefault(number, round_) == fingerprint
            failing = rng.choice([0, 0, 0, 1, 2])
            if failing < 2:
                other.execute("COMMIT")
            if failing:
                a.rollback()
                b.rollback()
                sealed = len(store._runs)
                claims, known = before[-failing:][0]
                store.undo(claims)
                seals_undone += sealed - len(store._runs)
                before = []
            lines.reverse()
            if round_ % 40 == 39:
                line.execute("COMMIT")
                store, before = SegmentStore(memory_mib), []
                assert store.load(a, DAY) >= len(known)
    assert seals_undone > 5


@pytest.mark.parametrize("memory_mib", [0, 0.02], ids=["no filters", "filters"])
def test_keys_that_left_memory_are_known(metering: Metering, monkeypatch: pytest.MonkeyPatch, memory_mib: float) -> None:
    """A hundred small flushes, each prepared while the one before is still uncommitted, and a restart now and then."""
    monkeypatch.setattr(dedup, "SLOTS_FIRST", 256)
    monkeypatch.setattr(dedup, "SLOTS_MAX", 256)
    rng, known = random.Random(f"{memory_mib}"), dict[int, int]()
    store: Any = SegmentStore(memory_mib)
    first = rng.randrange(2**40)
    with psycopg.connect(metering.url, autocommit=True) as a, psycopg.connect(metering.url, autocommit=True) as b:
        store.load(a, date.max)
        lines: list[Any] = [a, b]
        for round_ in range(100):
            line, other = lines
            line.execute("BEGIN")
            numbers = [first + rng.randrange(9_000) for _ in range(rng.randrange(1, 120))]
            rows = keyed(numbers, round_)
            rows["high"] = mixed(rows["high"])
            claim = store.claim(line, rows, DAY)
            for number, is_first, fingerprint in zip(numbers, claim.first.tolist(), claim.fingerprints.tolist(), strict=True):
                assert is_first == (number not in known)
                assert known.setdefault(number, round_) == fingerprint
            other.execute("COMMIT")
            lines.reverse()
            if round_ % 30 == 29:
                line.execute("COMMIT")
                store = SegmentStore(memory_mib)
                assert store.load(a, DAY) >= len(known)
                assert len(store._runs) > 3
                assert store.bytes <= 2 * 256 * dedup.SLOT_BYTES + memory_mib * 2**20


def test_keys_received_too_long_ago_are_not_read_back() -> None:
    segments: Any = Segments()
    SegmentStore().claim(segments, keyed([1, 2]), date(2026, 1, 1))
    SegmentStore().claim(segments, keyed([3]), DAY)
    assert SegmentStore().load(segments, date(2026, 6, 1)) == 1


def test_a_table_is_dropped_when_all_its_keys_have_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "SLOTS_FIRST", 16)
    segments: Any = Segments()
    store = SegmentStore()
    store.claim(segments, keyed(list(range(11))), date(2026, 1, 1))
    store.claim(segments, keyed(list(range(100, 105))), DAY)
    store.forget(date(2026, 6, 1))
    again = store.claim(segments, keyed([0, 5, 100, 104]), DAY)
    assert again.first.tolist() == [True, True, False, False]


def columns(**changed: Any) -> Columns:
    """Two events that differ in their key alone."""
    given: dict[str, Any] = {
        "organizations": np.array([7, 7], np.int32),
        "events": np.array([1, 1], np.int32),
        "timestamps": np.array([10, 10], np.int64),
        "defaulted": np.array([False, False]),
        "wholes": np.array([1, 1], np.int64),
        "fractions": np.array([0, 0], np.int64),
        "positions": np.array([0, 1], np.int16),
    }
    keys, properties = changed.pop("keys", [b"a", b"b"]), changed.pop("properties", [b"{}", b"{}"])
    return Columns(**{**given, **changed}, texts=texts(keys, properties))


def test_the_key_alone_makes_the_hash_and_the_rest_the_fingerprint() -> None:
    base = entries(columns(), 5)
    assert base["low"][0] != base["low"][1]
    assert base["fingerprint"][0] == base["fingerprint"][1]
    for name, value in (
        ("timestamps", [10, 11]),
        ("wholes", [1, 2]),
        ("fractions", [0, 1]),
        ("events", [1, 2]),
        ("properties", [b"{}", b"[]"]),
    ):
        changed = entries(columns(**{name: value if name == "properties" else np.array(value, np.int64)}), 5)
        assert (changed[["high", "low"]] == base[["high", "low"]]).all()
        assert changed["fingerprint"][0] != changed["fingerprint"][1], name


def test_a_timestamp_that_was_left_out_is_no_content() -> None:
    changed = entries(columns(timestamps=np.array([10, 99]), defaulted=np.array([True, True])), 5)
    assert changed["fingerprint"][0] == changed["fingerprint"][1]


def test_organizations_and_installations_do_not_share_hashes() -> None:
    same_key = columns(keys=[b"a", b"a"], organizations=np.array([7, 8], np.int32))
    rows = entries(same_key, 5)
    assert rows["low"][0] != rows["low"][1]
    assert entries(same_key, 6)["low"][0] != rows["low"][0]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_keys_are_hashed_alike_with_and_without_compiled_code(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every length that the hash treats in another way, up to the longest key and longer properties."""
    lengths = [*range(1, 260), 511, 512, 1_024, 1_025, 4_000]
    keys = [bytes(33 + (i * 7 + length) % 90 for i in range(min(length, 255))) for length in lengths]
    properties = [b'{"a":"%s"}' % bytes(33 + (i + length) % 57 for i in range(length)) for length in lengths]
    rows = np.arange(len(keys), dtype=np.int64)
    half, flags = rows.astype(np.int32), rows % 2 == 0
    columns = Columns(half, half[::-1].copy(), rows + 10**15, flags, rows, rows * 10**9, rows.astype(np.int16), texts(keys, properties))
    assert HASHES.load()
    compiled = entries(columns, seed)
    monkeypatch.setattr(HASHES, "_module", None)
    assert len(columns) < 1_000
    assert entries(columns, seed).tobytes() == compiled.tobytes()


@pytest.mark.parametrize("code", [True, False], ids=["compiled", "plain"])
@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=30), max_size=5))
def test_a_table_knows_what_was_put_into_it(code: bool, rounds: list[list[int]]) -> None:
    """Numbers below 41 all want one of a few slots, so that every way of colliding comes up."""
    table, known = Table(64), dict[int, int]()
    assert PROBING.load()
    with pytest.MonkeyPatch.context() as patch:
        if not code:
            patch.setattr(PROBING, "_module", None)
        for round_, numbers in enumerate(rounds):
            rows = np.zeros(len(numbers), ENTRY)
            rows["high"], rows["low"], rows["fingerprint"] = [1 + number % 3 * 64 for number in numbers], numbers, round_
            first, which = distinct(rows)
            assert rows["low"][first][which].tolist() == numbers
            assert sorted(first.tolist()) == sorted({number: numbers.index(number) for number in numbers}.values())
            keys = rows[first]
            found, fingerprints = table.find(keys)
            assert found.tolist() == [number in known for number in keys["low"].tolist()]
            assert all(fingerprints[i] == known[number] for i, number in enumerate(keys["low"].tolist()) if found[i])
            table.insert(keys[~found], DAY)
            for number in keys["low"].tolist():
                known.setdefault(number, round_)
    assert (table.used, sorted(table.all()["low"].tolist())) == (len(known), sorted(known))
