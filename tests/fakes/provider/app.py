"""The web application: who may ask, idempotency keys, failure modes, and the JSON around every answer."""

import base64
import hashlib
import json
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, render_template, request
from werkzeug.exceptions import HTTPException

from tests.fakes.provider import charges, control, customers, pages, payments, setups
from tests.fakes.provider.context import Provider, provider, store
from tests.fakes.provider.errors import ApiError, invalid
from tests.fakes.provider.events import Events
from tests.fakes.provider.modes import Modes
from tests.fakes.provider.parameters import nested
from tests.fakes.provider.store import Store, public

log = logging.getLogger("provider")


def create_app(data: Path, webhook_url: str | None, webhook_secret: str) -> Flask:
    """A provider whose memory is the file `data`, that delivers events to `webhook_url`."""
    app = Flask("provider")
    memory = Store(data)
    app.extensions["provider"] = Provider(memory, Events(memory, webhook_url, webhook_secret), Modes())
    for module in (customers, setups, payments, charges, control, pages):
        app.register_blueprint(module.bp)
    for blueprint in ("customers", "setups", "payments", "charges"):
        for endpoint in [name for name in app.view_functions if name.startswith(f"{blueprint}.")]:
            app.view_functions[endpoint] = _spoken(app.view_functions[endpoint])
    app.register_error_handler(ApiError, _refused)
    app.register_error_handler(HTTPException, _unknown_url)
    app.register_error_handler(Exception, _broken)
    return app


def _spoken(view: Callable[..., Any]) -> Callable[..., Response]:
    """Wrap an endpoint in everything that the provider's API does around it."""

    def answer(**arguments: str) -> Response:
        g.request_id = store().new_id("req")
        _authenticate()
        pairs = list((request.form if request.method == "POST" else request.args).items(multi=True))
        if request.method != "POST":
            g.parameters = nested(pairs)
            return _json(200, view(**arguments))
        key = request.headers.get("Idempotency-Key")
        if key is None:
            g.parameters = nested(pairs)
            return _json(*_perform(view, arguments, None, ""))
        if not 1 <= len(key) <= 255:
            raise invalid("Idempotency keys must be between 1 and 255 characters long.")
        fingerprint = hashlib.sha256(json.dumps([request.path, sorted(pairs)]).encode()).hexdigest()
        return _once(view, arguments, key, fingerprint, pairs)

    return answer


def _once(view: Callable[..., Any], arguments: dict[str, str], key: str, fingerprint: str, pairs: list[tuple[str, str]]) -> Response:
    """The first answer under a key is the answer to every later request with it."""
    running = provider().in_flight
    with store().lock:
        saved = store().answer(key)
        if saved is None and key in running:
            message = "There is currently another in-progress request using this Idempotent Key."
            raise ApiError(409, "idempotency_error", message, code="idempotency_key_in_use")
        if saved is None:
            running.add(key)
    if saved is not None:
        if saved["fingerprint"] != fingerprint:
            message = "Keys for idempotent requests can only be used with the same parameters they were first used with."
            raise ApiError(400, "idempotency_error", f"{message} Try using a key other than '{key}'.")
        response = _json(saved["status"], json.loads(saved["body"]))
        response.headers["Idempotent-Replayed"] = "true"
        return response
    try:
        g.idempotency_key = key
        g.parameters = nested(pairs)
        return _json(*_perform(view, arguments, key, fingerprint))
    finally:
        with store().lock:
            running.discard(key)


def _perform(view: Callable[..., Any], arguments: dict[str, str], key: str | None, fingerprint: str) -> tuple[int, Any]:
    """Carry out a change under the failure mode of the moment; the answer is saved once execution has begun."""
    mode = g.mode = _mode(arguments)
    if mode == "429":
        raise ApiError(429, "invalid_request_error", "Request rate limit exceeded.", code="rate_limit")
    if mode == "drop_before_charge":
        _drop()
    if mode and mode.startswith("hang:"):
        time.sleep(float(mode.removeprefix("hang:")))
    broken = {"error": {"type": "api_error", "message": "An unknown error occurred."}}
    with store().change():
        try:
            status, body = (500, broken) if mode == "500" else (200, view(**arguments))
        except ApiError as error:
            if not error.saved:
                raise
            status, body = error.status, error.body
        if mode == "charge_then_500":
            status, body = 500, broken
        if key is not None:
            store().append("answers", idempotency_key=key, fingerprint=fingerprint, status=status, body=json.dumps(body), at=store().now())
    if mode == "charge_then_drop":
        _drop()
    return status, body


def _mode(arguments: dict[str, str]) -> str | None:
    charging = request.path.startswith("/v1/payment_intents") and (
        request.path.endswith("/confirm") or g.parameters.get("confirm") == "true"
    )
    intent = store().find(arguments.get("identity", "")) or {}
    customer = g.parameters.get("customer") or intent.get("customer")
    method = g.parameters.get("payment_method") or intent.get("payment_method")
    return provider().modes.take(request.path, charging=charging, customer=customer, payment_method=method)


def _authenticate() -> None:
    header = request.headers.get("Authorization", "")
    scheme, _, value = header.partition(" ")
    if scheme == "Basic":
        value = base64.b64decode(value + "===").decode("utf-8", "replace").partition(":")[0]
    if not value.startswith(("sk_test_", "rk_test_")):
        shown = f"Invalid API Key provided: {value[:8]}***" if value else "You did not provide an API key."
        raise ApiError(401, "invalid_request_error", shown)


def _drop() -> None:
    """Cut the connection without an answer."""
    connection: socket.socket = request.environ["werkzeug.socket"]
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("dropped on purpose")


def _json(status: int, body: Any) -> Response:
    response = Response(json.dumps(public(body), indent=2), status, mimetype="application/json")
    response.headers["Request-Id"] = g.get("request_id", "")
    if g.get("idempotency_key"):
        response.headers["Idempotency-Key"] = g.idempotency_key
    return response


def _refused(error: ApiError) -> Response:
    if request.path.startswith("/hosted/"):
        return Response(render_template("closed.html", message="There is no such page."), 404)
    return _json(error.status, error.body)


def _unknown_url(error: HTTPException) -> Response:
    return _json(error.code or 500, invalid(f"Unrecognized request URL ({request.method}: {request.path}).").body)


def _broken(error: Exception) -> Response:
    if not isinstance(error, ConnectionAbortedError):
        log.exception("unexpected failure on %s %s", request.method, request.path)
    return _json(500, {"error": {"type": "api_error", "message": "An unknown error occurred."}})
