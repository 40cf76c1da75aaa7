"""Every aggregation over the product's tables equals a naive count of the events, whatever the window, zone and order of arrival."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from core.errors import Invalid
from core.metering import metrics, reading
from core.metering.models import Metric
from core.metering.reading import Question
from core.metering.windows import By, Part, Window
from core.periods import Period
from core.pricing.aggregation import Aggregation as Pure
from core.pricing.aggregation import Reading, aggregate, weighted_sum
from core.pricing.modifiers import Rounding, round_quantity
from tests.factories import make_organization
from tests.golden.compare import same
from tests.golden.reading import at
from tests.metering.stored import AT, Store

CASES = Path("tests/golden/cases/aggregations.json")
STORED = ("count", "sum", "max", "min", "avg", "latest", "unique_count", "weighted_sum")
Events = Sequence[tuple[datetime, Mapping[str, Any]]]


def ask(session: Session, *windows: Window) -> reading.Measured:
    return reading.read(session, Question(frozenset(windows), lambda _: None))


def cases() -> list[Any]:
    """Golden cases that name events in a window."""
    found = json.loads(CASES.read_text(encoding="utf-8"))
    return [case for case in found if case["input"].get("aggregation") in STORED and "event" not in case["input"]]


def test_golden_cases_hold_in_the_tables(session: Session) -> None:
    for case in cases():
        store, asked = Store(session), case["input"]
        conditions = [{"property": k, "in": v if isinstance(v, list) else [v]} for k, v in asked.get("filter", {}).items()]
        operation = "operation" if asked["aggregation"] == "unique_count" else None
        source = asked.get("property") if asked["aggregation"] != "count" else None
        recurring = "initial_value" in asked
        more = {"filters": conditions, "group_by": asked.get("group_by", []), "operation_property": operation, "recurring": recurring}
        metric = store.metric(asked["aggregation"], property=source, **more)
        organization = make_organization(session)
        window = asked.get("window", {"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"})
        start, end = at(window["from"]), at(window["to"])
        end += timedelta(seconds=end.second == 59)
        if recurring:
            store.count(organization, [(start - timedelta(days=40), {source: asked["initial_value"]})])
        events = [(at(e["at"]) if "at" in e else start, flat(e)) for e in asked.get("events", [])]
        store.count(organization, events)
        assert compared(session, Window(organization.id, metric.id, start, end), asked, case["expected"]), case["id"]


def flat(event: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Properties as the product takes them: flat, with dotted names."""
    out: dict[str, Any] = {}
    for name, value in event.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{name}.")
        elif name != "at":
            out[prefix + name] = value
    return out


