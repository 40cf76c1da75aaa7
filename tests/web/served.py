"""A small WSGI application behind the gateway, for a real server: `granian --interface rsgi --factory tests.web.served:served`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from web.gateway import Gateway

THREADS = 3
LARGE = bytes(range(256)) * 8192
closed: list[str] = []


class Parts:
    """What a view that streams returns: parts one after another, and a close()."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        closed.append("parts")


def slowly() -> Iterator[bytes]:
    for number in range(3):
        yield b"%d\n" % number
        time.sleep(0.3)


def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Each path is one way to answer."""
    path = environ["PATH_INFO"]
    if path == "/parts":
        start("200 OK", [("Content-Type", "text/plain")])
        return Parts(slowly())
    if path == "/broken-parts":
        start("200 OK", [])
        return Parts(1 // (3 - number) and b"part" for number in range(4))
    if path == "/broken":
        raise ZeroDivisionError
    if path == "/nothing":
        start("204 No Content", [])
        return []
    if path == "/slow":
        time.sleep(0.5)
    body = LARGE if path == "/large" else json.dumps(seen(environ)).encode()
    start(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    )
    return [] if environ["REQUEST_METHOD"] == "HEAD" else Parts([body[:10], body[10:]])


def seen(environ: dict[str, Any]) -> dict[str, Any]:
    """The environ as JSON, and what was in the body."""
    body = environ["wsgi.input"].read() if environ["PATH_INFO"] != "/unread" else b""
    shown = {name: value for name, value in environ.items() if isinstance(value, str)}
    return {**shown, "size": len(body), "digest": hashlib.sha256(body).hexdigest(), "closed": len(closed)}


class Front:
    """Answers /front/taken, and leaves /front/left to the application after having read its body."""

    def wants(self, scope: Any) -> bool:
        return str(scope.path).startswith("/front/")

    async def answer(self, scope: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes] | None:
        return (202, [("x-front", "yes")], b"front:" + body) if scope.path == "/front/taken" else None

    def start(self, loop: Any) -> None:
        pass

    def close(self) -> None:
        pass


def served() -> Gateway:
    """What granian serves."""
    return Gateway(application, threads=THREADS, front=Front())
