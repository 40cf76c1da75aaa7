"""The API does what its OpenAPI document says: schemathesis sends thousands of requests made from the served document over HTTP."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import make_server

from core.db import db
from tests.api.conftest import Api, organization_body, plan_body
from tests.people import make_key

CONFIG = """
[checks.positive_data_acceptance]
# 422 also stands for rules JSON Schema has no words for: tiers in order, a plan's currency, an end after its start.
expected-statuses = ["2xx", "401", "402", "403", "404", "409", "422", "429"]
"""
SECONDS_MAX = 40
APART = ("revoke_api_key", "advance_test_clock")
"""Run on their own: the first would revoke the key the run itself uses, the second waits for a worker."""


@pytest.fixture(scope="module")
def served(committed_app: Flask) -> Iterator[tuple[str, str]]:
    """The API on a port of its own with a customer to act on; its address and a platform key."""
    with committed_app.app_context():
        token = make_key(db.session(), None)
        db.session().commit()
    api = Api(committed_app.test_client(), token)
    api.made("/billing/organizations", organization_body(external_id="known"))
    api.made("/billing/plans", plan_body("starter"))
    api.made("/billing/subscriptions", {"organization_id": "known", "plan": "starter"})
    server = make_server("127.0.0.1", 0, committed_app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api/v1", token
    server.shutdown()
    thread.join()


def run(served: tuple[str, str], folder: Path, *chosen: str, seconds: int = SECONDS_MAX) -> subprocess.CompletedProcess[str]:
    base, token = served
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{base}/openapi.json", "--url", base]
    command += [
        "--header",
        f"Authorization: Bearer {token}",
        "--seed",
        "7",
        "--generation-deterministic",
        "--no-shrink",
        "--continue-on-failure",
    ]
    command += ["--max-examples", "3", "--max-time", str(seconds), "--phases", "examples,coverage,fuzzing", *chosen]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX * 6, check=False)


def test_every_answer_is_as_described(served: tuple[str, str], tmp_path: Path) -> None:
    apart = [word for name in APART for word in ("--exclude-operation-id", name)]
    done = run(served, tmp_path, *apart)
    assert done.returncode == 0, done.stdout[-8_000:]
    assert "Selected" in done.stdout


@pytest.mark.parametrize("name", APART)
def test_answers_of_what_needs_a_run_of_its_own_are_as_described(served: tuple[str, str], tmp_path: Path, name: str) -> None:
    done = run(served, tmp_path, "--include-operation-id", name, "--header", "Prefer: wait=0", seconds=10)
    assert done.returncode == 0, done.stdout[-8_000:]
