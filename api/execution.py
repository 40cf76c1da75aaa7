"""How a declared endpoint is carried out: key and scope, strict input, one transaction, idempotency, typed answer.

A POST, PATCH or DELETE runs inside one transaction that also keeps the answer under its Idempotency-Key. For a stepwise endpoint the
key is claimed first and the answer kept last.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from api import reading
from api.call import Call, authenticated
from api.contract import ENDPOINTS, JSON, Answered, Endpoint
from api.values import plain_decimal
from core import clock
from core.db import retrying, transaction
from core.errors import BillingError, Declined, FieldError, Invalid, NotFound
from core.identity import idempotency
from web.errors import answer

KEY_FORM = re.compile(r"[\x21-\x7e]{1,255}")
REPLAYED = "Idempotent-Replayed"
BAD_REQUEST = 400


def mount(blueprint: Blueprint) -> None:
    """Register every declared endpoint."""
    for declared in ENDPOINTS:
        name = declared.view.__name__
        blueprint.add_url_rule(declared.path, name, partial(_carry_out, declared), methods=[declared.method])


def _carry_out(declared: Endpoint, **path: Any) -> Response:
    request.max_content_length = reading.BODY_BYTES_MAX
    call = authenticated(declared.scope, recent=declared.often)
    if any(isinstance(value, str) and reading.UNSTORABLE.search(value) for value in path.values()):
        raise NotFound("There is nothing with this name.")
    arguments: dict[str, Any] = dict(path)
    if declared.query is not None:
        arguments["query"] = reading.query(request.args.lists(), declared.query)
    elif request.args:
        raise Invalid(
            "This address takes no query.", errors=tuple(FieldError(f"/{name}", "There is no such parameter.") for name in request.args)
        )
    if declared.method == "GET":
        return _response(declared, declared.view(call, **arguments))
    found = _body(declared)
    if declared.body is not None:
        arguments["body"] = reading.convert(found, declared.body)
    key = key_of(call, found)
    if declared.stepwise:
        return once(key, lambda: _response(declared, declared.view(call, **arguments)))
    return retrying(partial(_atomic, declared, call, arguments, key))


def _body(declared: Endpoint) -> Any:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise reading.WrongMediaType("Send the body uncompressed here; only usage may be compressed.")
    if (request.content_length or 0) > reading.BODY_BYTES_MAX:
        raise reading.TooLarge(f"Send at most {reading.BODY_BYTES_MAX} bytes.")
    raw = request.get_data(cache=False)
    if not raw.strip():
        if declared.body is not None and any(item.required for item in msgspec.structs.fields(declared.body)):
            raise reading.Malformed("A JSON object is needed.")
        return {}
    if request.mimetype != JSON:
        raise reading.WrongMediaType(f"Send the body as {JSON}, not {request.mimetype or 'without a media type'}.")
    found = reading.document(raw)
    if declared.body is None and found != {}:
        raise Invalid("This address takes no body.", errors=(FieldError("", "Leave the body out."),))
    return found


@dataclass(frozen=True, slots=True)
class Key:
    """An Idempotency-Key of one principal and address, and the request it was sent with."""

    name: dict[str, str]
    request_hash: bytes


def key_of(call: Call, found: Any) -> Key | None:
    """The request's Idempotency-Key, None without one; `found` is what tells one request from another."""
    given = request.headers.get("Idempotency-Key")
    if given is None or request.method != "POST":
        return None
    if not KEY_FORM.fullmatch(given):
        raise reading.Malformed("An Idempotency-Key has 1 to 255 visible ASCII characters.", code="bad_idempotency_key")
    canonical = json.dumps([request.query_string.decode("latin-1"), found], sort_keys=True, default=str)
    principal = f"{call.organization_id or 'platform'} {request.path}"
    return Key({"principal": principal, "key": given}, hashlib.sha256(canonical.encode()).digest())


def _atomic(declared: Endpoint, call: Call, arguments: dict[str, Any], key: Key | None) -> Response:
    with transaction() as session:
        if key is not None:
            idempotency.lock(session, **key.name)
            before = idempotency.find(session, **key.name, request_hash=key.request_hash, at=clock.now())
            if before is not None:
                return _replay(before)
            idempotency.claim(session, **key.name, request_hash=key.request_hash, at=clock.now())
        result = declared.view(call, **arguments)
        session.flush()
        response = _response(declared, result)
        if key is not None:
            kept = _without(declared.secret, response.get_data())
            idempotency.complete(session, **key.name, status=response.status_code, content_type=str(response.mimetype), body=kept)
    return response


def _without(secret: str | None, body: bytes) -> bytes:
    return body if secret is None else msgspec.json.encode({**msgspec.json.decode(body), secret: None})


def once(key: Key | None, work: Callable[[], Response]) -> Response:
    """The answer of `work`, which opens its transactions itself, kept under `key`; the key is claimed first.

    A refusal did nothing, so it gives the key back; a declined charge is an answer, kept like any other.
    """
    if key is None:
        return work()
    with transaction() as session:
        idempotency.lock(session, **key.name)
        before = idempotency.find(session, **key.name, request_hash=key.request_hash, at=clock.now())
        if before is not None and before.status is not None:
            return _replay(before)
        idempotency.claim(session, **key.name, request_hash=key.request_hash, at=clock.now())
    try:
        response = work()
    except Declined as error:
        return _keep(answer(error), key)
    except BillingError:
        _give_back(key)
        raise
    if response.status_code >= BAD_REQUEST:
        _give_back(key)
        return response
    return _keep(response, key)


def _keep(response: Any, key: Key) -> Response:
    with transaction() as session:
        idempotency.complete(
            session, **key.name, status=response.status_code, content_type=str(response.mimetype), body=response.get_data()
        )
    return response


def _give_back(key: Key) -> None:
    with transaction() as session:
        idempotency.release(session, **key.name)


def _replay(record: Any) -> Response:
    return Response(record.body, record.status, {REPLAYED: "true"}, content_type=record.content_type)


def _response(declared: Endpoint, result: Any) -> Response:
    if isinstance(result, Response):
        return result
    status = declared.status
    if isinstance(result, Answered):
        status, result = result.status, result.body
    if result is None:
        return Response(status=204)
    return Response(encoded(result), status, content_type=JSON)


def encoded(result: Any) -> bytes:
    """An answer as JSON: decimals as plain strings without exponent, times in UTC with Z."""
    return msgspec.json.encode(_decimals_as_text(msgspec.to_builtins(result, builtin_types=(Decimal,))))


def _decimals_as_text(value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain_decimal(value)
    if isinstance(value, dict):
        return {name: _decimals_as_text(item) for name, item in value.items()}
    return [_decimals_as_text(item) for item in value] if isinstance(value, list) else value
