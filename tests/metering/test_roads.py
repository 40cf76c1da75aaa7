"""All roads give the same verdict on the same request."""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.metering import bodies, careful, compiled, lone, plain, quick, wire
from core.metering.accounts import Account
from core.metering.bodies import Form
from core.metering.careful import Window
from core.metering.columns import NUMBERS, Columns, Corrupt, Lone, pack, unpack
from core.metering.directory import EventType, event_type
from core.metering.meters import Condition, Meter
from core.metering.models import Aggregation

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
WINDOW = Window(timedelta(days=35), timedelta(minutes=5), 10_000)
OWN = Account(uuid.UUID(int=7), 7, "acme", "acme", "active", None)
OTHER = Account(uuid.UUID(int=8), 8, "clocked", "clocked", "active", datetime(2023, 11, 16, tzinfo=UTC))


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """The compiled road is there, in the background for nobody."""
    assert compiled.SCAN.load()


class FixedDirectory:
    """Two organizations, three event types."""

    types: dict[str, EventType] = {  # noqa: RUF012
        "calls": event_type("calls", 1, (Meter(uuid.UUID(int=1), 1, "calls", "calls", Aggregation.SUM),)),
        "plain": event_type("plain", 2, (Meter(uuid.UUID(int=2), 2, "plain", "plain", Aggregation.COUNT),)),
        "llm": event_type(
            "llm",
            3,
            (
                Meter(uuid.UUID(int=3), 3, "tokens", "llm", Aggregation.SUM, "tokens"),
                Meter(uuid.UUID(int=4), 4, "eu", "llm", Aggregation.COUNT, None, (Condition("region", frozenset({"eu", "true", "1.5"})),)),
            ),
        ),
    }

    def event_types(self, _names: Any) -> dict[str, EventType]:
        return self.types

    def accounts(self, references: Any) -> dict[str, Account]:
        known = {name: account for account in (OWN, OTHER) for name in (account.external_id, str(account.id))}
        return {reference: known[reference] for reference in references if reference in known}

    def usual_numbers(self, references: Any) -> list[int] | None:
        found = self.accounts(references)
        usual = [
            found[name].number for name in references if name in found and found[name].status != "closed" and not found[name].frozen_time
        ]
        return usual if len(usual) == len(references) else None

    def usual_accounts(self, make: Any) -> Any:
        return make({"acme": OWN.number})

    def blocks(self) -> dict[Any, Any]:
        return {}

    def unclaimed(self, names: Any) -> dict[Any, Any]:
        return {}

    def suggestion(self, name: str) -> str:
        return f"There is no {name}."


def both(body: bytes, own: Account | None = OWN, form: Form = Form.JSON) -> Any:
    """The careful verdict, after checking that those of the two column roads, if there are any, equal it; and the first of these."""
    directory: Any = FixedDirectory()
    raws = bodies.cut(body, form)
    same_reading(raws)
    same_alone(directory, own, raws)
    slow = careful.judge(directory, own, raws, window=WINDOW, at=NOW)
    fast = [road.judge(directory, own, body, form, window=WINDOW, at=NOW) for road in (compiled, quick)]
    for answer in fast:
        if answer is not None:
            assert slow[2] == (), "a column road accepted what the careful road refuses"
            assert list(answer[1]) == slow[1]
            assert slow[0] is not None
            assert_same(answer[0], slow[0])
    return slow, next((answer for answer in fast if answer is not None), None)


def same_reading(raws: list[bytes]) -> None:
    """What is read fast is what is read with care."""
    for raw in raws:
        fast = plain.read(raw)
        assert fast is None or fast == wire.read(raw)


def same_alone(directory: Any, own: Account | None, raws: list[bytes]) -> None:
    """An event judged alone is judged as among others, and comes back from the log as it was accepted."""
    for raw in raws:
        fast = lone.judge(directory, own, raw, window=WINDOW, at=NOW)
        if fast is not None:
            slow, fed, refused = careful.judge(directory, own, [raw], window=WINDOW, at=NOW)
            assert refused == (), "an event was accepted alone that the careful road refuses"
            assert slow is not None
            assert fed == [fast[1]]
            assert_same(unpack(pack(fast[0])), slow)


