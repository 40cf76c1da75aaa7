"""One mapping from what the core raises to what the caller reads: a page, a fragment, or problem+json (RFC 9457) on the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
import structlog
from flask import Flask, Response, current_app, g, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from core.db import as_billing_error
from core.errors import BillingError, Unavailable
from web.htmx import wants_fragment

log = structlog.get_logger("valueverse.errors")

API_PREFIX = "/api/"
PROBLEM = "application/problem+json"
CODES = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}
SENTENCES = {
    400: "The request could not be understood.",
    404: "There is nothing at this address, or it belongs to another account.",
    405: "This address does not take this method.",
    413: "The request is larger than this address takes.",
    415: "This address does not take this media type.",
    500: "Something failed on our side. Nothing was changed by this request.",
}


def init_app(app: Flask) -> None:
    """Answer every failure; nothing unexpected ever shows its inside."""
    app.register_error_handler(BillingError, answer)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def answer(error: BillingError) -> AnyResponse:
    """The answer to an expected failure, in the form this caller reads."""
    headers = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if error.status == 401 and _is_api():
        headers["WWW-Authenticate"] = 'Bearer realm="ValueVerse Billing"'
    if _is_api():
        return problem(error, headers=headers)
    return _page(error.status, error.title, error.message, headers)


def problem(error: BillingError, *, headers: dict[str, str] | None = None) -> Response:
    """An application/problem+json answer. `type` leads to the code's paragraph in the documentation."""
    body: dict[str, Any] = {
        "type": f"{current_app.config['SETTINGS'].public_url}/api/v1/docs#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "instance": quote(request.path),
        "code": error.code,
        "request_id": g.get("request_id", ""),
    }
    if error.errors:
        body["errors"] = [{"pointer": item.pointer, "detail": item.detail} for item in error.errors]
    return Response(msgspec.json.encode(body), error.status, headers or {}, content_type=PROBLEM)


def _http(error: HTTPException) -> AnyResponse:
    status = error.code or 500
    if status < 400:
        return error.get_response()
    translated = BillingError(SENTENCES.get(status, error.description or error.name), code=CODES.get(status, "http_error"))
    translated.status, translated.title = status, error.name
    headers = {name: value for name, value in error.get_headers() if name.lower() in {"allow", "retry-after"}}
    return problem(translated, headers=headers) if _is_api() else _page(status, error.name, translated.message, headers)


def _unexpected(error: Exception) -> AnyResponse:
    known = as_billing_error(error)
    if known is not None:
        log.warning("database refused", error=type(error).__name__, route=request.path, answered=known.code)
        return answer(known)
    log.error("unexpected failure", route=request.path, exc_info=error)
    failure = BillingError(SENTENCES[500], code="internal_error")
    failure.status, failure.title = 500, "Something failed"
    return answer(failure)


def _is_api() -> bool:
    return request.path.startswith(API_PREFIX)


def _page(status: int, title: str, detail: str, headers: dict[str, str]) -> AnyResponse:
    template = "errors/_error.html" if wants_fragment() else "errors/error.html"
    body = render_template(template, title=title, detail=detail, request_id=g.get("request_id", ""))
    return Response(body, status, headers, content_type="text/html; charset=utf-8")
