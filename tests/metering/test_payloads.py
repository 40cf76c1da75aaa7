"""What the log holds comes back as it was accepted, in the form of today and in those of earlier releases."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from core.metering.chosen import WEAVE, Chosen, Row
from core.metering.columns import NUMBERS, Columns, Corrupt, pack, unpack
from core.metering.narrow import NARROWING, narrow, widened
from core.metering.texts import texts

INTEGERS = st.sampled_from([np.int8, np.int16, np.int32, np.int64])


def columns(events: int) -> Columns:
    rows = np.arange(events, dtype=np.int64)
    return Columns(
        (rows * 7 % 1_000).astype(np.int32),
        (rows % 3).astype(np.int32),
        1_750_000_000_000_000 + rows * 1_000,
        rows % 5 == 0,
        rows * 10**13 // max(events, 1),
        rows % 2 * 500_000_000_000,
        rows.astype(np.int16)[::-1].copy(),
        texts([b"k%d" % row for row in rows], [b'{"n":%d}' % row for row in rows], {1: "GB"}, {0: bytes(16)}),
    )


def assert_same(found: Columns, wanted: Columns) -> None:
    for name in NUMBERS:
        ours, theirs = getattr(found, name), getattr(wanted, name)
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()
    assert found.texts.pieces() == wanted.texts.pieces()
    assert found.texts.all_keys() == wanted.texts.all_keys()


@pytest.mark.parametrize("events", [2, 3, 50])
def test_a_payload_comes_back(events: int) -> None:
    assert_same(unpack(pack(columns(events))), columns(events))


@pytest.mark.parametrize("events", [2, 50])
def test_payloads_of_earlier_releases_come_back(events: int) -> None:
    wanted = columns(events)
    numbers = [getattr(wanted, name).tobytes() for name in NUMBERS]
    sizes = [column.tobytes() for column in (wanted.texts.sizes, wanted.texts.key_places, wanted.texts.key_sizes)]
    wide = msgspec.msgpack.encode([*numbers, *sizes, wanted.texts.data])
    lists = msgspec.msgpack.encode([*numbers, wanted.texts.all_keys(), wanted.texts.all_properties(), {1: "GB"}, {0: bytes(16)}])
    for payload in (b"\x02" + zstandard.compress(wide), zstandard.compress(lists)):
        assert_same(unpack(payload), wanted)


@given(st.binary(max_size=40))
def test_a_payload_that_is_none_is_corrupt(data: bytes) -> None:
    for payload in (b"\x04" + data, b"\x04" + zstandard.compress(data), b"\x02" + data, data):
        with pytest.raises(Corrupt):
            unpack(payload)


@pytest.mark.parametrize("code", [True, False], ids=["compiled", "plain"])
@given(st.data(), INTEGERS)
def test_a_narrow_column_is_the_same_column(code: bool, data: st.DataObject, kind: Any) -> None:
    assert NARROWING.load()
    half = min(np.iinfo(kind).max, 2**61)
    unit = data.draw(st.sampled_from([1, 1_000, 10**6, 10**9, 10**12]))
    elements = st.integers(-half // unit, half // unit)
    column = data.draw(arrays.arrays(np.int64, st.integers(1, 40), elements=elements)) * unit
    with pytest.MonkeyPatch.context() as patch:
        if not code:
            patch.setattr(NARROWING, "_module", None)
        found = widened(narrow(column.astype(kind)), len(column), kind)
    assert (found.tolist(), found.dtype) == (column.astype(kind).tolist(), np.dtype(kind))


@pytest.mark.parametrize("code", [True, False], ids=["compiled", "plain"])
def test_narrow_columns_are_narrow(code: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert NARROWING.load()
    if not code:
        monkeypatch.setattr(NARROWING, "_module", None)
    assert len(narrow(np.full(1_000, 12))[3]) == 0
    assert len(narrow(10**15 + 10**9 * np.arange(200))[3]) == 200
    assert len(narrow(np.array([0, 2**40]))[3]) == 16


@pytest.mark.parametrize("stored", [(0, 1, 3, b"abc"), (0, 1, 2, b"abc"), (0, 1, 1, b"ab")])
def test_a_column_of_another_length_is_refused(stored: Any) -> None:
    with pytest.raises(ValueError, match="column"):
        widened(stored, 1, np.int64)


@pytest.mark.parametrize("code", [True, False], ids=["compiled", "plain"])
@given(st.lists(st.text(max_size=9), min_size=1, max_size=5), st.data())
def test_chosen_texts_stand_each_behind_its_first(code: bool, texts: list[str], data: st.DataObject) -> None:
    which = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=30))
    places = [f"{i}:" for i in range(40)]
    chosen = Chosen(texts, np.array(which, np.int64))
    assert WEAVE.load()
    with pytest.MonkeyPatch.context() as patch:
        if not code:
            patch.setattr(WEAVE, "_module", None)
        assert chosen.behind(Row(places), ";") == "".join(f"{places[i]}{texts[place]};" for i, place in enumerate(which)).encode()
    assert list(chosen) == [texts[place] for place in which] == [chosen[i] for i in range(len(which))]
