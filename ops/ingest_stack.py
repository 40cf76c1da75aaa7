"""The product as the ingest bench needs it: fresh database, web server and aggregator, thrown away at the end."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg

from core import config
from core.config import Settings
from core.identity.keys import SECRET_LENGTH, hash_token
from core.metering import additions, chosen, compiled, entries, narrow
from core.metering.entries import ENTRY
from ops import migrate, ports, postgres

ROOT = Path(__file__).resolve().parents[1]
METRICS = [f"metric_{i}" for i in range(8)]
WEB_WORKERS, WEB_THREADS = 1, 64
SEGMENT_KEYS = 100_000


@dataclass
class Stack:
    """The running product: database, web server, aggregator; `processes` are those whose CPU time counts."""

    url: str
    port: int
    token: str
    folder: Path
    processes: dict[str, int]

    def one(self, statement: str, *values: Any) -> Any:
        """The first value SQL answers."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(statement, values).fetchone()
            return row[0] if row else None

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of each process with its children."""
        return {name: _cpu(pid) for name, pid in self.processes.items()}

    def memory(self, name: str) -> int:
        """Bytes a process holds."""
        return int(psutil.Process(self.processes[name]).memory_info().rss)


def _cpu(pid: int) -> float:
    """CPU seconds so far of a process and its children. One that ends meanwhile leaves its time to its parent: then all are read again."""
    while True:
        try:
            return _cpu_now(psutil.Process(pid))
        except psutil.NoSuchProcess:
            if not psutil.pid_exists(pid):
                raise


def _cpu_now(process: psutil.Process) -> float:
    own = process.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system
    return total


@contextmanager
def stack(organizations: int, earlier_keys: int = 0) -> Iterator[Stack]:
    """Start everything on a fresh database with that many organizations; stop it and delete the data at the end.

    `earlier_keys` idempotency keys have been counted already. What they compile is compiled before.
    """
    base = postgres.SHARED if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="vvb-", dir=base))
    folder.chmod(0o755)
    for code in (compiled.SCAN, chosen.WEAVE, narrow.NARROWING, entries.HASHES, entries.PROBING, additions.PGROWS):
        code.load()
    cluster = postgres.Cluster(folder / "pg", ports.free(), secrets.token_urlsafe(16), postgres.durable())
    children: list[subprocess.Popen[bytes]] = []
    try:
        cluster.create()
        cluster.start(folder / "postgres.log")
        url, port = cluster.url(), ports.free()
        migrate.upgrade(url)
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "VALUEVERSE_ENV": "test",
            "USAGE_RATE_PER_SECOND": "10000000",
            "WEB_WORKERS": str(WEB_WORKERS),
            "WEB_THREADS": str(WEB_THREADS),
        }
        token = fill(url, organizations)
        _remember(url, earlier_keys)
        web = granian("wsgi:serve", port, WEB_WORKERS)
        with (folder / "children.log").open("wb") as out:
            commands = ([sys.executable, "-m", *words] for words in (web, ["workers.aggregator"]))
            children += [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out) for command in commands]
        until(lambda: _all_run(children) and answers(port), "the web server answers", 300)
        until(
            lambda: _all_run(children) and not _value(url, "SELECT EXISTS (SELECT FROM metrics WHERE counted_at IS NULL)"),
            "the aggregator counts",
            300,
        )
        pids = {"web": children[0].pid, "aggregator": children[1].pid, "postgres": cluster.process.pid if cluster.process else 0}
        yield Stack(url, port, token, folder, pids)
    except Exception:
        log = folder / "children.log"
        print(log.read_text()[-4_000:] if log.exists() else "nothing was started", file=sys.stderr)
        raise
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(60)
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def granian(application: str, port: int, workers: int = 1) -> list[str]:
    """The words behind `python -m` that serve an application factory."""
    words = ["granian", "--interface", "rsgi", "--factory", application, "--port", str(port), "--workers", str(workers)]
    # A worker that is asked to stop while it starts misses it, and would be waited for without end.
    return [*words, "--log-level", "error", "--workers-kill-timeout", "10"]


@contextmanager
def answering_204(folder: Path) -> Iterator[int]:
    """The same web server with an application that reads the body and answers 204; its port."""
    port = ports.free()
    with (folder / "bare.log").open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", *granian("ops.ingest_stack:nothing", port, WEB_WORKERS)], cwd=ROOT, stdout=out, stderr=out
        )
    try:
        until(lambda: answers(port), "the bare server answers", 60)
        yield port
    finally:
        child.terminate()
        child.wait(60)


def nothing() -> Callable[[Any, Any], Awaitable[None]]:
    """An RSGI application that takes everything and says nothing (200 where somebody asks whether it is there)."""

    async def application(scope: Any, protocol: Any) -> None:
        await protocol()
        protocol.response_empty(200 if scope.path == "/healthz" else 204, [])

    return application


def _remember(url: str, keys: int) -> None:
    """Segments of random keys, as if they had been counted today."""
    into = "COPY usage_dedup_segments (received_on, entries, keys) FROM STDIN (FORMAT binary)"
    with psycopg.connect(url) as connection, connection.cursor() as cursor, cursor.copy(into) as copy:
        copy.set_types(["date", "int4", "bytea"])
        for size in [SEGMENT_KEYS] * (keys // SEGMENT_KEYS):
            copy.write_row((datetime.now(UTC).date(), size, secrets.token_bytes(size * ENTRY.itemsize)))


def fill(url: str, organizations: int) -> str:
    """Organizations, metrics and a platform key; its token."""
    config.use(Settings(environment="test", database_url=url))
    token = f"vv_test_{'A' * SECRET_LENGTH}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            """INSERT INTO organizations (name, slug, external_id, billing_email, currency, timezone, billing_address, updated_at)
            SELECT 'Bench ' || i, 'bench-' || i, 'bench-' || i, 'bench@example.com', 'EUR', 'UTC', '{}', now() - interval '1 day'
            FROM generate_series(1, %s) i""",
            (organizations,),
        )
        for code in METRICS:
            connection.execute(
                "INSERT INTO metrics (code, name, aggregation, event_name) VALUES (%(code)s, %(code)s, 'sum', %(code)s)", {"code": code}
            )
            connection.execute("INSERT INTO usage_event_names (name) VALUES (%s)", (code,))
        connection.execute(
            """INSERT INTO api_keys (name, mode, prefix, key_hash, scopes, created_by, created_at)
            VALUES ('bench', 'test', 'vv_test_A', %s, '{usage:write}', 'bench', now())""",
            (hash_token(token),),
        )
    return token


def _all_run(children: Sequence[subprocess.Popen[bytes]]) -> bool:
    """True; raises RuntimeError when one of them has ended."""
    if any(child.poll() is not None for child in children):
        raise RuntimeError("a process of the product ended")
    return True


def answers(port: int) -> bool:
    """Whether the web server there says that it lives."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _value(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement).fetchone()
        return row[0] if row else None


def until(condition: Callable[[], Any], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for: {what}")
        time.sleep(0.05)