def compared(session: Session, window: Window, asked: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether the product answers every figure of the case that it has a word for; fails when there is none."""
    names = asked.get("group_by") or []
    split = window._replace(by_group=True)
    parts = window._replace(by=By(asked.get("granularity", "day")))
    measured = ask(session, window, split, parts)
    total = reading.quantity(measured, window)
    answer = measured[window].get("")
    found: dict[str, object] = {"value": total, "total": total, "events_count": answer.events if answer else 0}
    found["value_rounded"] = round_quantity(total, Rounding.HALF_UP, int(asked.get("decimals", 2)))
    known = {key: value for key, value in expected.items() if key in found}
    if "groups" in expected:
        groups = {tuple(group["key"][name] for name in names): Decimal(group["value"]) for group in expected["groups"]}
        assert reading.by_group(measured, split) == groups
    rows = [{"start": max(at(row["start"]), window.start), "value": Decimal(row["value"])} for row in expected.get("rows", [])]
    if rows:
        assert [{"start": part.start, "value": part.quantity} for part in reading.parts(measured, parts)] == rows
    assert known or "groups" in expected or rows
    return all(same(value, found[key]) for key, value in known.items())


METRICS: dict[str, dict[str, Any]] = {
    "count": {"aggregation": "count"},
    "sum": {"aggregation": "sum", "property": "value", "group_by": ["region"]},
    "max": {"aggregation": "max", "property": "value"},
    "min": {"aggregation": "min", "property": "value", "group_by": ["region"]},
    "avg": {"aggregation": "avg", "property": "value"},
    "latest": {"aggregation": "latest", "property": "value", "group_by": ["region"]},
    "unique": {"aggregation": "unique_count", "property": "user", "operation_property": "operation", "group_by": ["region"]},
    "weighted": {"aggregation": "weighted_sum", "property": "change"},
    "p60": {"aggregation": "percentile", "property": "value", "percentile": Decimal(60), "group_by": ["region"]},
    "standing sum": {"aggregation": "sum", "property": "change", "recurring": True},
    "standing latest": {"aggregation": "latest", "property": "value", "recurring": True},
    "standing unique": {"aggregation": "unique_count", "property": "user", "operation_property": "operation", "recurring": True},
    "standing weighted": {"aggregation": "weighted_sum", "property": "change", "recurring": True},
    "worked out": {"aggregation": "sum", "expression": "value * 2 + quantity / 4"},
    "peaks": {"aggregation": "max", "property": "value", "bucket_size": "day", "bucket_total": "sum"},
    "worst hour": {"aggregation": "sum", "property": "value", "bucket_size": "hour", "bucket_total": "max", "group_by": ["region"]},
    "rounded": {"aggregation": "avg", "property": "value", "rounding": "up", "rounding_precision": -1},
}
START = datetime(2026, 3, 20, tzinfo=UTC)
DAYS = 14
ZONES = ("UTC", "Asia/Kolkata", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe")
minutes = st.integers(0, DAYS * 24 * 60 - 1)
instants = st.one_of(
    minutes.map(lambda n: START + timedelta(minutes=n)), st.integers(0, DAYS * 24).map(lambda n: START + timedelta(hours=n))
)
values = st.decimals(0, 1000, places=3)
events = st.fixed_dictionaries(
    {"region": st.sampled_from(["eu", "us"]), "user": st.sampled_from("abcd"), "operation": st.sampled_from(["add", "remove"])},
    optional={"value": values.map(str), "change": st.decimals(-100, 100, places=2).map(str), "quantity": st.integers(0, 20)},
)
histories = st.lists(st.tuples(instants, events), min_size=1, max_size=40)


@pytest.fixture
def store(session: Session) -> Store:
    made = Store(session)
    for definition in METRICS.values():
        made.metric(**definition)
    return made


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    batches=st.lists(histories, min_size=1, max_size=3),
    spans=st.lists(st.tuples(instants, instants).filter(lambda pair: pair[0] != pair[1]).map(sorted), min_size=1, max_size=2),
    zone=st.sampled_from(ZONES),
    closed_days=st.integers(0, DAYS),
    by=st.sampled_from([By.MINUTE, By.HOUR, By.DAY, By.WEEK, By.BUCKET, By.EVENT]),
)
def test_what_is_stored_answers_as_the_events_would(
    session: Session, store: Store, batches: list[Events], spans: list[list[datetime]], zone: str, closed_days: int, by: By
) -> None:
    organization = make_organization(session, timezone=zone)
    known: list[tuple[datetime, Mapping[str, Any]]] = []
    for n, batch in enumerate(batches):
        store.count(organization, batch)
        known += batch
        if n == 0:
            store.add_up(START + timedelta(days=closed_days))
    spans.append([START - timedelta(days=1), START + timedelta(days=DAYS + 1)])
    asked = [
        Window(organization.id, metric.id, *span, by_group=grouped)
        for metric in store.metrics
        for span in spans
        for grouped in (False, True)
    ]
    short = spans[0][0], min(spans[0][1], spans[0][0] + (timedelta(hours=3) if by is By.MINUTE else timedelta(hours=50)))
    split = [Window(organization.id, metric.id, *short, by_group=n % 2 == 0, by=by) for n, metric in enumerate(store.metrics)]
    measured = ask(session, *asked, *split)
    for window in [*asked, *split]:
        metric = next(metric for metric in store.metrics if metric.id == window.metric_id)
        expected = naive(metric, known, window, zone)
        got = {reading.group(key): (answer.quantity, answer.parts) for key, answer in measured[window].items()}
        assert got == expected, (metric.code, window)


def naive(metric: Metric, known: Events, window: Window, zone: str) -> dict[tuple[str | None, ...], tuple[Decimal, tuple[Part, ...]]]:
    """The answer to a window, from the definition of each aggregation over all events."""
    by_group: dict[tuple[str | None, ...], list[tuple[datetime, Decimal, Mapping[str, Any]]]] = {}
    for instant, properties in sorted(known, key=lambda event: event[0]):
        value = contributed(metric, properties)
        if value is not None and instant < window.end and (metric.recurring or instant >= window.start):
            group = tuple(properties.get(name) for name in metric.group_by) if window.by_group else ()
            by_group.setdefault(group, []).append((instant, value, properties))
    return {group: (whole(metric, rows, window, zone), parted(metric, rows, window, zone)) for group, rows in by_group.items()}


def contributed(metric: Metric, properties: Mapping[str, Any]) -> Decimal | None:
    quantity = Decimal(properties.get("quantity", 1))
    if metric.expression:
        return Decimal(properties["value"]) * 2 + quantity / 4 if "value" in properties else None
    if metric.aggregation in ("count", "unique_count"):
        return Decimal(1)
    return Decimal(properties[metric.property]) if metric.property in properties else None


Rows = Sequence[tuple[datetime, Decimal, Mapping[str, Any]]]


def whole(metric: Metric, rows: Rows, window: Window, zone: str) -> Decimal:
    if metric.bucket_size is None:
        return shown(metric, one(metric, rows, window))
    keyed: dict[Any, list[Any]] = {}
    for row in rows:
        keyed.setdefault(local(row[0], zone, metric.bucket_size), []).append(row)
    found = [one(metric, bucket, window) for bucket in keyed.values()]
    return shown(metric, max(found) if metric.bucket_total == "max" else sum(found, Fraction(0)))


def one(metric: Metric, rows: Rows, window: Window) -> Fraction:
    inside = [row for row in rows if row[0] >= window.start]
    readings = [Reading(row[0], row[1], row[2]["user"], row[2]["operation"] == "remove") for row in rows]
    if metric.aggregation == "weighted_sum":
        before = sum((row[1] for row in rows if row[0] < window.start), Decimal(0))
        return weighted_sum(readings[len(rows) - len(inside) :], Period(window.start, window.end), before)[0]
    if metric.aggregation == "percentile":
        ordered = sorted(row[1] for row in rows)
        return Fraction(ordered[-(-60 * len(ordered) // 100) - 1])
    return Fraction(aggregate(Pure(metric.aggregation), readings))


def shown(metric: Metric, value: Fraction) -> Decimal:
    if metric.rounding:
        return Decimal(-(-value // 10) * 10)
    return round_quantity(value, Rounding.HALF_UP, 12)


def local(instant: datetime, zone: str, size: str) -> tuple[Any, ...]:
    """The local bucket an instant lies in; the hour that a clock shows twice counts twice."""
    here = instant.astimezone(ZoneInfo(zone))
    day = here.date()
    week = day - timedelta(days=day.weekday())
    clock = {"minute": (here.hour, here.minute, here.utcoffset()), "hour": (here.hour, here.utcoffset())}
    return {"week": (week,), "month": (day.replace(day=1),), "day": (day,)}.get(size) or (day, *clock[size])


def parted(metric: Metric, rows: Rows, window: Window, zone: str) -> tuple[Part, ...]:
    if window.by is None:
        return ()
    if window.by is By.EVENT:
        return tuple(Part(row[0], row[0], row[1]) for row in rows if row[0] >= window.start)
    size = metric.bucket_size if window.by is By.BUCKET else window.by.value
    edges = [window.start]
    step = timedelta(minutes=1 if size == "minute" else 30)
    first = window.start.replace(minute=window.start.minute // 30 * 30) if size != "minute" else window.start
    moment = first + step
    while size and moment < window.end:
        if local(moment, zone, size) != local(moment - timedelta(microseconds=1), zone, size):
            edges.append(moment)
        moment += step
    found = []
    for since, until in zip(edges, [*edges[1:], window.end], strict=True):
        goes_on = metric.recurring or metric.aggregation == "weighted_sum"
        mine = [row for row in rows if row[0] < until and (goes_on or row[0] >= since)]
        if mine:
            found.append(Part(since, until, whole(metric, mine, window._replace(start=since, end=until), zone)))
    return tuple(found)


def test_a_dynamic_price_is_carried_by_its_event(session: Session, store: Store) -> None:
    organization = make_organization(session)
    metric = store.metric("sum", property="value")
    store.count(organization, [(START, {"value": "2", "cost": "0.30"}), (START, {"value": "3"}), (START, {"value": "1", "cost": True})])
    window = Window(organization.id, metric.id, START, START + timedelta(hours=1), by=By.EVENT, carrying="cost")
    found = reading.parts(ask(session, window), window)
    assert [(part.quantity, part.carried) for part in found] == [(2, Decimal("0.30")), (3, 0), (1, 0)]


def test_a_bad_definition_is_told_field_by_field(session: Session) -> None:
    def pointers(**wrong: Any) -> set[str]:
        with pytest.raises(Invalid) as refused:
            metrics.create(session, **{"code": "m", "name": "M", "aggregation": "sum", "actor": None, "at": AT, **wrong})
        return {error.pointer for error in refused.value.errors}

    assert pointers(expression="a +") == {"/expression"}
    assert pointers(expression="__import__('os')") == {"/expression"}
    assert pointers(property="a", expression="a") == {"/expression"}
    assert pointers(aggregation="percentile") == {"/percentile"}
    assert pointers(aggregation="percentile", percentile=Decimal(101)) == {"/percentile"}
    assert pointers(aggregation="max", recurring=True) == {"/recurring"}
    assert pointers(bucket_size="day", bucket_total="first") == {"/bucket/total"}
    assert pointers(aggregation="weighted_sum", bucket_size="day", bucket_total="sum") == {"/bucket"}
    assert pointers(operation_property="operation") == {"/operation_property"}
    assert pointers(rounding="sideways", rounding_precision=40) == {"/rounding/function", "/rounding/precision"}
