"""Stripe's meter events: `/v1/billing/meter_events`, `/v2/billing/meter_events` and the v2 stream. https://docs.stripe.com/api/billing/meter-event

`identifier` is the idempotency key, `payload[stripe_customer_id]` the organization (the provider's customer id it pays with, or its
external id), `payload[value]` the quantity. The whole payload but the customer is kept as properties, for meters that read another key.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from api.drop_in import sessions
from api.drop_in.stripe_errors import Refusal
from api.drop_in.translation import (
    JSON_HEADERS,
    Answer,
    Environ,
    Pipeline,
    document,
    encode,
    key_of,
    our_event,
    required,
    text_at,
    unix_time,
)
from core.metering import foreign
from core.metering.bodies import Malformed
from core.metering.directory import Principal
from core.metering.foreign import Untranslatable
from core.metering.instants import BadTimestamp, instant, parse
from core.metering.wire import Fault
from core.payments.customer_ids import CustomerIds

EVENTS = "/v1/billing/meter_events"
ADJUSTMENTS = "/v1/billing/meter_event_adjustments"
EVENTS_V2 = "/v2/billing/meter_events"
ADJUSTMENTS_V2 = "/v2/billing/meter_event_adjustments"
SESSION = "/v2/billing/meter_event_session"
STREAM = "/v2/billing/meter_event_stream"
PATHS = frozenset({EVENTS, ADJUSTMENTS, EVENTS_V2, ADJUSTMENTS_V2, SESSION, STREAM})
CUSTOMER, VALUE = "stripe_customer_id", "value"
FIELD = re.compile(r"([a-z_]+)(?:\[([^\[\]]*)\])?")
FIELDS_MAX = 200
SESSION_LASTS = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Sent:
    """One meter event as it came; `identifier` is never missing."""

    fields: Mapping[str, Any]
    identifier: str


class MeterEvents:
    """The dialect, for the threads of one process."""

    def __init__(self, customer_ids: CustomerIds) -> None:
        self._customer_ids = customer_ids

    def answer(self, pipeline: Pipeline, environ: Environ, *, at: datetime) -> Answer:
        """Do what the address asks for. Raises Refusal, and what the pipeline raises."""
        path, environ = environ["PATH_INFO"], _as_bearer(environ)
        opened = sessions.opened(environ, at=at) if path == STREAM else None
        principal = pipeline.admitted(environ, opened)
        if path in (ADJUSTMENTS, ADJUSTMENTS_V2):
            raise Refusal(400, "meter_event_adjustment_unsupported", "Meter events cannot be cancelled at this address.", "type")
        if path == SESSION:
            return _session(environ, at)
        body = pipeline.body(environ)
        fields = _form(body) if path == EVENTS else _object(body)
        sent = _stream(fields) if path == STREAM else [_one(fields, environ.get("HTTP_IDEMPOTENCY_KEY", ""))]
        self._record(pipeline, principal, sent, unix=path == EVENTS, single=path != STREAM)
        if path == STREAM:
            return 200, JSON_HEADERS, b"{}"
        return 200, JSON_HEADERS, encode(_shown(sent[0], _is_live(environ), at, unix=path == EVENTS))

    def _record(self, pipeline: Pipeline, principal: Principal, sent: Sequence[Sent], *, unix: bool, single: bool) -> None:
        customers = {name for one in sent if isinstance(name := _payload_or_nothing(one).get(CUSTOMER), str) and "\x00" not in name}
        organizations = self._customer_ids.organization_ids(customers) if customers else {}
        events = [_translated(one, organizations, unix=unix) for one in sent]
        verdict = foreign.whole(pipeline.judge(principal, events, single=single))
        pipeline.keep(principal, verdict)
        if verdict.refused:
            raise Refusal.of(verdict)


def _translated(one: Sent, organizations: Mapping[str, str], *, unix: bool) -> bytes | Untranslatable:
    try:
        return _ours(one, organizations, unix=unix)
    except Fault as fault:
        return Untranslatable(fault, encode(one.fields))


def _ours(one: Sent, organizations: Mapping[str, str], *, unix: bool) -> bytes:
    payload = one.fields.get("payload")
    if not isinstance(payload, dict):
        raise Fault("missing_field", "/payload", "A meter event has a payload.")
    name = required(one.fields, "event_name", "A meter event has an event_name.")
    time = one.fields.get("timestamp")
    customer, value = text_at(payload, CUSTOMER), payload.get(VALUE)
    if isinstance(value, (bool, dict, list)):
        raise Fault("invalid_quantity", "/quantity", "The value must be a number.")
    return our_event(
        name,
        key_of(one.identifier),
        timestamp=unix_time(time, "/timestamp") if unix else time,
        organization_id=organizations.get(customer, customer) if customer else None,
        quantity=None if value is None else str(value),
        properties={field: given for field, given in payload.items() if field != CUSTOMER},
    )


def _payload_or_nothing(one: Sent) -> Mapping[str, Any]:
    payload = one.fields.get("payload")
    return payload if isinstance(payload, dict) else {}


def _form(body: bytes) -> dict[str, Any]:
    """Fields of a form; `payload[value]=1` is a field of an object."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=FIELDS_MAX, errors="strict")
    except (ValueError, UnicodeDecodeError) as error:
        raise Malformed(f"The body is no form: {error}") from error
    fields: dict[str, Any] = {}
    for name, value in pairs:
        matched = FIELD.fullmatch(name)
        if matched is None:
            raise Refusal(400, "parameter_unknown", f"Received unknown parameter: {name[:100]}", name[:100])
        outer, inner = matched.groups()
        if outer == "expand":
            continue
        if inner is None:
            fields[outer] = value
        elif isinstance(fields.setdefault(outer, {}), dict):
            fields[outer][inner] = value
    return fields