def test_a_lone_event_that_was_cut_is_corrupt() -> None:
    whole = pack(Lone(7, 1, 1_781_524_800_000_000, False, 1, 5 * 10**11, b"key", b"{}", position=3))
    columns = unpack(whole)
    assert (columns.texts.all_keys(), columns.positions.tolist(), columns.fractions.tolist()) == ([b"key"], [3], [5 * 10**11])
    for length in range(len(whole)):
        with pytest.raises(Corrupt):
            unpack(whole[:length])


def assert_same(mine: Columns, reference: Columns) -> None:
    """Every column has the same values in the same type."""
    pairs = [(getattr(mine, name), getattr(reference, name)) for name in NUMBERS]
    pairs += [(getattr(mine.texts, name), getattr(reference.texts, name)) for name in ("starts", "sizes", "key_places", "key_sizes")]
    assert all(np.array_equal(one, other) and one.dtype == other.dtype for one, other in pairs)
    assert mine.texts.data == reference.texts.data


scalars = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.integers(-(2**70), 2**70),
    st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9),
    st.booleans(),
    st.none(),
    st.sampled_from(["eu", "a:b", "[", "{"]),
)
usual = {
    "metric_name": st.sampled_from(["calls", "plain", "llm"]),
    "idempotency_key": st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
}
extra = {
    "quantity": st.one_of(
        st.integers(0, 10**14),
        st.decimals(0, 10**6, places=12).map(lambda d: f"{d:f}"),
        st.floats(0, 1e6),
        st.sampled_from(["1", -1, 10**15]),
    ),
    "timestamp": st.one_of(
        st.datetimes(datetime(2026, 5, 1), datetime(2026, 6, 16)).map(lambda at: at.isoformat() + "Z"),
        st.sampled_from(["2026-06-15T12:00:00+02:00", "2026-02-30T00:00:00Z", "2026-06-15T12:00:00", "2026-06-15T12:00:00.123456789Z"]),
    ),
    "properties": st.dictionaries(st.sampled_from(["tokens", "region", "a:b", "naïve", "x", ""]), scalars, max_size=4),
    "unit": st.sampled_from(["call", "GB", ""]),
    "subscription_id": st.sampled_from([str(uuid.UUID(int=5)), "no"]),
    "organization_id": st.sampled_from(["acme", str(OWN.id), "clocked", "stranger"]),
}


def dump(value: Any) -> bytes:
    """JSON in which Decimals are numbers."""
    return json.dumps(value, default=float, ensure_ascii=False).encode("utf-8", "surrogatepass")


@settings(max_examples=150)
@given(st.sampled_from([(), ("quantity",), ("quantity", "timestamp"), ("timestamp", "properties"), tuple(extra)]), st.data())
def test_both_roads_agree_on_uniform_requests(fields: tuple[str, ...], data: st.DataObject) -> None:
    shape = st.fixed_dictionaries({**usual, **{name: extra[name] for name in fields}})
    events = data.draw(st.lists(shape, min_size=1, max_size=5))
    both(dump(events), data.draw(st.sampled_from([OWN, None])))
    both(b"\n".join(map(dump, events)), form=Form.NDJSON)


@settings(max_examples=80)
@given(st.lists(st.fixed_dictionaries(usual, optional=extra), min_size=1, max_size=5))
def test_both_roads_agree_on_mixed_requests(events: list[dict[str, Any]]) -> None:
    both(dump(events))


