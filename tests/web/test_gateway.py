"""The gateway under a real server: what arrives in the application, what arrives at the client, and who goes in between."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import ports
from tests.web.served import LARGE, THREADS

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 30.0
MIB = 1024 * 1024


class Server:
    """granian with tests.web.served."""

    def __init__(self) -> None:
        self.port = ports.free()
        words = ["--interface", "rsgi", "--factory", "tests.web.served:served", "--port", str(self.port), "--workers-kill-timeout", "10"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "granian", *words, "--log-level", "error"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + SECONDS_MAX
        while not self.is_up():
            assert self.process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.05)

    def is_up(self) -> bool:
        try:
            return self.ask("GET /nothing HTTP/1.1")[0] == 204
        except OSError:
            return False

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS_MAX)

    def ask(self, line: str, *headers: str, body: bytes = b"") -> tuple[int, list[tuple[str, str]], bytes]:
        """One request on a connection of its own: status, headers, and everything behind them, as it is on the wire."""
        length = [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([line, "Host: shop.example:81", "Connection: close", *length, *headers]) + "\r\n\r\n"
        with self.connect() as connection:
            connection.sendall(head.encode() + body)
            raw = b"".join(iter(lambda: connection.recv(65_536), b""))
        status, *lines = raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        found = [(name.lower(), value.strip()) for name, _, value in (one.partition(":") for one in lines)]
        return int(status.split()[1]), found, raw.partition(b"\r\n\r\n")[2]

    def seen(self, line: str, *headers: str, body: bytes = b"") -> dict[str, Any]:
        """What the application saw of a request."""
        status, _, answer = self.ask(line, *headers, body=body)
        assert status == 200
        found: dict[str, Any] = json.loads(answer)
        return found


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.process.terminate()
    made.process.wait(SECONDS_MAX)


def test_the_environ_is_that_of_wsgi(server: Server) -> None:
    headers = ["X-A: 1", "X-A: 2", "Cookie: a=1", "Cookie: b=2", "X_Forwarded_For: 6.6.6.6", "Content-Type: text/plain"]
    seen = server.seen("POST /caf%C3%A9/x%2Fy?q=%41+b HTTP/1.1", *headers, body=b"abc")
    wanted = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/caf\u00c3\u00a9/x/y",
        "QUERY_STRING": "q=%41+b",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "shop.example:81",
        "HTTP_X_A": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "wsgi.url_scheme": "http",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "size": 3,
    }
    assert {name: seen.get(name) for name in wanted} == wanted
    assert not any("FORWARDED" in name for name in seen), "an underscore must not pass for a hyphen"
    assert not any(name in seen for name in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_PROXY"))


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, MIB, MIB + 1, 5 * MIB])
def test_bodies_of_any_size_arrive_whole(server: Server, size: int) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    seen = server.seen("POST /body HTTP/1.1", body=body)
    assert (seen["size"], seen["digest"]) == (size, hashlib.sha256(body).hexdigest())


def test_a_body_that_does_not_say_how_long_it_is(server: Server) -> None:
    parts = [b"a" * 70_000, b"b", b"c" * 5]
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
    with server.connect() as connection:
        connection.sendall(b"POST /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
        raw = b"".join(iter(lambda: connection.recv(65_536), b""))
    seen = json.loads(raw.partition(b"\r\n\r\n")[2])
    assert (seen["size"], seen["digest"]) == (70_006, hashlib.sha256(b"".join(parts)).hexdigest())


def test_a_body_nobody_reads_is_no_trouble(server: Server) -> None:
    assert server.seen("POST /unread HTTP/1.1", body=b"x" * 100_000)["size"] == 0
    assert server.is_up()


@pytest.mark.parametrize("promised", [100, 200_000, 2 * MIB])
def test_clients_that_leave_hold_no_thread(server: Server, promised: int) -> None:
    for _ in range(3 * THREADS):
        with server.connect() as connection:
            connection.sendall(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nabc" % promised)
            time.sleep(0.02)
    assert server.is_up()


def test_slow_senders_of_small_bodies_hold_no_thread(server: Server) -> None:
    waiting = [server.connect() for _ in range(3 * THREADS)]
    for connection in waiting:
        connection.sendall(b"POST /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\na")
    assert server.is_up()
    for connection in waiting:
        connection.sendall(b"bc")
        answer = b"".join(iter(lambda connection=connection: connection.recv(65_536), b""))  # type: ignore[misc]
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["size"] == 3
        connection.close()


def test_answers_of_all_kinds(server: Server) -> None:
    status, headers, body = server.ask("GET /large HTTP/1.1")
    assert (status, body) == (200, LARGE)
    assert [value for name, value in headers if name == "set-cookie"] == ["a=1", "b=2"]
    status, headers, body = server.ask("HEAD /large HTTP/1.1")
    assert (status, dict(headers)["content-length"], body) == (200, str(len(LARGE)), b"")
    status, headers, body = server.ask("GET /nothing HTTP/1.1")
    assert (status, body) == (204, b"")
    assert server.ask("GET /broken HTTP/1.1")[0] == 500


def test_parts_arrive_as_they_are_made_and_are_closed(server: Server) -> None:
    before = server.seen("GET /x HTTP/1.1")["closed"]
    arrived: list[tuple[float, bytes]] = []
    with server.connect() as connection:
        connection.sendall(b"GET /parts HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while part := connection.recv(65_536):
            arrived.append((time.monotonic(), part))
    assert len(arrived) >= 3, "it came in one piece"
    assert b"0\n" in b"".join(part for _, part in arrived)
    assert b"2\n" in arrived[-1][1] or b"2\n" in arrived[-2][1]
    assert server.seen("GET /x HTTP/1.1")["closed"] >= before + 2
    server.ask("GET /broken-parts HTTP/1.1")
    for _ in range(2 * THREADS):
        with server.connect() as connection:
            connection.sendall(b"GET /parts HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.recv(10)
    assert server.is_up()


def test_more_requests_than_threads_wait_their_turn(server: Server) -> None:
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(server.ask("GET /slow HTTP/1.1")[0])) for _ in range(3 * THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS_MAX)
    assert statuses == [200] * len(threads)


def test_the_front_answers_or_leaves_it_to_the_application(server: Server) -> None:
    status, headers, body = server.ask("POST /front/taken HTTP/1.1", body=b"abc")
    assert (status, dict(headers)["x-front"], body) == (202, "yes", b"front:abc")
    assert server.seen("POST /front/left HTTP/1.1", body=b"abc")["digest"] == hashlib.sha256(b"abc").hexdigest()


def test_what_is_under_way_is_answered_before_the_server_stops() -> None:
    server = Server()
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(server.ask("GET /slow HTTP/1.1")[0]))
    thread.start()
    time.sleep(0.2)
    server.process.send_signal(signal.SIGTERM)
    thread.join(SECONDS_MAX)
    assert statuses == [200]
    assert server.process.wait(SECONDS_MAX) is not None
