"""`POST /api/v1/billing/usage`, answered in front of Flask: the one address that takes a hundred thousand events a second."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from flask import Flask

from api import usage_once
from api.drop_in import cloud_events
from api.usage_answers import EVENTS_MAX, pointer, refusals, render
from core import clock
from core.config import Settings
from core.errors import BillingError, FieldError, Invalid, RateLimited, Unauthenticated, Unavailable
from core.identity.keys import TOKEN, hash_token
from core.metering import accept, bodies, foreign, results
from core.metering.accept import Verdict
from core.metering.bodies import Form, Malformed, TooLarge, UnsupportedEncoding
from core.metering.careful import Window
from core.metering.directory import Directory, Principal
from core.metering.foreign import Untranslatable
from core.metering.log import open_log
from core.metering.rates import Rates
from core.metering.together import Deliver, Together
from web.requests import ACCEPTED, HEADER

PATH = "/api/v1/billing/usage"
FORMS = {
    "application/json": Form.JSON,
    "application/x-ndjson": Form.NDJSON,
    "application/ndjson": Form.NDJSON,
    "application/jsonl": Form.NDJSON,
}
WAIT = re.compile(r"(?:^|[,;\s])wait=([0-9]{1,3})(?:$|[,;\s])")
WAIT_SECONDS_MAX = 10
ERRORS_MAX = 100
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
Environ = dict[str, Any]
Answer = tuple[int, list[tuple[str, str]], bytes]
log = structlog.get_logger("valueverse.usage")


class UsageEndpoint:
    """A WSGI application that answers usage requests itself and hands everything else to `inner`."""

    def __init__(self, inner: Any, settings: Settings) -> None:
        self._inner, self._settings = inner, settings
        self._directory = Directory(settings.database_url, lenient=settings.usage_unknown_events == "lenient")
        backlog_max, log_url = settings.usage_backlog_events_max, settings.usage_log_url
        self._log = open_log(settings.database_url, backlog_max=backlog_max, now=clock.now, url=log_url)
        self._rates = Rates(settings.usage_rate_per_second, workers=settings.web_workers, redis_url=settings.redis_url)
        self._window = Window(
            timedelta(days=settings.usage_window_past_days),
            timedelta(seconds=settings.usage_window_future_seconds),
            min(settings.usage_events_per_request_max, EVENTS_MAX),
        )

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        mine = environ.get("PATH_INFO") == PATH and environ.get("REQUEST_METHOD") == "POST"
        if not mine or "HTTP_IDEMPOTENCY_KEY" in environ:
            return self._inner(environ, start_response)
        status, headers, body = self.answer(environ)
        start_response(STATUS_LINES[status], [*headers, ("Content-Length", str(len(body)))])
        return (body,)

    def answer(self, environ: Environ) -> Answer:
        """Status, headers and body for one request."""
        return self.answered(environ.get("HTTP_X_REQUEST_ID", ""), lambda: self._take(environ))

    def answered(self, request_id: str, work: Callable[[], Answer]) -> Answer:
        """The answer of `work` or the problem that it raised, with the headers every answer has. `request_id` is the one that was sent."""
        if not ACCEPTED.fullmatch(request_id):
            request_id = f"req_{random.getrandbits(80):020x}"
        try:
            status, headers, body = work()
        except BillingError as error:
            status, headers, body = self._problem(error, request_id)
        except Exception:
            log.exception("usage request failed", request_id=request_id)
            status, headers, body = self._problem(_Failed("Something failed on our side; nothing was kept."), request_id)
        return status, [*headers, (HEADER, request_id), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")], body

    @property
    def directory(self) -> Directory:
        """Keys, organizations and metrics."""
        return self._directory

    def admitted(self, environ: Environ, key_hash: bytes | None = None) -> Principal:
        """The key of the request, or the one of this hash, live and within its rate. Raises Unauthenticated or RateLimited."""
        principal = self._principal(key_hash or _key_hash(environ.get("HTTP_AUTHORIZATION", "")))
        self._rates.check(principal.key_id)
        return principal

    def together(self, deliver: Deliver) -> Together:
        """What judges and stores requests of one event together; their keys are those that were used a moment ago."""
        given = self._directory, self._rates, self._log
        return Together(*given, window=self._window, now=clock.now, admit=self._admitted_again, deliver=deliver)

    def body(self, environ: Environ) -> bytes:
        """The body, inflated. Raises Malformed, TooLarge or UnsupportedEncoding."""
        return bodies.inflate(self._body(environ), environ.get("HTTP_CONTENT_ENCODING", "").strip().lower(), limit=self._limit)

    def judge(self, principal: Principal, events: Sequence[bytes | Untranslatable], *, single: bool) -> Verdict:
        """The verdict on events translated from another wire format."""
        return foreign.judge(self._directory, principal, events, window=self._window, at=clock.now(), single=single)

    def keep(self, principal: Principal, verdict: Verdict) -> int | None:
        """Make the verdict durable; the batch's id, None when nothing was accepted. Raises Unavailable."""
        self._rates.take(principal.key_id, verdict.events)
        return self._log.append(verdict)

    def close(self) -> None:
        """Commit what waits and give the connections back."""
        self._rates.close()
        self._log.close()
        self._directory.close()

    def _take(self, environ: Environ) -> Answer:
        principal = self.admitted(environ)
        if cloud_events.is_sent(environ):
            events, single = cloud_events.translate(environ, self.body(environ))
            verdict, show = self.judge(principal, events, single=single), cloud_events.shown
        else:
            form = _form(environ)
            body = self.body(environ)
            verdict, show = accept.judge(self._directory, principal, body, form, window=self._window, at=clock.now()), None
        batch_id = self.keep(principal, verdict)
        if show is not None:
            verdict = show(verdict)
        seconds = _wait_seconds(environ)
        result = results.wait(self._directory, batch_id, seconds=seconds) if seconds and batch_id is not None else None
        headers = [("Content-Type", "application/json")]
        if result is not None:
            headers.append(("Preference-Applied", f"wait={seconds}"))
        if batch_id is None:
            raise _NothingAccepted(verdict)
        return 202, headers, render(verdict, batch_id, result)

    def _admitted_again(self, authorization: str) -> Principal:
        key_hash = _key_hash(authorization)
        if not self._directory.knows(key_hash):
            raise Unauthenticated("This API key was not used for a moment.", code="unknown_key")
        return self.admitted({}, key_hash)

    def _principal(self, key_hash: bytes) -> Principal:
        principal = self._directory.principal(key_hash)
        if principal is None:
            raise Unauthenticated("There is no such API key.", code="unknown_key")
        if principal.revoked_at is not None:
            raise Unauthenticated("This API key has been revoked.", code="revoked_key")
        if principal.expires_at is not None and principal.expires_at <= clock.now():
            raise Unauthenticated("This API key has expired.", code="expired_key")
        return principal

    @property
    def _limit(self) -> int:
        return self._settings.usage_request_bytes_max

    def _body(self, environ: Environ) -> bytes:
        try:
            length = int(environ.get("CONTENT_LENGTH") or -1)
        except ValueError:
            raise Malformed("Content-Length is not a number.") from None
        if length > self._limit:
            raise TooLarge(f"The body is larger than {self._limit} bytes; send fewer events at once.")
        stream = environ["wsgi.input"]
        body: bytes = stream.read(length) if length >= 0 else stream.read(self._limit + 1)
        if length >= 0 and len(body) < length:
            raise Malformed("The body is shorter than Content-Length says.")
        return body

    def _problem(self, error: BillingError, request_id: str) -> Answer:
        headers = [("Content-Type", "application/problem+json")]
        if isinstance(error, (Unavailable, RateLimited)):
            headers.append(("Retry-After", str(error.retry_after_seconds)))
        if error.status == 401:
            headers.append(("WWW-Authenticate", 'Bearer realm="ValueVerse Billing"'))
        problem: dict[str, Any] = {
            "type": f"{self._settings.public_url}/api/v1/docs#{error.code}",
            "title": error.title,
            "status": error.status,
            "detail": error.message,
            "instance": PATH,
            "code": error.code,
            "request_id": request_id,
        }
        if isinstance(error, _NothingAccepted):
            problem |= {"batch_id": None, "accepted": 0, "rejected": len(error.verdict.refused), "events": refusals(error.verdict)}
        if error.errors:
            problem["errors"] = [{"pointer": item.pointer, "detail": item.detail} for item in error.errors]
        return error.status, headers, msgspec.json.encode(problem)


