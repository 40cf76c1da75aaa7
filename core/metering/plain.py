"""One usage event on the wire, read fast when it is plain: what `wire.read` would read, or None when that has to look. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from core.metering import wire
from core.metering.columns import PLACES
from core.metering.instants import BadTimestamp, parse
from core.metering.wire import Candidate

NUMBER = re.compile(rb"(?:0|[1-9][0-9]{0,13})(?:\.[0-9]{1,12})?")
QUOTES_OF_A_TEXT = 2


class Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The fields of wire.FIELDS; a quantity stays the token that was sent."""

    idempotency_key: str
    metric_name: str | UnsetType = UNSET
    event_name: str | UnsetType = UNSET
    metric: str | UnsetType = UNSET
    quantity: Raw | UnsetType = UNSET
    timestamp: str | UnsetType = UNSET
    properties: dict[str, Any] | UnsetType = UNSET
    organization_id: str | UnsetType = UNSET
    organization: str | UnsetType = UNSET
    subscription_id: str | UnsetType = UNSET
    unit: str | UnsetType = UNSET


_decode = msgspec.json.Decoder(Event, float_hook=Decimal).decode


def read(raw: bytes) -> Candidate | None:
    """The event, when every field has the usual form."""
    if len(raw) > wire.EVENT_BYTES_MAX or b"\\" in raw:
        return None
    try:
        event = _decode(raw)
        at = None if event.timestamp is UNSET else parse(event.timestamp)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError, BadTimestamp):
        return None
    names = [name for name in (event.metric_name, event.event_name, event.metric) if name is not UNSET]
    organizations = [name for name in (event.organization_id, event.organization) if name is not UNSET]
    if len(names) != 1 or len(organizations) > 1 or event.subscription_id is not UNSET or event.unit is not UNSET:
        return None
    properties = {} if event.properties is UNSET else event.properties
    token = b"1" if event.quantity is UNSET else bytes(event.quantity)
    texts = [*names, *organizations, event.idempotency_key] + ([] if event.timestamp is UNSET else [event.timestamp])
    if not NUMBER.fullmatch(token) or not wire.KEY.fullmatch(event.idempotency_key) or not _are_plain(properties):
        return None
    if not 1 <= len(names[0]) <= wire.NAME_LENGTH_MAX or not all(map(_is_reference, organizations)) or wire.UNPRINTABLE.search(names[0]):
        return None
    fields = len(texts) + (event.quantity is not UNSET) + (event.properties is not UNSET)
    texts += [value for value in properties.values() if isinstance(value, str)]
    if raw.count(b'"') != QUOTES_OF_A_TEXT * (fields + len(properties) + len(texts)):
        return None  # a name stands twice: the decoder kept the last one
    whole, _, places = token.partition(b".")
    organization = organizations[0] if organizations else None
    return Candidate(names[0], int(whole), int(places.ljust(PLACES, b"0")), at, event.idempotency_key, properties, organization, None, None)


def _are_plain(properties: dict[str, Any]) -> bool:
    for name, value in properties.items():
        if not wire.is_name(name) or isinstance(value, (dict, list)):
            return False
        if isinstance(value, str) and (len(value) > wire.PROPERTY_TEXT_LENGTH_MAX or '"' in value):
            return False
    return len(properties) <= wire.PROPERTIES_MAX


def _is_reference(text: str) -> bool:
    return 1 <= len(text) <= wire.REFERENCE_LENGTH_MAX and not wire.UNPRINTABLE.search(text)
