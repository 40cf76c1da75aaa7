"""Bad input is answered precisely and quickly, nothing of it counts, and the server never fails."""

from __future__ import annotations

import gc
import gzip
import json
import resource
import time
import uuid
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from core.metering import bodies
from core.metering.wire import Fault
from tests.metering.conftest import Metering

KEY = "wire-1"
SECONDS_MAX = 1.0
"""The bar is 50 ms on a quiet machine; this one is shared."""


@pytest.fixture(scope="module")
def sender(metering: Metering) -> tuple[uuid.UUID, str]:
    """An organization with a key and two metrics."""
    metering.metric("calls")
    metering.metric("tokens", property="tokens", event_name="llm")
    return metering.organization()


def wire(**given: Any) -> bytes:
    """One event with some fields changed; a value of bytes is put in as it is, None leaves the field out."""
    fields: dict[str, Any] = {"metric_name": "calls", "idempotency_key": KEY, **given}
    parts = [
        f'"{name}":'.encode() + (value if isinstance(value, bytes) else json.dumps(value).encode())
        for name, value in fields.items()
        if value is not None
    ]
    return b"{" + b",".join(parts) + b"}"


QUANTITIES = [
    b"1e999999", b"-1", b"-0", b"1e-13", b"1e14", b"100000000000000", b"0.0000000000001", b"1e400", b'"1_000"', b'"\xef\xbc\x91"',
    b'"0x10"', b'"NaN"', b'"Infinity"', b'"1,5"', b'" 1"', b'"1 "', b'"1\\n"', b'""', b"true", b"[]", b"{}", b'"1e3x"', b'"+1"',
    b'".5"', b'"5."', b'"1e5000"',
]  # fmt: skip
TIMESTAMPS = [
    "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "infinity", "now", "",
    "2026-06-15", "2026-06-15T12:00:00", "2026-06-30T23:59:60Z", "2026-06-15T25:00:00Z", "1750000000", "2026-W24-1T00:00:00Z",
    "２０２６-06-15T12:00:00Z", "2026-06-15T12:00:00+99:99", "x" * 5_000,
]  # fmt: skip
KEYS = ["", "a b", "k" * 256, "k" * 60_000, "schlüssel", "a\nb", "a\x00b", "\x7f", "\u200b"]
FIELDS: list[tuple[bytes, str, str]] = [
    *((wire(quantity=token), "invalid_quantity", "/quantity") for token in QUANTITIES),
    *((wire(timestamp=text), "", "/timestamp") for text in TIMESTAMPS),
    (wire(timestamp=1750000000), "invalid_timestamp", "/timestamp"),
    *((wire(idempotency_key=key), "invalid_idempotency_key", "/idempotency_key") for key in KEYS),
    (wire(idempotency_key=None), "missing_field", "/idempotency_key"),
    (wire(idempotency_key=5), "invalid_idempotency_key", "/idempotency_key"),
    (wire(metric_name=None), "missing_field", "/metric_name"),
    (wire(metric_name="cals"), "unknown_metric", "/metric_name"),
    (wire(metric_name="tokens"), "unknown_metric", "/metric_name"),
    (wire(metric_name=["calls"]), "invalid_field", "/metric_name"),
    (wire(metric_name="c\u202ealls"), "invalid_field", "/metric_name"),
    (wire(metric="calls"), "duplicate_name", "/metric"),
    (wire(metricname="calls"), "unknown_field", "/metricname"),
    (wire(**{"a/b~c": 1}), "unknown_field", "/a~1b~0c"),
    (wire(**{"\\u0000": 1}), "unknown_field", "/\ufffd"),
    (wire(quantity=b"9" * 50_000), "malformed_json", ""),
    (wire(organization_id="somebody-else"), "unknown_organization", "/organization_id"),
    (wire(organization_id=str(uuid.uuid4())), "unknown_organization", "/organization_id"),
    (wire(subscription_id="5"), "invalid_field", "/subscription_id"),
    (wire(unit="u" * 51), "invalid_field", "/unit"),
    (wire(properties=[]), "invalid_properties", "/properties"),
    (wire(properties="{}"), "invalid_properties", "/properties"),
    (wire(properties={"a": {"b": 1}}), "invalid_properties", "/properties/a"),
    (wire(properties={"a": [1]}), "invalid_properties", "/properties/a"),
    (wire(properties={"": 1}), "invalid_properties", "/properties/"),
    (wire(properties={"n" * 101: 1}), "invalid_properties", "/properties/" + "n" * 80),
    (wire(properties={"a": "x" * 2_049}), "invalid_properties", "/properties/a"),
    (wire(properties={"a": "\x00"}), "invalid_properties", "/properties/a"),
    (wire(properties={f"p{i}": i for i in range(65)}), "invalid_properties", "/properties"),
    (wire(properties=b'{"a":1,"a":2}'), "duplicate_name", "/a"),
    (wire(properties=b'{"a":%s}' % (b"9" * 5_000)), "malformed_json", ""),
    (wire(metric_name="llm", properties={}), "no_metric_matches", "/properties"),
    (wire(metric_name="llm", properties={"tokens": "many"}), "invalid_property", "/properties/tokens"),
    (wire(metric_name="llm", properties={"tokens": -5}), "invalid_property", "/properties/tokens"),
    (wire(metric_name="llm", properties={"tokens": True}), "invalid_property", "/properties/tokens"),
    (wire(metric_name="llm", properties=b'{"tokens":1e999999}'), "invalid_property", "/properties/tokens"),
    (wire()[:-1] + b',"quantity":1,"quantity":2}', "duplicate_name", "/quantity"),
    (b"5", "malformed_json", ""),
    (b'"text"', "malformed_json", ""),
    (b'{"metric_name":"calls","idempotency_key":"big","properties":{"a":"' + b"x" * 70_000 + b'"}}', "too_large", ""),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "pointer"), FIELDS, ids=range(len(FIELDS)))