def _object(body: bytes) -> dict[str, Any]:
    given = document(body)
    if not isinstance(given, dict):
        raise Malformed("The body is no JSON object.")
    return given


def _stream(fields: Mapping[str, Any]) -> list[Sent]:
    events = fields.get("events")
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise Refusal(400, "parameter_missing", "Send the meter events as a list of objects.", "events")
    return [_one(event, "") for event in events]


def _one(fields: Mapping[str, Any], request_key: str) -> Sent:
    """With the identifier that was given; else the request's Idempotency-Key, so that a retry counts once; else a new one."""
    given = fields.get("identifier") or request_key or uuid.uuid4().hex
    if not isinstance(given, str):
        raise Refusal(400, "parameter_invalid_string", "The identifier must be text.", "identifier")
    return Sent(fields, given)


def _shown(one: Sent, live: bool, at: datetime, *, unix: bool) -> dict[str, Any]:
    """The meter event as Stripe answers it."""
    given = one.fields.get("timestamp")
    if unix:
        times: dict[str, Any] = {"created": int(at.timestamp()), "timestamp": int(given) if given else int(at.timestamp())}
    else:
        times = {"created": _zulu(at), "timestamp": _zulu(_instant(given) or at)}
    return {
        "object": "billing.meter_event" if unix else "v2.billing.meter_event",
        "event_name": one.fields["event_name"],
        "identifier": one.identifier,
        "livemode": live,
        "payload": one.fields["payload"],
        **times,
    }


def _instant(given: Any) -> datetime | None:
    try:
        return instant(parse(given)) if given else None
    except BadTimestamp:
        return None


def _session(environ: Environ, at: datetime) -> Answer:
    until = at + SESSION_LASTS
    shown = {
        "object": "v2.billing.meter_event_session",
        "id": f"mes_{uuid.uuid4().hex}",
        "authentication_token": sessions.token(environ, until=until),
        "created": _zulu(at),
        "expires_at": _zulu(until),
        "livemode": _is_live(environ),
    }
    return 200, JSON_HEADERS, encode(shown)


def _as_bearer(environ: Environ) -> Environ:
    """With the key as a bearer token, also when it came as the user of HTTP Basic, as in Stripe's own curl examples."""
    scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "basic":
        return environ
    try:
        key = base64.b64decode(given, validate=True).decode("ascii").partition(":")[0]
    except ValueError:
        key = ""
    return {**environ, "HTTP_AUTHORIZATION": f"Bearer {key}"}


def _is_live(environ: Environ) -> bool:
    return "vv_live_" in environ.get("HTTP_AUTHORIZATION", "")


def _zulu(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
