"""CloudEvents 1.0 over HTTP: structured, batched and binary. https://github.com/cloudevents/spec (v1.0.2, HTTP and JSON bindings)

`type` names the event, `subject` the organization, `data` are the properties. `source` and `id` together identify an event, so both
make the idempotency key. Extension attributes are allowed and not kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote

from api.drop_in.translation import Environ, Translated, document, flat, our_event, required, shown_pointer, text_at
from core.metering import bodies
from core.metering.accept import Verdict
from core.metering.bodies import Form, Malformed
from core.metering.foreign import Untranslatable
from core.metering.wire import Fault

CONTENT_TYPE = "application/cloudevents"
HEADER_PREFIX = "HTTP_CE_"
POINTERS = {
    "/metric_name": "/type",
    "/idempotency_key": "/id",
    "/timestamp": "/time",
    "/organization_id": "/subject",
    "/properties": "/data",
    "/quantity": "/data/quantity",
}
KEY_LENGTH_MAX = 255
PLAIN = re.compile("[!-$&-?A-~]+")
"""Visible ASCII but for @ and %, which separate and escape in a key."""
PLAIN_MARKS = "!\"#$&'()*+,-./:;<=>?[\\]^_`{|}~"
ATTRIBUTES = ("id", "source", "type", "specversion", "time", "subject", "datacontenttype")


def is_sent(environ: Environ) -> bool:
    """Whether the request says of itself that it carries CloudEvents."""
    return bool(environ.get("CONTENT_TYPE", "").lower().startswith(CONTENT_TYPE)) or is_binary(environ)


def is_binary(environ: Environ) -> bool:
    """Whether the attributes are in headers and the body is the data alone."""
    return "HTTP_CE_SPECVERSION" in environ


def translate(environ: Environ, body: bytes) -> tuple[Translated, bool]:
    """The events of the request in our form, and whether it is one event and no list. Raises Malformed."""
    if is_binary(environ):
        return [_translated(_binary(environ, body), body)], True
    if not body.strip():
        raise Malformed("There is no event in the request.")
    single = not body.lstrip().startswith(b"[")
    return [_translated(document(raw), raw) for raw in bodies.cut(body, Form.JSON)], single


def shown(verdict: Verdict) -> Verdict:
    """The verdict with pointers into the CloudEvents."""
    return replace(verdict, refused=tuple(replace(one, pointer=shown_pointer(one.pointer, POINTERS)) for one in verdict.refused))


def idempotency_key(source: str, event_id: str) -> str:
    """One key for each pair, readable while it is short: `id@source`."""
    key = f"{_escaped(event_id)}@{_escaped(source)}"
    if len(key) <= KEY_LENGTH_MAX:
        return key
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def _escaped(text: str) -> str:
    return text if PLAIN.fullmatch(text) else quote(text, safe=PLAIN_MARKS)


def _translated(event: Any, sent: bytes) -> bytes | Untranslatable:
    try:
        if not isinstance(event, dict):
            raise Fault("malformed_json", "", "A CloudEvent is a JSON object.")
        return _ours(event)
    except Fault as fault:
        return Untranslatable(fault, sent)


def _ours(event: Mapping[str, Any]) -> bytes:
    if event.get("specversion") != "1.0":
        raise Fault("invalid_field", "/specversion", "Only CloudEvents of specversion 1.0 are taken.")
    key = idempotency_key(required(event, "source", "A CloudEvent has a source."), required(event, "id", "A CloudEvent has an id."))
    name = required(event, "type", "A CloudEvent has a type; it names the event.")
    properties = _properties(event)
    quantity = _quantity(properties)
    organization, time = text_at(event, "subject"), text_at(event, "time")
    return our_event(name, key, timestamp=time, organization_id=organization, quantity=quantity, properties=properties)


def _properties(event: Mapping[str, Any]) -> dict[str, Any]:
    kind = (text_at(event, "datacontenttype") or "application/json").partition(";")[0].strip().lower()
    if "data_base64" in event or not (kind == "application/json" or kind.endswith("+json")):
        raise Fault("invalid_properties", "/datacontenttype", "The data of a usage event is a JSON object.")
    data = event.get("data")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise Fault("invalid_properties", "/data", "The data of a usage event is a JSON object.")
    return flat(data, "/data")


def _quantity(properties: Mapping[str, Any]) -> str | None:
    """What a metric without a property reads: `quantity` of the data; it stays a property too."""
    given = properties.get("quantity")
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, Decimal, str)):
        raise Fault("invalid_quantity", "/data/quantity", "The quantity must be a number or a decimal text.")
    return str(given)


def _binary(environ: Environ, body: bytes) -> dict[str, Any]:
    """The event in the form of the structured mode."""
    headers = {name: environ.get(f"{HEADER_PREFIX}{name.upper()}") for name in ATTRIBUTES}
    event: dict[str, Any] = {name: unquote(value) for name, value in headers.items() if value is not None}
    event["datacontenttype"] = environ.get("CONTENT_TYPE") or "application/json"
    if body.strip():
        event["data"] = document(body)
    return event
