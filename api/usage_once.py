"""Usage that carries an Idempotency-Key: the whole request is answered once, on top of each event's own key."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from flask import Response, current_app, request

from api.call import authenticated
from api.execution import key_of, once
from core.identity.permissions import Scope

Take = Callable[[dict[str, Any]], tuple[int, list[tuple[str, str]], bytes]]


def record(take: Take) -> Response:
    """The answer of `take`, which reads the request from its WSGI environ; repeated for a repeated key."""
    request.max_content_length = current_app.config["SETTINGS"].usage_request_bytes_max
    raw = request.get_data()
    environ = {**request.environ, "wsgi.input": io.BytesIO(raw), "CONTENT_LENGTH": str(len(raw))}

    def work() -> Response:
        status, headers, body = take(environ)
        return Response(body, status, headers)

    if "Idempotency-Key" not in request.headers:
        return work()
    return once(key_of(authenticated(Scope.USAGE_WRITE), [request.mimetype, raw.hex()]), work)
