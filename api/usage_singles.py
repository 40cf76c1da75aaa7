"""`POST /api/v1/billing/usage` with one event, answered in the server's event loop: by the thousand a second, and without a thread each.

Only what is plain is taken here: one JSON object in a small body, without an idempotency key of the request, without a wish to wait.
Everything else, and whatever is not in order, goes on to the endpoint, which knows all forms and says what is wrong.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from api.usage import PATH, Answer, UsageEndpoint
from core.errors import BillingError
from core.metering.together import Single

BODY_BYTES_MAX = 4096
TYPES = frozenset({"application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"})
UNUSUAL = frozenset({"content-encoding", "transfer-encoding", "idempotency-key", "prefer", "ce-specversion"})
BLANK = b" \t\r\n"
ACCEPTED = b'{"batch_id":"%d-%d","accepted":1,"rejected":0,"events":[{"index":0,"status":"accepted","metrics":%b}]}'
Count = Callable[[str, str, str, float], None]


class UsageSingles:
    """A web.gateway.Front. `count` is told route, method, status and seconds of each answer."""

    def __init__(self, endpoint: UsageEndpoint, count: Count | None = None) -> None:
        self._endpoint, self._count = endpoint, count
        self._together = endpoint.together(self._deliver)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer in this loop."""
        self._loop = loop
        self._together.start()

    def close(self) -> None:
        """Answer who waits, and store what is on its way."""
        self._together.close()
        self._endpoint.close()

    def wants(self, scope: Any) -> bool:
        """Whether the request looks like one event."""
        if scope.path != PATH or scope.method != "POST":
            return False
        headers = scope.headers
        size = headers.get("content-length") or ""
        if not size.isdecimal() or not 0 < int(size) <= BODY_BYTES_MAX:
            return False
        return (headers.get("content-type") or "").lower() in TYPES and UNUSUAL.isdisjoint(headers.keys())

    async def answer(self, scope: Any, body: bytes) -> Answer | None:
        """What became of the event; None when it needs a closer look."""
        body = body.strip(BLANK)
        if body[:1] != b"{" or b"\n" in body:
            return None
        began, headers = time.perf_counter(), scope.headers
        single = Single(headers.get("authorization") or "", body, self._loop.create_future())
        try:
            self._together.take(single)
            await single.waiting
        except BillingError as error:
            single.error = error
        if single.error is None and single.stored is None:
            return None
        answer = self._endpoint.answered(headers.get("x-request-id") or "", lambda: _outcome(single))
        if self._count is not None:
            self._count(PATH, "POST", str(answer[0]), time.perf_counter() - began)
        return answer

    def _deliver(self, singles: Sequence[Single]) -> None:
        self._loop.call_soon_threadsafe(_wake, singles)


def _wake(singles: Sequence[Single]) -> None:
    for single in singles:
        if not single.waiting.done():
            single.waiting.set_result(None)


def _outcome(single: Single) -> Answer:
    if single.stored is None:
        assert single.error is not None
        raise single.error
    batch_id, position, codes = single.stored
    return 202, [("Content-Type", "application/json")], ACCEPTED % (batch_id, position, codes.encode())
