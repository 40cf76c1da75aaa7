"""The product as the drills need it: database, web server and aggregator that can be killed and started again, behind proxies."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from core.metering import log
from ops import ingest_stack, leash, migrate, ports, postgres
from ops.ingest_stack import ROOT, until
from ops.proxy import Proxy
from web.gateway import Gateway

START_SECONDS_MAX = 120.0
COUNTING = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'usage aggregator b')"
IDLE = "SELECT NOT EXISTS (SELECT FROM usage_pending) AND NOT EXISTS (SELECT FROM metrics WHERE counted_at IS NULL)"
CARELESS = {"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}
"""PostgreSQL that writes what was committed asynchronously as late as it may: what stands in its memory alone dies with it."""


def careless() -> Gateway:
    """The web application, made to acknowledge before the commit is on disk: the control that shows that a drill bites."""
    from wsgi import serve

    log.SESSION = log.SESSION.replace("synchronous_commit = on", "synchronous_commit = off")
    return serve()


@dataclass
class Site:
    """The running product. Its methods belong to the main thread: children die with the thread that started them."""

    cluster: postgres.Cluster
    folder: Path
    token: str
    database: Proxy
    web_port: int
    front: Proxy
    application: str = "wsgi:serve"
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """What SQL answers, past the proxy."""
        with psycopg.connect(self.cluster.url(), autocommit=True) as connection:
            return connection.execute(statement, values).fetchall()

    def one(self, statement: str, *values: Any) -> Any:
        """The first value SQL answers."""
        return self.rows(statement, *values)[0][0]

    def change(self, *statements: str) -> None:
        """Do these in one transaction, past the proxy."""
        with psycopg.connect(self.cluster.url()) as connection:
            for statement in statements:
                connection.execute(statement)

    def start(self, name: str) -> None:
        """Start `web` or `aggregator`; it may take a while to be ready."""
        commands = {"web": ingest_stack.granian(self.application, self.web_port), "aggregator": ["workers.aggregator"]}
        url = self.cluster.url().replace(f":{self.cluster.port}/", f":{self.database.port}/")
        given = {"DATABASE_URL": url, "VALUEVERSE_ENV": "test", "WEB_THREADS": "64"}
        given |= {"USAGE_RATE_PER_SECOND": "10000000", "USAGE_FLUSH_SECONDS": "0.05"}
        command = leash.command([sys.executable, "-m", *commands[name]])
        with (self.folder / f"{name}.log").open("ab") as out:
            self.children[name] = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **given}, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def ready(self, name: str) -> bool:
        """Whether the web server answers, or the aggregator has the lock and counts. RuntimeError when it ended by itself."""
        ended = self.children[name].poll()
        if ended is not None:
            raise RuntimeError(f"{name} ended ({ended}):\n{(self.folder / f'{name}.log').read_text()[-2000:]}")
        return ingest_stack.answers(self.web_port) if name == "web" else bool(self.one(COUNTING))

    def wait(self, name: str) -> None:
        """Until it is ready."""
        until(lambda: self.ready(name), f"{name} is ready", START_SECONDS_MAX)

    def kill(self, name: str) -> None:
        """SIGKILL to `web`, `aggregator` or `postgres` and all below it, at once."""
        if name == "postgres":
            server = self.cluster.process
            assert server is not None
            for process in [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            server.wait(60)
        else:
            os.killpg(self.children[name].pid, signal.SIGKILL)
            self.children[name].wait(60)

    def restart(self, name: str) -> None:
        """Start again what was killed."""
        if name == "postgres":
            self.cluster.start(self.folder / "postgres.log")
        else:
            self.start(name)

    def pause(self, name: str) -> None:
        """Let a process stand still until `resume`."""
        self.children[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let it go on."""
        self.children[name].send_signal(signal.SIGCONT)

    def drain(self, seconds: float) -> None:
        """Until everything in the log is counted."""
        until(lambda: self.one(IDLE), "everything is counted", seconds)

    def memory(self) -> int:
        """Bytes the processes of the web server hold."""
        server = psutil.Process(self.children["web"].pid)
        return sum(process.memory_info().rss for process in [server, *server.children(recursive=True)])


@contextmanager
def site(organizations: int, settings: Mapping[str, str] | None = None) -> Iterator[Site]:
    """Everything on a fresh database with that many organizations; killed and deleted at the end. `settings`: PostgreSQL's own."""
    base = postgres.SHARED if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="vvb-", dir=base))
    folder.chmod(0o755)
    cluster = postgres.Cluster(folder / "pg", ports.free(), secrets.token_urlsafe(16), dict(settings or postgres.durable()))
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster.create()
        undo.callback(cluster.stop)
        cluster.start(folder / "postgres.log")
        migrate.upgrade(cluster.url())
        database, web_port = Proxy(cluster.port), ports.free()
        undo.callback(database.close)
        front = Proxy(web_port, seed=7)
        undo.callback(front.close)
        made = Site(cluster, folder, ingest_stack.fill(cluster.url(), organizations), database, web_port, front)
        undo.callback(_end, made)
        for name in ("web", "aggregator"):
            made.start(name)
        for name in ("web", "aggregator"):
            made.wait(name)
        made.drain(START_SECONDS_MAX)
        yield made


def _end(made: Site) -> None:
    for name in made.children:
        with contextlib.suppress(ProcessLookupError):
            made.kill(name)