def test_a_bad_event_is_refused_with_its_place(
    metering: Metering, sender: tuple[uuid.UUID, str], body: bytes, code: str, pointer: str
) -> None:
    began = time.monotonic()
    status, answer = metering.post(sender[1], body)
    assert status == 422, answer
    assert time.monotonic() - began < SECONDS_MAX
    (verdict,) = answer["events"]
    assert verdict["pointer"] == pointer
    assert not code or verdict["code"] == code
    assert answer["errors"] == [{"pointer": pointer, "detail": verdict["detail"]}]
    assert len(answer["detail"]) < 500
    assert len(verdict["detail"]) < 500


BODIES: list[tuple[bytes, dict[str, str], int]] = [
    (b"", {}, 400),
    (b"[]", {}, 400),
    (b"[" * 100_000, {}, 400),
    (b'{"a":' * 100_000, {}, 400),
    (b"[" * 100_000 + b"]" * 100_000, {}, 400),
    (wire()[:-1], {}, 400),
    (wire() + b"x", {}, 400),
    (b"\xff\xfe" + wire(), {}, 400),
    (wire(metric_name=b'"\\ud800"'), {}, 400),
    (b"[NaN]", {}, 400),
    (b"\x00" * 1000, {}, 400),
    (b"[" + wire() + b"," + b" " * 4_200_000 + b"]", {}, 413),
    (b"[" + b",".join([b"{}"] * 10_001) + b"]", {}, 413),
    (b"[" + b"{}," * 900_000 + b"{}]", {}, 413),
    (b"[" + b'"\\",[",' * 400_000 + b"0]", {}, 413),
    (wire() + b"\r\n" + b"\n{}" * 900_000, {"CONTENT_TYPE": "application/x-ndjson"}, 413),
    (b"null", {}, 422),
    (wire(properties=b'{"x": 1e9999999999999999999}'), {}, 422),
    (b"[" + b",".join([wire(properties=b'{"x": 1e9999999999999999999}')] * 9) + b"]", {}, 422),
    (wire(), {"CONTENT_TYPE": "text/plain"}, 415),
    (wire(), {"CONTENT_TYPE": "application/xml"}, 415),
    (wire(), {"HTTP_CONTENT_ENCODING": "br"}, 415),
    (wire(), {"HTTP_CONTENT_ENCODING": "gzip, gzip"}, 415),
    (wire(), {"HTTP_CONTENT_ENCODING": "gzip"}, 400),
    (wire(), {"HTTP_CONTENT_ENCODING": "zstd"}, 400),
    (gzip.compress(wire())[:-4], {"HTTP_CONTENT_ENCODING": "gzip"}, 400),
    (gzip.compress(wire()) + b"more", {"HTTP_CONTENT_ENCODING": "gzip"}, 400),
    (gzip.compress(b"[" + b" " * 100_000_000), {"HTTP_CONTENT_ENCODING": "gzip"}, 413),
    (zlib.compress(b"[" + b" " * 100_000_000), {"HTTP_CONTENT_ENCODING": "deflate"}, 415),
    (zstandard.compress(b"[" + b" " * 100_000_000), {"HTTP_CONTENT_ENCODING": "zstd"}, 413),
    (gzip.compress(gzip.compress(wire())), {"HTTP_CONTENT_ENCODING": "gzip"}, 400),
]