class _Failed(BillingError):
    status, code, title = 500, "internal_error", "Internal error"


class _NothingAccepted(Invalid):
    """Every event was refused; the problem also carries the verdict on each."""

    code, title = "no_event_accepted", "No event was accepted"

    def __init__(self, verdict: Verdict) -> None:
        pointers = tuple(FieldError(pointer(verdict, one), one.detail) for one in verdict.refused[:ERRORS_MAX])
        super().__init__(f"None of the {verdict.events} events was accepted; nothing will be counted.", errors=pointers)
        self.verdict = verdict


def install(app: Flask, settings: Settings) -> UsageEndpoint:
    """Put the endpoint in front of the application, which keeps a rule for it and so answers other methods with 405."""
    endpoint = UsageEndpoint(app.wsgi_app, settings)
    app.wsgi_app = endpoint  # type: ignore[method-assign]

    app.add_url_rule(PATH, "record_usage", lambda: usage_once.record(endpoint.answer), methods=["POST"])
    app.extensions["usage_endpoint"] = endpoint
    return endpoint


def _key_hash(authorization: str) -> bytes:
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("Send your API key as `Authorization: Bearer vv_…`.", code="missing_key")
    if not TOKEN.fullmatch(token):
        raise Unauthenticated("There is no such API key.", code="unknown_key")
    return hash_token(token)


def _form(environ: Environ) -> Form:
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    form = FORMS.get(kind or "application/json")
    if form is None:
        raise UnsupportedEncoding(f"Content-Type {kind[:60]!r} is not taken; send application/json, application/x-ndjson or CloudEvents.")
    return form


def _wait_seconds(environ: Environ) -> int:
    found = WAIT.search(environ.get("HTTP_PREFER", ""))
    return min(int(found[1]), WAIT_SECONDS_MAX) if found else 0
