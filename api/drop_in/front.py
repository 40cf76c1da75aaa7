"""The way in: foreign addresses are answered in front of Flask, everything else is handed on."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import Any

from flask import Flask

from api.drop_in import cloud_events, lago, openmeter, problem, stripe_errors, stripe_events
from api.drop_in.translation import Answer, Environ, Pipeline, carried_out
from core import clock
from core.payments.customer_ids import CustomerIds
from core.subscriptions.external_ids import ExternalIds
from web.requests import ACCEPTED, HEADER

EVENTS = openmeter.PATH
"""OpenMeter and Lago share this address; what is no CloudEvent and has the member `event` is Lago's."""


class DropIn:
    """A WSGI application that answers the foreign addresses itself and hands everything else to `inner`."""

    def __init__(self, inner: Any, pipeline: Pipeline) -> None:
        self._inner, self._pipeline = inner, pipeline
        self._lago = lago.Lago(ExternalIds(pipeline.directory))
        self._stripe = stripe_events.MeterEvents(CustomerIds(pipeline.directory))

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = self._answering(environ) if environ.get("REQUEST_METHOD") == "POST" else None
        if answer is None:
            found: Iterable[bytes] = self._inner(environ, start_response)
            return found
        given = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = given if ACCEPTED.fullmatch(given) else f"req_{secrets.token_hex(10)}"
        status, headers, body = answer()
        own = [(HEADER, request_id), ("Request-Id", request_id), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        length = [("Content-Length", str(len(body)))] if status != HTTPStatus.NO_CONTENT else []
        start_response(f"{status} {HTTPStatus(status).phrase}", [*headers, *own, *length])
        return (body,)

    def _answering(self, environ: Environ) -> Callable[[], Answer] | None:
        path = environ.get("PATH_INFO", "")
        if path in (EVENTS, lago.BATCH_PATH):
            return partial(carried_out, partial(self._events, environ), partial(problem.answer, address=path))
        if path in stripe_events.PATHS:
            return partial(carried_out, partial(self._stripe.answer, self._pipeline, environ, at=clock.now()), stripe_errors.answer)
        return None

    def _events(self, environ: Environ) -> Answer:
        principal = self._pipeline.admitted(environ)
        body = self._pipeline.body(environ)
        if environ["PATH_INFO"] == lago.BATCH_PATH or (not cloud_events.is_sent(environ) and lago.is_sent(body)):
            return self._lago.record(self._pipeline, principal, body, at=clock.now())
        return openmeter.record(self._pipeline, principal, environ, body)


def install(app: Flask, pipeline: Pipeline) -> None:
    """Put the foreign addresses in front of the application."""
    app.wsgi_app = DropIn(app.wsgi_app, pipeline)  # type: ignore[method-assign]
