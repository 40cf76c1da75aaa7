"""An API client that carries a key, and what tests usually need to exist."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from tests.conftest import Clock
from tests.people import bearer, make_key

_numbers = itertools.count(1)


class Api:
    """The HTTP API as a customer's program calls it."""

    def __init__(self, client: FlaskClient, token: str) -> None:
        self.client = client
        self.token = token

    def call(self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> TestResponse:
        """One request under /api/v1; `key` is its Idempotency-Key."""
        sent = bearer(self.token, **headers)
        if key is not None:
            sent["Idempotency-Key"] = key
        given = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        return self.client.open(f"/api/v1{path}", method=method, headers=sent, **given)

    def get(self, path: str, **query: Any) -> TestResponse:
        """A GET with query parameters."""
        return self.client.get(f"/api/v1{path}", headers=bearer(self.token), query_string=query)

    def post(self, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> TestResponse:
        """A POST of a JSON body."""
        return self.call("POST", path, body, key=key, **headers)

    def made(self, path: str, body: Any) -> dict[str, Any]:
        """What a POST that must succeed has made."""
        answer = self.post(path, body)
        assert answer.status_code in {200, 201}, answer.text
        return answer.get_json()  # type: ignore[no-any-return]


@pytest.fixture
def api(client: FlaskClient, session: Session, clock: Clock) -> Api:
    """The API with a platform key of every scope."""
    return Api(client, make_key(session, None))


@pytest.fixture
def bare(app: Flask, api: Api) -> FlaskClient:
    """A client without a key."""
    return app.test_client()


def organization_body(**given: Any) -> dict[str, Any]:
    """A body that makes an organization."""
    number = next(_numbers)
    return {
        "name": f"Quillmark {number} GmbH",
        "slug": f"quillmark-{number}",
        "billing_email": "billing@quillmark.example",
        "currency": "EUR",
        "timezone": "Europe/Berlin",
        "billing_address": {"line1": "Lindenstraße 5", "city": "Berlin", "postal_code": "10969", "country": "DE"},
        **given,
    }


def plan_body(code: str, **given: Any) -> dict[str, Any]:
    """A body that publishes a plan of 100.00 a month in advance."""
    return {"code": code, "name": "Plan", "currency": "EUR", "billing_period": "month", "base_price": "100.00", **given}
