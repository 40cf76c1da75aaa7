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
from tests.api.corpus import ORGANIZATION, OTHERS, RAW
from tests.people import bearer

FAST_SECONDS = 0.5


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