@pytest.mark.parametrize(("body", "headers", "expected"), BODIES, ids=range(len(BODIES)))
def test_a_bad_body_is_refused_as_a_whole(
    metering: Metering, sender: tuple[uuid.UUID, str], body: bytes, headers: dict[str, str], expected: int
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, answer = metering.post(sender[1], body, **headers)
    assert status == expected, answer
    assert {"type", "title", "status", "detail", "request_id"} <= answer.keys()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


MARKS = st.text(st.sampled_from('\\\\"[]{},:a\u00e9'), max_size=8)
VALUES = st.recursive(
    st.none() | MARKS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MARKS, inner, max_size=3), max_leaves=8
)


@given(st.lists(VALUES, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_elements_are_counted_without_decoding(given: list[Any]) -> None:
    assert bodies.elements(json.dumps(given, ensure_ascii=False).encode()) == len(given)


def test_a_refused_event_leaves_no_circle_behind(metering: Metering, sender: tuple[uuid.UUID, str]) -> None:
    """A fault that its own traceback holds would keep the whole body until the collector comes round, which is seldom."""
    gc.collect()
    gc.disable()
    try:
        assert metering.post(sender[1], wire(idempotency_key=b'"%s"' % (b"k" * 1_000_000)))[0] == 422
        assert not [found for found in gc.get_objects() if isinstance(found, Fault)]
    finally:
        gc.enable()


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "Basic dXNlcjpw", "Bearer vv_test_" + "A" * 43, "Bearer " + "é" * 9])
def test_without_a_key_nothing_is_taken(metering: Metering, sender: tuple[uuid.UUID, str], authorization: str) -> None:
    status, answer = metering.post("", wire(), HTTP_AUTHORIZATION=authorization)
    assert (status, answer["status"]) == (401, 401)


def test_a_good_event_between_bad_ones_is_kept(metering: Metering, sender: tuple[uuid.UUID, str]) -> None:
    organization_id, token = metering.organization()
    bad = [json.loads(wire(quantity=-1, idempotency_key=f"bad{i}")) for i in range(100)]
    good = [json.loads(wire(idempotency_key=f"good{i}")) for i in range(900)]
    events = [event for i in range(100) for event in [bad[i], *good[9 * i : 9 * i + 9]]]
    status, answer = metering.post(token, events)
    assert (status, answer["accepted"], answer["rejected"]) == (202, 900, 100)
    assert [verdict["index"] for verdict in answer["events"]] == list(range(1000))
    assert answer["events"][10]["pointer"] == "/10/quantity"
    assert metering.post(token, events)[1]["accepted"] == 900
    metering.count()
    assert (
        metering.value(
            "SELECT count(*) FROM usage_events e JOIN organizations o ON o.number = e.organization_number WHERE o.id = %s", organization_id
        )
        == 900
    )
    stored = metering.rows(
        "SELECT code, pointer, event FROM usage_rejections WHERE organization_id = %s ORDER BY id LIMIT 1", organization_id
    )
    assert stored[0][:2] == ("invalid_quantity", "/quantity")
    assert json.loads(bytes(stored[0][2])) == bad[0]


def test_nothing_bad_was_counted(metering: Metering, sender: tuple[uuid.UUID, str]) -> None:
    metering.count()
    query = "SELECT count(*) FROM usage_events e JOIN organizations o ON o.number = e.organization_number WHERE o.id = %s"
    assert metering.value(query, sender[0]) == 0
    assert metering.value("SELECT count(*) FROM usage_quarantine") == 0


@pytest.mark.parametrize(
    ("offset", "taken"),
    [
        (timedelta(minutes=4), True),
        (timedelta(minutes=6), False),
        (timedelta(days=-34, hours=-23), True),
        (timedelta(days=-36), False),
        (timedelta(days=-50), False),
    ],
)
def test_late_and_early_events(metering: Metering, sender: tuple[uuid.UUID, str], offset: timedelta, taken: bool) -> None:
    _, token = metering.organization()
    at = (datetime.now(UTC) + offset).isoformat()
    status, answer = metering.post(token, wire(timestamp=at))
    assert status == (202 if taken else 422)
    if not taken:
        assert answer["events"][0]["code"] == ("timestamp_in_future" if offset > timedelta() else "timestamp_too_old")