@pytest.mark.parametrize(
    "event",
    [
        '{"metric_name":"calls","idempotency_key":"a","quantity":1,"quantity":2}',
        '{"metric_name":"calls","idempotency_key":"a","properties":{"a":1,"a":2}}',
        '{"metric_name":"calls","idempotency_key":"a","properties":{"a" :1,"a": 2}}',
        '{"metric_name":"calls","idempotency_key":"a:b","properties":{"a":":","a":2}}',
        '{"metric_name":"calls","idempotency_key":"a","properties":{"a":{}}}',
        '{"metric_name":"calls","idempotency_key":"a","properties":{"a":["{"]}}',
        '{"metric_name":"calls","idempotency_key":"a","properties":{"\\u0000":1}}',
        '{"metric_name":"calls","idempotency_key":"a","quantity":"1","event_name":"calls"}',
    ],
)
def test_a_fault_is_found_on_either_road(event: str) -> None:
    slow, fast = both(f"[{event}]".encode())
    assert fast is None
    assert len(slow[2]) == 1


def test_an_event_does_not_go_on_in_the_next_line() -> None:
    slow, fast = both(b'{"metric_name":"calls",\n"idempotency_key":"a"}', form=Form.NDJSON)
    assert fast is None
    assert len(slow[2]) == 2


def test_a_usual_event_is_read_fast() -> None:
    assert all(plain.read(dump(event)) is not None for event in usual_events())


@pytest.mark.parametrize("field", ["properties", "event_name", "unit", "timestamp", "quantity", "organization_id", "subscription_id"])
def test_a_null_of_the_first_event_excuses_no_other(field: str) -> None:
    events = [{"metric_name": "calls", "idempotency_key": "a", field: None}, {"metric_name": "calls", "idempotency_key": "b", field: True}]
    slow, fast = both(dump(events))
    assert fast is None
    assert [one.index for one in slow[2]] == [1]


def usual_events(**changed: Any) -> list[dict[str, Any]]:
    """Fifty events as a client library writes them."""
    return [
        {
            "metric_name": "calls",
            "idempotency_key": f"k{i}",
            "quantity": i + 0.5,
            "timestamp": f"2026-06-15T11:00:{i:02}.123Z",
            "properties": {"url": "a:b", "n": i},
            **changed,
        }
        for i in range(50)
    ]


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("road", [compiled, quick])
def test_the_usual_request_takes_the_column_roads(road: Any, form: Form) -> None:
    lines = [dump(event) for event in usual_events()]
    body = b"\n".join(lines) if form == Form.NDJSON else b"[" + b", ".join(lines) + b"]"
    directory: Any = FixedDirectory()
    columns, fed = road.judge(directory, OWN, body, form, window=WINDOW, at=NOW)
    assert (columns.wholes.tolist()[3], columns.fractions.tolist()[3], fed[0]) == (3, 5 * 10**11, '["calls"]')
    assert columns.texts.all_properties()[3] == b'{"n":3,"url":"a:b"}'


def test_a_thousand_names_take_the_compiled_road() -> None:
    directory: Any = FixedDirectory()
    directory.accounts = lambda references: {name: replace(OWN, number=int(name[6:])) for name in references}
    events = [{"metric_name": "calls", "idempotency_key": "k", "organization_id": f"bench-{i}"} for i in range(1_000)]
    found = compiled.judge(directory, None, dump(events), Form.JSON, window=WINDOW, at=NOW)
    assert found is not None
    assert found[0].organizations.tolist() == list(range(1_000))


def test_organizations_known_and_unknown_to_the_pass_stand_side_by_side() -> None:
    names = ["acme", str(OWN.id), "acme", str(OWN.id).upper(), str(OWN.id)]
    directory: Any = FixedDirectory()
    directory.usual_numbers = lambda references: [OWN.number] * len(references)
    events = [{"metric_name": "plain", "idempotency_key": f"k{i}", "organization_id": name} for i, name in enumerate(names)]
    columns, fed = compiled.judge(directory, None, dump(events), Form.JSON, window=WINDOW, at=NOW) or (None, ())
    assert columns is not None
    assert columns.organizations.tolist() == [OWN.number] * len(names)
    assert list(fed) == ['["plain"]'] * len(names)
    assert (
        compiled.judge(directory, None, dump([*events, {**events[0], "organization_id": None}]), Form.JSON, window=WINDOW, at=NOW) is None
    )


