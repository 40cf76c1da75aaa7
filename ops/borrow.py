"""What a command works on: the copy of the product that runs, or its database, started for the length of the command when nothing runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from ops import home, leash, ports, postgres
from ops.home import ROOT, Home, HomeError
from ops.supervisor import python

START_SECONDS_MAX = 600.0
STOP_SECONDS_MAX = 90.0
MAIL_SECONDS_MAX = 90.0


@contextmanager
def database(path: Path) -> Iterator[None]:
    """Point this process's settings at a database: the one DATABASE_URL names, else the home's, running or started for the moment.

    HomeError when the home has none.
    """
    if os.environ.get("DATABASE_URL"):
        yield
        return
    state = home.running(path)
    if state is not None:
        adopt(state)
        yield
        return
    with opened(path) as (own, cluster):
        cluster.recover()
        try:
            cluster.start(own.log("postgres"))
            adopt({**own.state, "environment": {**own.state["environment"], "DATABASE_URL": cluster.url()}})
            yield
        finally:
            cluster.stop()


@contextmanager
def opened(path: Path) -> Iterator[tuple[Home, postgres.Cluster]]:
    """The home's own data under its lock, nothing started yet."""
    folder = postgres.data_folder(path) / "postgres" if path.exists() else path
    if not (folder / "PG_VERSION").exists() or "environment" not in home.read_state(path):
        raise HomeError(
            f"nothing runs on {path} and there are no data in it; `make run` starts the product, DATABASE_URL names another database"
        )
    own = Home(path)
    own.open()
    yield own, postgres.Cluster(folder, ports.free(), own.secrets()["POSTGRES_PASSWORD"], postgres.durable())


@contextmanager
def product(path: Path) -> Iterator[dict[str, Any]]:
    """The state of the copy that runs on `path` (`urls`, `environment`); without one, a copy of its own is started in `path`/trial.

    This process's settings become those of the copy.
    """
    state = home.running(path)
    if state is not None:
        adopt(state)
        yield state
        return
    own = path / "trial"
    state = home.running(own)
    if state is not None:
        adopt(state)
        yield state
        return
    process = subprocess.Popen(
        leash.command(python("-m", "ops.stack", "--home", own, "--port", str(ports.free()), "--no-demo")),
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr,
    )  # fmt: skip
    try:
        state = _ready(own, process)
        adopt(state)
        yield state
        show_mails(state)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS_MAX)


def show_mails(state: dict[str, Any]) -> None:
    """Wait until every mail of the copy has left, and say which came to its mail catcher."""
    waiting = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM notifications WHERE status IN ('pending', 'sending'))"
    end = time.monotonic() + MAIL_SECONDS_MAX
    with psycopg.connect(state["environment"]["DATABASE_URL"], autocommit=True) as connection:
        while connection.execute(waiting).fetchone() != (0,):
            if time.monotonic() > end:
                print(f"some mails have not left after {MAIL_SECONDS_MAX:.0f} s; they will at the next start", file=sys.stderr)
                return
            time.sleep(0.2)
    if "mail" in state["urls"]:
        with urllib.request.urlopen(f"{state['urls']['mail']}/mails.json", timeout=10) as response:
            for mail in reversed(json.load(response)):
                files = ", ".join(file["name"] for file in mail["attachments"])
                print(f"mailed to {mail['to']}: {mail['subject']}{f' ({files})' if files else ''}", file=sys.stderr)


def _ready(path: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    end = time.monotonic() + START_SECONDS_MAX
    while process.poll() is None and time.monotonic() < end:
        state = home.running(path)
        if state is not None:
            return state
        time.sleep(0.2)
    raise HomeError(f"the product did not start on {path}; its logs are in {path / 'log'}")


def adopt(state: dict[str, Any]) -> None:
    """Make the copy's settings those of this process; what the caller's environment names wins."""
    for name, value in state["environment"].items():
        os.environ.setdefault(name, value)
