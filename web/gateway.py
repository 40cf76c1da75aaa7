"""From the server to Flask: an RSGI application that gives requests to threads, but those its `front` answers in the event loop.

Nearly all of the product waits for a database and lives in threads. A request that comes by the thousand a second and waits for nothing
but a commit it shares with others would spend more on changing threads than on its work. RSGI is granian's own interface
(https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md); the environ is that of PEP 3333.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import structlog
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
HELD_BYTES_MAX = 64 * 1024
"""So much of a body is read before a thread is asked for, so that a slow sender holds none."""
READ_BYTES_MAX = 1024 * 1024
"""So much is read in the event loop; what is larger, or does not say how large it is, by the thread as it asks for it."""
log = structlog.get_logger("valueverse.web")


class Front(Protocol):
    """What answers some requests itself, in the event loop."""

    def wants(self, scope: Any) -> bool:
        """Whether this request is one of those."""
        ...

    async def answer(self, scope: Any, body: bytes) -> tuple[int, Headers, bytes] | None:
        """Status, headers and body; None to leave it to the application after all."""
        ...

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called once before the first request."""
        ...

    def close(self) -> None:
        """Called behind the last."""
        ...


class Gateway:
    """An RSGI application around a WSGI application with `threads` threads."""

    def __init__(self, application: Callable[..., Iterable[bytes]], *, threads: int, front: Front | None = None) -> None:
        self._application, self._front = application, front
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="web")
        self._free = asyncio.Semaphore(threads)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._front is not None:
            self._front.start(loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._front is not None:
            self._front.close()
        self._pool.shutdown(wait=False)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if scope.proto != "http":
            protocol.close(404)
            return
        body: bytes | None = None
        try:
            if self._front is not None and self._front.wants(scope):
                body = await protocol()
                answer = await self._front.answer(scope, body)
                if answer is not None:
                    protocol.response_bytes(*answer)
                    return
            size = _size(scope)
            if body is None and size is not None and size <= HELD_BYTES_MAX:
                body = await protocol() if size else b""
            async with self._free:
                if body is None and size is not None and size <= READ_BYTES_MAX:
                    body = await protocol()
                await self._through(scope, protocol, body)
        except ProtocolClosed:
            log.info("the client left in the middle of its request", path=scope.path)

    async def _through(self, scope: Any, protocol: Any, body: bytes | None) -> None:
        """Let a thread answer; `body` None: it reads the body itself."""
        loop = asyncio.get_running_loop()
        given = io.BytesIO(body) if body is not None else io.BufferedReader(_Arriving(_parts(protocol), loop), HELD_BYTES_MAX)
        await loop.run_in_executor(self._pool, self._answer, environ_of(scope, given), _Answer(protocol, loop))

    def _answer(self, environ: Environ, answer: _Answer) -> None:
        try:
            parts = self._application(environ, answer.start)
            try:
                answer.send(parts)
            finally:
                if hasattr(parts, "close"):
                    parts.close()
        except ProtocolClosed:
            log.info("the client left in the middle of its answer", path=environ["PATH_INFO"])
        except Exception:
            log.exception("a request failed outside of the application", path=environ["PATH_INFO"])
            answer.fail()


class _Arriving(io.RawIOBase):
    """A body as it comes in, read by a thread."""

    def __init__(self, parts: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._parts, self._loop = parts, loop
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        """At most as much as there is room for; 0 at the end, also where the client left."""
        while not self._rest:
            part = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            if part is None:
                return 0
            self._rest = memoryview(part)
        size = min(len(into), len(self._rest))
        into[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    async def _next(self) -> bytes | None:
        return await anext(self._parts, None)


class _Answer:
    """The answer of a WSGI application on its way to the server."""

    def __init__(self, protocol: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._protocol, self._loop = protocol, loop
        self._status, self._headers = 500, [("content-type", "text/plain")]
        self._begun = False

    def start(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        """WSGI's start_response. The old way of writing past the returned parts is not offered."""
        if exc_info is not None and self._begun:
            raise exc_info[1].with_traceback(exc_info[2])
        self._status, self._headers = int(status[:3]), [(name.lower(), value) for name, value in headers]
        return _unsupported

    def send(self, parts: Iterable[bytes]) -> None:
        """What says how long it is goes as a whole, everything else part by part, as fast as the client takes it."""
        if any(name == "content-length" for name, _ in self._headers) or isinstance(parts, (list, tuple)):
            body = b"".join(parts)
            self._begun = True
            self._loop.call_soon_threadsafe(self._whole, body)
            return
        transport = None
        for part in parts:
            if transport is None:
                transport, self._begun = self._run(self._stream()), True
            if part:
                self._run(transport.send_bytes(part))
        if transport is None:
            self._begun = True
            self._loop.call_soon_threadsafe(self._whole, b"")

    def fail(self) -> None:
        """Say that something went wrong, if nothing was said yet."""
        if not self._begun:
            self._status, self._headers = 500, [("content-type", "text/plain")]
            self._loop.call_soon_threadsafe(self._whole, b"Internal Server Error")

    def _whole(self, body: bytes) -> None:
        if body:
            self._protocol.response_bytes(self._status, self._headers, body)
        else:
            self._protocol.response_empty(self._status, self._headers)

    async def _stream(self) -> Any:
        return self._protocol.response_stream(self._status, self._headers)

    def _run(self, waiting: Any) -> Any:
        async def awaited() -> Any:
            return await waiting

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()


def environ_of(scope: Any, body: Any) -> Environ:
    """The environ of PEP 3333. A header with an underscore in its name is left out: it would be taken for the one with a hyphen."""
    host, _, port = scope.server.rpartition(":")
    environ: Environ = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "SERVER_SOFTWARE": "granian",
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        if key in environ:
            environ[key] += f"{'; ' if key == 'HTTP_COOKIE' else ','}{value}"
        else:
            environ[key] = value
    if scope.authority and "HTTP_HOST" not in environ:
        environ["HTTP_HOST"] = scope.authority
    return environ


def _size(scope: Any) -> int | None:
    """How large the body says it is; None where it does not."""
    given = scope.headers.get("content-length")
    if given is None:
        return None if "transfer-encoding" in scope.headers or scope.http_version not in ("1", "1.0", "1.1") else 0
    return int(given) if given.isdecimal() else None


async def _parts(protocol: Any) -> AsyncIterator[bytes]:
    """The parts of a body. A generator, because anext() with a default takes the interpreter down with the server's own awaitables."""
    async for part in protocol:
        yield part


def _unsupported(_part: bytes) -> None:
    raise NotImplementedError("start_response() returns no write() here")