@settings(max_examples=150)
@given(st.data())
def test_one_byte_changed_is_judged_alike_on_every_road(data: st.DataObject) -> None:
    """Whatever is broken in one event of a uniform request, no column road lets through what the careful one refuses."""
    body = bytearray(dump(usual_events(unit="GB", organization_id="acme")[:8]))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place : place + data.draw(st.integers(0, 2))] = data.draw(
        st.binary(max_size=2) | st.sampled_from([b'"', b",", b"}", b"\n", b"\x01"])
    )
    with contextlib.suppress(bodies.Malformed):
        both(bytes(body))


PLAIN_NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\\'), min_size=1, max_size=12)


@given(st.dictionaries(PLAIN_NAMES, st.integers(1, 2**31 - 1), max_size=40), st.data())
def test_machine_code_knows_organizations_by_name(numbers: dict[str, int], data: st.DataObject) -> None:
    scan = compiled.SCAN.get(wanted=False)
    assert scan is not None
    known = scan.known.Known(numbers)
    gone = data.draw(st.sets(st.sampled_from(sorted(numbers)))) if numbers else set()
    known.forget(gone)
    names = sorted({*numbers, "nobody", "acme"})
    body = dump([{"metric_name": "a", "idempotency_key": "b", "organization_id": name} for name in names])
    read = compiled._read(scan, body, Form.JSON, len(names), known)
    unknown = iter(read.called)
    for name, owner in zip(names, read.rows[1].tolist(), strict=True):
        if name in numbers and name not in gone:
            assert owner == numbers[name]
        else:
            assert (owner < compiled.NOBODYS, next(unknown)) == (True, name)


def test_each_organization_is_judged_by_its_own_time() -> None:
    events = [
        {"metric_name": "calls", "idempotency_key": "a", "organization_id": "clocked", "timestamp": "2023-11-15T00:00:00Z"},
        {"metric_name": "calls", "idempotency_key": "b", "organization_id": "acme", "timestamp": "2023-11-15T00:00:00Z"},
        {"metric_name": "calls", "idempotency_key": "c", "organization_id": "clocked", "timestamp": "2026-06-15T00:00:00Z"},
    ]
    (columns, _, refused), _ = both(dump(events), None)
    assert columns.organizations.tolist() == [8]
    assert [(one.index, one.code) for one in refused] == [(1, "timestamp_too_old"), (2, "timestamp_in_future")]


@given(st.integers(0, 10**14 - 1), st.integers(0, 10**12 - 1))
def test_a_quantity_is_what_was_sent(whole: int, fraction: int) -> None:
    token = f"{whole}.{fraction:012}"
    (columns, _, _), fast = both(f'[{{"metric_name":"calls","idempotency_key":"a","quantity":{token}}}]'.encode())
    assert fast is not None
    assert Decimal(int(columns.wholes[0]) * 10**12 + int(columns.fractions[0])).scaleb(-12) == Decimal(token)


@given(st.timedeltas(timedelta(minutes=-10), timedelta(minutes=10)), st.sampled_from(["first", "last"]))
def test_the_window_is_closed_at_both_ends(offset: timedelta, end: str) -> None:
    edge = NOW - WINDOW.past if end == "first" else NOW + WINDOW.future
    at = edge + offset
    (columns, _, _), _ = both(dump([{"metric_name": "calls", "idempotency_key": "a", "timestamp": at.isoformat()}]))
    assert (columns is not None) == (NOW - WINDOW.past <= at <= NOW + WINDOW.future)


def test_a_closed_organization_takes_nothing() -> None:
    closed = replace(OTHER, status="closed")
    directory: Any = FixedDirectory()
    directory.accounts = lambda references: dict.fromkeys(references, closed)
    raws = [b'{"metric_name":"calls","idempotency_key":"a","organization_id":"x"}']
    accepted, _, refused = careful.judge(directory, None, raws, window=WINDOW, at=NOW)
    assert accepted is None
    assert refused[0].code == "unknown_organization"
