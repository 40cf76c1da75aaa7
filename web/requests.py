"""What every request carries: an id that also stands in the answer, in the logs and in the audit trail, and one log line."""

from __future__ import annotations

import re
import secrets
import time

import structlog
from flask import Flask, Response, g, request

log = structlog.get_logger("valueverse.requests")

HEADER = "X-Request-ID"
ACCEPTED = re.compile(r"[A-Za-z0-9._-]{8,64}")
QUIET = frozenset({"static", "assets.bundle", "healthz", "readyz", "metrics"})


def init_app(app: Flask) -> None:
    """Give each request `g.request_id`, return it as a header and log the request when it has been answered."""
    app.before_request(_begin)
    app.after_request(_end)


def new_id() -> str:
    """A request id of our own."""
    return f"req_{secrets.token_hex(10)}"


def _begin() -> None:
    given = request.headers.get(HEADER, "")
    g.request_id = given if ACCEPTED.fullmatch(given) else new_id()
    g.started = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response: Response) -> Response:
    response.headers[HEADER] = g.request_id
    if request.endpoint not in QUIET:
        milliseconds = round((time.perf_counter() - g.started) * 1000, 1)
        actor = g.get("actor")
        log.info(
            "request",
            method=request.method,
            route=request.url_rule.rule if request.url_rule else None,
            status=response.status_code,
            ms=milliseconds,
            ip=request.remote_addr,
            actor=actor.id if actor else None,
        )
    return response
