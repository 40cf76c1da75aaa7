"""Monitoring: nobody finds it without its token; with it, counts of every process and the state of the database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core.analytics import monitor
from tests.conftest import Clock

TOKEN = "m" * 32
PROGRAM = f"""
import multiprocessing, sys
from pathlib import Path
from core.config import Settings
from wsgi import create_app

HOME = Path(sys.argv[2])

def make():
    return create_app(Settings(environment="test", database_url=sys.argv[1], home=HOME, metrics_token="{TOKEN}")).test_client()

def other_process():
    client = make()
    client.get("/healthz"), client.get("/no-such-page")

if __name__ == "__main__":
    client = make()
    assert client.get("/healthz").status_code == 200
    process = multiprocessing.get_context("spawn").Process(target=other_process)
    process.start()
    process.join()
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={{"Authorization": "Bearer " + "n" * 32}}).status_code == 404
    answer = client.get("/metrics", headers={{"Authorization": "Bearer {TOKEN}"}})
    assert answer.status_code == 200, answer.text
    print(answer.text)
"""


def test_each_measure_is_a_statement_that_runs(session: Session, clock: Clock) -> None:
    found = {measure.name: measure for measure in monitor.measures(session, at=clock.now())}
    assert {name for name, *_ in monitor.QUERIES} <= found.keys()
    assert set(found["billing_usage_events"].samples) == {"counted", "duplicate", "conflict"}
    assert found["billing_database_size_bytes"].samples[""] > 1e6


def test_without_a_token_there_is_no_such_page(app: Flask, client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


def test_processes_count_together(database_url: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    done = subprocess.run(
        [sys.executable, str(program), database_url, str(tmp_path / "home")],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert 'http_requests_total{code="200",method="GET",route="/healthz",site="healthz"} 2.0' in lines
    assert 'http_requests_total{code="404",method="GET",route="other",site="other"} 1.0' in lines
    assert "billing_usage_backlog_events 0.0" in lines
    assert 'billing_usage_events_total{result="counted"} 0.0' in lines
