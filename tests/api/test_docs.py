"""The documentation covers what there is: every address, every field, every error code in the source."""

from __future__ import annotations

import re
from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient

from api.problems import CODES

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"""(?:\bcode(?:, title)? = |code=|status, code, title = \d+, )["']([a-z_]+)["']""")


def test_every_error_code_of_the_source_is_explained() -> None:
    found: set[str] = set()
    for folder in ("core", "api"):
        for path in (ROOT / folder).rglob("*.py"):
            if not {"metering", "ledger", "selfcheck"} & set(path.parts):
                found |= set(CODE.findall(path.read_text(encoding="utf-8")))
    assert found - set(CODES) == set()


def test_every_api_route_is_in_the_document(app: Flask, client: FlaskClient) -> None:
    described = client.get("/api/v1/openapi.json").get_json()
    assert described["openapi"] == "3.1.0"
    known = {(method.upper(), path) for path, operations in described["paths"].items() for method in operations}
    known |= {("GET", "/openapi.json"), ("GET", "/docs"), ("POST", "/webhooks/stripe")}
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/v1/"):
            path = re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule.rule.removeprefix("/api/v1"))
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                assert (method, path) in known


def test_every_operation_documents_its_errors_as_problems(client: FlaskClient) -> None:
    described = client.get("/api/v1/openapi.json").get_json()
    for operations in described["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            for status in ("400", "401", "403", "404", "409", "413", "415", "422", "429"):
                assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


def test_the_page_shows_every_operation_and_code_without_a_script(client: FlaskClient) -> None:
    page = client.get("/api/v1/docs")
    assert page.status_code == 200
    described = client.get("/api/v1/openapi.json").get_json()
    for operations in described["paths"].values():
        for operation in operations.values():
            assert f'id="{operation["operationId"]}"' in page.text
    assert all(f'id="{code}"' in page.text for code in CODES)
    assert "`" not in page.text.partition("<main")[2]
