"""The whole product on a home of its own: starts, answers, keeps its data, stops, leaves no process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from ops import home as homes
from ops import ports

ROOT = Path(__file__).parents[2]
START_SECONDS_MAX = 300
COUNTED_SECONDS_MAX = 60

pytestmark = pytest.mark.stack


class Copy:
    """A copy of the product, started by the operator's own command."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port
        self.console = home.with_suffix(".console")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_", "SMTP_", "STRIPE_"))
        }
        with self.console.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.stack", "--home", str(home), "--port", str(port), "--no-demo"],
                cwd=ROOT, env=environment, stdout=out, stderr=out,
            )  # fmt: skip

    def until_ready(self) -> dict[str, Any]:
        end = time.monotonic() + START_SECONDS_MAX
        while (state := homes.running(self.home)) is None:
            assert self.process.poll() is None, self.console.read_text()
            assert time.monotonic() < end, self.console.read_text()
            time.sleep(0.2)
        return state

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def get(self, path: str) -> tuple[int, bytes]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
            return response.status, response.read()


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vvs-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder / "home"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(home: Path) -> Iterator[object]:
    copies: list[Copy] = []

    def begin(port: int) -> Copy:
        copies.append(Copy(home, port))
        return copies[-1]

    yield begin
    for copy in copies:
        if copy.process.poll() is None:
            copy.process.kill()
            copy.process.wait(30)


def readme_requests() -> list[tuple[str, bytes | None]]:
    """Path and body of each curl command in the README's section on the first event."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Your first event")[1].split("\n## ")[0]
    found = re.findall(r"""curl -sS "\$API([^"]+)"(?:[^'\n]*?-d '([^']*)')?""", section)
    return [(path, body.encode() or None) for path, body in found]


def first_event(copy: Copy) -> dict[str, Any]:
    """Follow the README; the answer to its last command, asked again until the event is counted: the aggregator may still be starting."""
    headers = {
        "Authorization": f"Bearer {(copy.home / 'api-key').read_text().strip()}",
        "Content-Type": "application/json",
        "Prefer": "wait=5",
    }
    answer: dict[str, Any] = {}
    for path, body in readme_requests():
        answer = asked(copy, path, body, headers)
    end = time.monotonic() + COUNTED_SECONDS_MAX
    while answer["metrics"][0]["quantity"] == "0" and time.monotonic() < end:
        time.sleep(0.2)
        answer = asked(copy, path, None, headers)
    return answer


def asked(copy: Copy, path: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{copy.port}/api/v1{path}", body, headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.loads(response.read())
    return answer


def verified(home: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", "verify"],
        cwd=ROOT, env={**os.environ, "VALUEVERSE_HOME": str(home)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_product_starts_answers_survives_a_kill_and_stops_without_a_trace(start, home: Path) -> None:
    copy = start(ports.free())
    state = copy.until_ready()
    assert copy.get("/readyz")[0] == 200
    assert copy.get("/healthz")[0] == 200
    assert {"postgres", "valkey", "mail catcher", "provider fake", "web", "workers", "scheduler", "aggregator"} <= set(state["processes"])
    assert first_event(copy)["metrics"][0]["quantity"] == "3"
    url = state["environment"]["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        settings = {name: connection.execute(f"SHOW {name}").fetchone() for name in ("fsync", "synchronous_commit", "full_page_writes")}
        assert set(settings.values()) == {("on",)}
        connection.execute("CREATE TABLE survives AS SELECT 42 AS answer")

    family = copy.family()
    copy.process.send_signal(signal.SIGKILL)
    copy.process.wait(30)

    again = start(copy.port)  # at once: it waits for what the killed one left
    state = again.until_ready()
    with psycopg.connect(state["environment"]["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT answer FROM survives").fetchone() == (42,)
    assert not psutil.wait_procs(family, timeout=0)[1]

    assert "all hold" in verified(home)
    family = again.family()
    assert len(family) > 8
    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(90) == 0, again.console.read_text()
    assert not psutil.wait_procs(family, timeout=0)[1]
    assert homes.running(home) is None
    assert "pid" not in json.loads((home / "stack.json").read_text())
    assert ports.is_free(copy.port)
    assert "Traceback" not in again.console.read_text()
    assert "all hold" in verified(home)  # with nothing running, the command starts the home's PostgreSQL for its own time
    assert not [process for process in psutil.process_iter(["cmdline"]) if str(home) in " ".join(process.info["cmdline"] or [])]
