"""What nobody should send: each is refused with a clear 4xx that points at the fault, and nothing is written."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from api import reading
from core.db import Base
from core.errors import BillingError, Invalid
from tests.api.conftest import Api, organization_body, plan_body
from tests.people import bearer

FAST_SECONDS = 0.5
NESTED = b'{"a":' * 60_000 + b"1" + b"}" * 60_000

RAW: list[tuple[str, bytes, int]] = [
    ("nothing", b"", 400),
    ("no JSON", b"name=Quillmark", 400),
    ("cut off", b'{"name": "Quill', 400),
    ("two documents", b"{}{}", 400),
    ("a comment", b'{"name": "a" /* b */}', 400),
    ("single quotes", b"{'name': 'a'}", 400),
    ("trailing comma", b'{"name": "a",}', 400),
    ("not UTF-8", b'{"name": "\xff\xfe"}', 400),
    ("UTF-16", '{"name": "a"}'.encode("utf-16"), 400),
    ("NUL bytes", b"\x00" * 64, 400),
    ("nested 60,000 deep", NESTED, 400),
    ("brackets only", b"[" * 100_000, 400),
    ("nested nine deep", json.dumps({"metadata": [[[[[[[[1]]]]]]]]}).encode(), 422),
    ("an array", b"[]", 422),
    ("a string", b'"name"', 422),
    ("null", b"null", 422),
    ("a number", b"7", 422),
    ("NaN", b'{"tax_rate_percent": NaN}', 422),
    ("Infinity", b'{"tax_rate_percent": Infinity}', 422),
    ("-Infinity", b'{"tax_rate_percent": -Infinity}', 422),
    ("a name twice", b'{"name": "a", "name": "b"}', 422),
    ("an integer of 5,000 digits", b'{"tax_rate_percent": ' + b"9" * 5_000 + b"}", 422),
    ("an integer of 100,000 digits", b'{"tax_rate_percent": ' + b"9" * 100_000 + b"}", 422),
    ("an exponent bomb", b'{"tax_rate_percent": 1e999999}', 422),
    ("an exponent bomb in a string", b'{"tax_rate_percent": "1e999999"}', 422),
    ("1e400", b'{"tax_rate_percent": 1e400}', 422),
    ("1,001 items", json.dumps({"metadata": {f"k{i}": 1 for i in range(1_001)}}).encode(), 422),
    ("a long name of a field", json.dumps({"k" * 65: 1}).encode(), 422),
    ("a long text", json.dumps({"name": "x" * 2_049}).encode(), 422),
    ("more than 1 MiB", b'{"name": "' + b"x" * (1024 * 1024) + b'"}', 413),
]


def rows(session: Session) -> dict[str, int]:
    """How many rows every table has, but the note of when a key was used."""
    session.flush()
    tables = [table.name for table in Base.metadata.sorted_tables]
    statement = " UNION ALL ".join(f"SELECT '{name}' AS name, count(*) AS n FROM {name}" for name in tables)
    return {row.name: row.n for row in session.execute(text(statement))}


def refused(
    api: Api, session: Session, path: str, body: Any, status: int | set[int], pointer: str | None = None, **headers: str
) -> dict[str, Any]:
    api.get("/billing/metrics")
    before, began = rows(session), time.perf_counter()
    answer = api.call("POST", path, body, **headers)
    took = time.perf_counter() - began
    assert answer.status_code in ({status} if isinstance(status, int) else status), answer.text
    assert answer.mimetype == "application/problem+json"
    problem = answer.get_json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(problem)
    assert took < FAST_SECONDS
    assert rows(session) == before
    if pointer is not None:
        assert pointer in [error["pointer"] for error in problem["errors"]], problem
    return problem


@pytest.mark.parametrize(("body", "status"), [case[1:] for case in RAW], ids=[case[0] for case in RAW])
def test_what_is_no_request_is_refused_at_once(api: Api, session: Session, body: bytes, status: int) -> None:
    refused(api, session, "/billing/organizations", body, status, Content_Type="application/json")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data", 415),
        ("", 415),
        ("application/xml", 415),
        ("text/json", 415),
    ],
)
def test_only_json_is_taken(api: Api, session: Session, content_type: str, status: int) -> None:
    refused(api, session, "/billing/organizations", json.dumps(organization_body()).encode(), status, Content_Type=content_type)


def test_compressed_bodies_are_for_usage_only(api: Api, session: Session) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    refused(api, session, "/billing/organizations", bomb, 415, Content_Type="application/json", Content_Encoding="gzip")


ORGANIZATION: list[tuple[str, Any, str]] = [
    ("name", "", "/name"),
    ("name", "   ", "/name"),
    ("name", 7, "/name"),
    ("name", None, "/name"),
    ("name", ["a"], "/name"),
    ("name", {"a": 1}, "/name"),
    ("name", True, "/name"),
    ("name", "a\x00b", "/name"),
    ("name", "a\x1bb", "/name"),
    ("name", "a\u202eb", "/name"),
    ("name", "a\u2066b", "/name"),
    ("name", "\ud800", "/name"),
    ("name", "x" * 256, "/name"),
    ("slug", "Quill Mark", "/slug"),
    ("slug", "-quillmark", "/slug"),
    ("slug", "quіllmark", "/slug"),
    ("slug", "quillmark\n", "/slug"),
    ("slug", "", "/slug"),
    ("slug", "x" * 101, "/slug"),
    ("billing_email", "quillmark", "/billing_email"),
    ("billing_email", "a@b", "/billing_email"),
    ("billing_email", "a@b.example\r\nBcc: c@d.example", "/billing_email"),
    ("billing_email", "a b@c.example", "/billing_email"),
    ("billing_email", "ä@b.example", "/billing_email"),
    ("billing_email", "a" * 65 + "@b.example", "/billing_email"),
    ("currency", "eur", "/currency"),
    ("currency", "EURO", "/currency"),
    ("currency", "XXX", "/currency"),
    ("currency", "€", "/currency"),
    ("currency", 978, "/currency"),
    ("timezone", "Berlin", "/timezone"),
    ("timezone", "UTC+1", "/timezone"),
    ("timezone", "../../etc/passwd", "/timezone"),
    ("timezone", "localtime", "/timezone"),
    ("billing_address", {}, "/billing_address/country"),
    ("billing_address", {"country": "Germany"}, "/billing_address/country"),
    ("billing_address", {"country": "XX"}, "/billing_address/country"),
    ("billing_address", {"country": "DE", "planet": "Earth"}, "/billing_address/planet"),
    ("billing_address", {"country": "DE", "city": 7}, "/billing_address/city"),
    ("billing_address", "Berlin", "/billing_address"),
    ("tax_rate_percent", "-1", "/tax_rate_percent"),
    ("tax_rate_percent", "101", "/tax_rate_percent"),
    ("tax_rate_percent", "１９", "/tax_rate_percent"),
    ("tax_rate_percent", "1_9", "/tax_rate_percent"),
    ("tax_rate_percent", "0x13", "/tax_rate_percent"),
    ("tax_rate_percent", "19 ", "/tax_rate_percent"),
    ("tax_rate_percent", "sNaN", "/tax_rate_percent"),
    ("tax_rate_percent", True, "/tax_rate_percent"),
    ("tax_rate_percent", "1.0000000000001", "/tax_rate_percent"),
    ("tax_id", "DE'; DROP TABLE", "/tax_id"),
    ("auto_collect", "yes", "/auto_collect"),
    ("auto_collect", 1, "/auto_collect"),
    ("metadata", [], "/metadata"),
    ("metadata", {"a": {"b": 1}}, "/metadata"),
    ("metadata", {"a": 1.5}, "/metadata"),
    ("test_clock_id", "now", "/test_clock_id"),
    ("test_clock_id", "019a0000-0000-7000-8000-000000000000", "/test_clock_id"),
    ("external_id", "", "/external_id"),
]


@pytest.mark.parametrize(("name", "value", "pointer"), ORGANIZATION)
def test_a_wrong_field_of_an_organization_is_pointed_at(api: Api, session: Session, name: str, value: Any, pointer: str) -> None:
    refused(api, session, "/billing/organizations", organization_body(**{name: value}), 422, pointer)


@pytest.mark.parametrize("name", ["id", "number", "status", "organization_id", "created_at", "is_admin", "extra", "role", "balance"])
def test_fields_that_are_not_the_callers_are_refused(api: Api, session: Session, name: str) -> None:
    refused(api, session, "/billing/organizations", organization_body(**{name: "1"}), 422, f"/{name}")


@pytest.mark.parametrize("name", ["name", "slug", "billing_email", "currency", "timezone", "billing_address"])
def test_a_missing_field_is_named(api: Api, session: Session, name: str) -> None:
    body = organization_body()
    del body[name]
    refused(api, session, "/billing/organizations", body, 422, f"/{name}")


OTHERS: list[tuple[str, Any, int | set[int], str | None]] = [
    ("/billing/metrics", {"code": "m m", "name": "M", "aggregation": "sum"}, 422, "/code"),
    ("/billing/metrics", {"code": "m", "name": "M", "aggregation": "median"}, 422, "/aggregation"),
    ("/billing/metrics", {"code": "m", "name": "M", "aggregation": "unique_count"}, 422, "/property"),
    ("/billing/metrics", {"code": "m", "name": "M", "aggregation": "sum", "filters": [{"property": "a", "in": []}]}, 422, "/filters/0/in"),
    ("/billing/metrics", {"code": "m", "name": "M", "aggregation": "sum", "group_by": ["a"] * 6}, 422, "/group_by"),
    ("/billing/plans", plan_body("p", base_price="-1"), 422, "/base_price"),
    ("/billing/plans", plan_body("p", base_price="1.005"), 422, "/base_price"),
    ("/billing/plans", plan_body("p", base_price=1e30), 422, "/base_price"),
    ("/billing/plans", plan_body("p", billing_period="fortnight"), 422, "/billing_period"),
    ("/billing/plans", plan_body("p", interval_count=0), 422, "/interval_count"),
    ("/billing/plans", plan_body("p", interval_count="1"), 422, "/interval_count"),
    ("/billing/plans", plan_body("p", trial_period_days=-1), 422, "/trial_period_days"),
    ("/billing/plans", plan_body("p", trial_period_days=10**30), 422, "/trial_period_days"),
    ("/billing/plans", plan_body("p", prices=[{"metric": "nothing", "model": "per_unit", "unit_price": "1"}]), 422, "/prices/0/metric"),
    ("/billing/plans", plan_body("p", prices=[{"model": "per_kilo", "unit_price": "1"}]), 422, "/prices/0/model"),
    ("/billing/plans", plan_body("p", prices=[{"model": "per_unit", "unit_price": "free"}]), 422, "/prices/0/unit_price"),
    ("/billing/plans", plan_body("p", prices=[{"model": "graduated", "tiers": []}]), 422, "/prices/0/tiers"),
    ("/billing/plans", plan_body("p", prices=["per_unit"]), 422, "/prices/0"),
    ("/billing/subscriptions", {"organization_id": "nobody", "plan": "p"}, 404, None),
    ("/billing/subscriptions", {"plan": "p"}, 422, "/organization_id"),
    ("/billing/subscriptions", {"organization_id": "known", "plan": "nothing"}, 422, "/plan"),
    ("/billing/subscriptions", {"organization_id": "known"}, 422, "/plan"),
    ("/billing/subscriptions", {"organization_id": "known", "plan": "starter", "billing_anchor": "lunar"}, 422, "/billing_anchor"),
    ("/billing/subscriptions", {"organization_id": "known", "plan": "starter", "quantity": "-1"}, 422, "/quantity"),
    ("/billing/subscriptions", {"organization_id": "known", "plan": "starter", "start_at": "2026-06-01T00:00:00"}, 422, "/start_at"),
    ("/billing/subscriptions", {"organization_id": "known", "plan": "starter", "start_at": "2026-06-31T00:00:00Z"}, 422, "/start_at"),
    ("/billing/subscriptions", {"organization_id": "known", "plan": "starter", "start_at": "9999-12-31T23:59:59-12:00"}, 422, "/start_at"),
    ("/billing/subscriptions", {"organization_id": "known", "plan": "starter", "start_at": "0001-01-01T00:00:00+14:00"}, 422, "/start_at"),
    ("/billing/subscriptions", {"organization_id": "known", "plan": "starter", "start_at": "infinity"}, 422, "/start_at"),
    ("/billing/subscriptions", {"organization_id": "known", "plan": "starter", "start_at": 0}, 422, "/start_at"),
    ("/billing/subscriptions", {"organization_id": "known", "plan": "starter", "start_at": "2026-06-15T23:59:60Z"}, 422, "/start_at"),
    (
        "/billing/subscriptions",
        {"organization_id": "known", "plan": "starter", "payment_method_id": "019a0000-0000-7000-8000-000000000000"},
        404,
        None,
    ),
    ("/billing/invoices", {"organization_id": "known"}, 422, "/line_items"),
    ("/billing/invoices", {"organization_id": "known", "line_items": [{"description": "a"}]}, 422, "/line_items/0/unit_price"),
    (
        "/billing/invoices",
        {"organization_id": "known", "line_items": [{"description": "a", "unit_price": "1e3"}]},
        422,
        "/line_items/0/unit_price",
    ),
    (
        "/billing/invoices",
        {"organization_id": "known", "line_items": [{"description": "a\u0007", "unit_price": "1"}]},
        422,
        "/line_items/0/description",
    ),
    (
        "/billing/invoices",
        {"organization_id": "known", "line_items": [{"description": "a", "unit_price": "1", "quantity": "-1"}]},
        422,
        "/line_items/0/quantity",
    ),
    ("/billing/invoices", {"organization_id": "known", "line_items": [{"description": "a", "unit_price": "1"}] * 201}, 422, "/line_items"),
    (
        "/billing/invoices",
        {"organization_id": "known", "line_items": [{"description": "a", "unit_price": "99999999999999", "quantity": "99999999999999"}]},
        422,
        None,
    ),
    ("/billing/invoices", {"subscription_id": "019a0000-0000-7000-8000-000000000000"}, 404, None),
    ("/billing/payment-methods", {"organization_id": "known", "provider_token": "4242 4242 4242 4242"}, 422, "/provider_token"),
    ("/billing/payment-methods", {"organization_id": "known"}, 422, "/provider_token"),
    (
        "/billing/payment-methods/setup-sessions",
        {"organization_id": "known", "success_url": "javascript:x", "cancel_url": "https://a"},
        422,
        "/success_url",
    ),
    ("/billing/api-keys", {"name": "k", "scopes": []}, 422, "/scopes"),
    ("/billing/api-keys", {"name": "k", "scopes": ["root"]}, 422, "/scopes/0"),
    ("/billing/api-keys", {"name": "k", "scopes": ["admin"], "platform": True, "expires_at": "2020-01-01T00:00:00Z"}, 422, "/expires_at"),
    ("/test-clocks", {"frozen_time": "2026-01-01"}, 422, "/frozen_time"),
    ("/test-clocks", {"frozen_time": "1999-12-31T00:00:00Z"}, 422, "/frozen_time"),
]


@pytest.mark.parametrize(("path", "body", "status", "pointer"), OTHERS)
def test_wrong_input_elsewhere_is_pointed_at(
    api: Api, session: Session, path: str, body: Any, status: int | set[int], pointer: str | None
) -> None:
    api.made("/billing/organizations", organization_body(external_id="known"))
    api.made("/billing/plans", plan_body("starter"))
    refused(api, session, path, body, status, pointer)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=101", "/limit"),
        ("limit=ten", "/limit"),
        ("limit=99999999999999999999999", "/limit"),
        ("limit=5&limit=6", "/limit"),
        ("cursor=nowhere", "/cursor"),
        ("status=lost", "/status"),
        ("status=", "/status"),
        ("organization_id=a&organization_id=b", "/organization_id"),
        ("organisation_id=a", "/organisation_id"),
        ("organization_id[]=a", "/organization_id[]"),
        ("organization_id=%00", "/organization_id"),
        ("subscription_id=7", "/subscription_id"),
    ],
)
def test_a_wrong_parameter_is_pointed_at(api: Api, query: str, pointer: str) -> None:
    answer = api.client.get(f"/api/v1/billing/invoices?{query}", headers=bearer(api.token))
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.get_json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "query",
    [
        "start_date=yesterday",
        "start_date=2026-02-30",
        "start_date=2026-06-01T00:00:00",
        "end_date=9999-12-31",
        "start_date=2026-06-02&end_date=2026-05-01",
        "start_date=2010-01-01&end_date=2026-01-01",
        "metric_name=nothing",
        "granularity=second",
        "start_date=0000-00-00",
    ],
)
def test_a_wrong_range_of_usage_is_refused(api: Api, query: str) -> None:
    api.made("/billing/organizations", organization_body(external_id="known"))
    answer = api.client.get(f"/api/v1/billing/usage/summary?organization_id=known&{query}", headers=bearer(api.token))
    assert answer.status_code == 422, answer.text
    assert answer.get_json()["errors"]


@pytest.mark.parametrize(
    "path",
    [
        "/billing/invoices/1",
        "/billing/invoices/%00",
        "/billing/invoices/../organizations",
        "/billing/nothing",
        "/BILLING/invoices",
        "/billing/organizations/%2e%2e",
        "/billing/organizations/a%00b",
        "/billing/plans/%F0%9F%92%A9",
        "/billing/usage/batches/99999999999999999999999999",
        "/billing/usage/batches/-1",
    ],
)
def test_addresses_that_lead_nowhere_are_404(api: Api, path: str) -> None:
    answer = api.client.get(f"/api/v1{path}", headers=bearer(api.token))
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json"), answer.text


def test_a_wrong_method_is_405_and_names_the_right_ones(api: Api) -> None:
    answer = api.call("PUT", "/billing/organizations", {})
    assert (answer.status_code, answer.mimetype) == (405, "application/problem+json")
    assert {"GET", "POST"} <= {word.strip() for word in answer.headers["Allow"].split(",")}


def test_numbers_keep_every_digit() -> None:
    assert reading.convert(reading.document(b'"12345678901234.123456789012"'), reading.Exact) == reading.Exact(
        "12345678901234.123456789012"
    )
    assert reading.convert(reading.document(b"0.1234567890"), reading.Exact) == reading.Exact("0.1234567890")


@pytest.mark.parametrize("raw", [b"1e5", b"0.1234567890123", b"123456789012345678901", b"[-0.0e0]"])
def test_numbers_out_of_bounds_are_faults(raw: bytes) -> None:
    with pytest.raises(Invalid):
        reading.document(raw)


def test_every_fault_of_a_document_is_named_at_once() -> None:
    with pytest.raises(BillingError) as refused_:
        reading.document(b'{"a": NaN, "b": ["x\\u0000", {"c/d": 1e9}], "e": 1, "e": 2}')
    assert [error.pointer for error in refused_.value.errors] == ["/a", "/b/0", "/b/1/c~1d", "/e"]
