"""When the database is away every door says so politely, and nothing claims to be ready."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from core import config
from core.config import Settings
from ops import ports
from tests.people import bearer
from wsgi import create_app


@pytest.fixture
def client_without_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(config, "_current", None)
    app = create_app(Settings(environment="test", database_url=f"postgresql://nobody:x@127.0.0.1:{ports.free()}/nothing", home=tmp_path))
    return app.test_client()


def test_the_process_lives_but_is_not_ready(client_without_database: FlaskClient) -> None:
    assert client_without_database.get("/healthz").status_code == 200
    answer = client_without_database.get("/readyz")
    assert (answer.status_code, answer.get_json()["database"]) == (503, "not answering")


def test_the_api_asks_to_come_back(client_without_database: FlaskClient) -> None:
    answer = client_without_database.get("/api/v1/billing/invoices", headers=bearer(f"vv_test_{'a' * 43}"))
    assert (answer.status_code, answer.mimetype, answer.headers["Retry-After"]) == (503, "application/problem+json", "1")
    assert "127.0.0.1:" not in answer.get_json()["detail"]


def test_a_page_says_so_in_words(client_without_database: FlaskClient) -> None:
    client_without_database.set_cookie("vv_portal", "anything")
    answer = client_without_database.get("/portal/")
    assert answer.status_code == 503
    assert "The database is not answering" in answer.text
