"""One usage event on the wire, read with care: every fault is named and pointed at."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from core.metering.columns import PLACES, SCALE, split
from core.metering.instants import BadTimestamp, parse
from core.money import EXACT, parse_decimal

NAME_FIELDS = ("metric_name", "event_name", "metric")
ORGANIZATION_FIELDS = ("organization_id", "organization")
FIELDS = frozenset(
    {*NAME_FIELDS, *ORGANIZATION_FIELDS, "quantity", "timestamp", "idempotency_key", "properties", "subscription_id", "unit"}
)
KEY = re.compile(r"[!-~]{1,255}")
JSON_NUMBER = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
EVENT_BYTES_MAX = 64 * 1024
NAME_LENGTH_MAX = 100
UNIT_LENGTH_MAX = 50
REFERENCE_LENGTH_MAX = 255
PROPERTIES_MAX = 64
PROPERTY_NAME_LENGTH_MAX = 100
PROPERTY_TEXT_LENGTH_MAX = 2_048
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Controls, zero-width and bidirectional marks, lone surrogates: names that look alike must be alike."""
QUANTITY_RULE = "must be a number from 0 to 99999999999999 with at most 12 decimals"
encode_properties = msgspec.json.Encoder(decimal_format="number", order="sorted").encode


class Fault(Exception):
    """Why one event is refused; `pointer` is inside the event."""

    def __init__(self, code: str, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.pointer, self.detail = code, pointer, detail


@dataclass(slots=True)
class Candidate:
    """One event that is well-formed; whether its organization, metric and time are right is not known yet."""

    name: str
    whole: int
    fraction: int
    timestamp: int | None
    key: str
    properties: dict[str, Any]
    organization: str | None
    subscription_id: bytes | None
    unit: str | None


def read(raw: bytes) -> Candidate:
    """One event read with care; raises Fault with a pointer to the first thing wrong."""
    if len(raw) > EVENT_BYTES_MAX:
        raise Fault("too_large", "", f"An event has at most {EVENT_BYTES_MAX} bytes.")
    given = _object(raw)
    unknown = next((name for name in given if name not in FIELDS), None)
    if unknown is not None:
        raise Fault("unknown_field", f"/{escape(unknown)}", "There is no such field; your own values belong into properties.")
    given = {name: value for name, value in given.items() if value is not None}
    whole, fraction = _quantity(given.get("quantity"))
    return Candidate(
        name=_one_of(given, NAME_FIELDS, NAME_LENGTH_MAX, required=True) or "",
        whole=whole,
        fraction=fraction,
        timestamp=_timestamp(given.get("timestamp")),
        key=_key(given.get("idempotency_key")),
        properties=check_properties(given.get("properties", {})),
        organization=_one_of(given, ORGANIZATION_FIELDS, REFERENCE_LENGTH_MAX, required=False),
        subscription_id=_subscription(given.get("subscription_id")),
        unit=_text(given, "unit", UNIT_LENGTH_MAX),
    )


def quantity(token: str) -> tuple[int, int]:
    """A JSON number or decimal text as whole units and 10^-12ths; raises ValueError. An exponent must leave a plain number."""
    if not token.isascii() or "e" not in token.lower():
        return split(parse_decimal(token))
    if not JSON_NUMBER.fullmatch(token):
        raise ValueError(QUANTITY_RULE)
    value = Decimal(token)
    if value and (value.adjusted() > 13 or value.adjusted() < -PLACES):
        raise ValueError(QUANTITY_RULE)
    scaled = value.scaleb(PLACES, EXACT)
    if scaled != scaled.to_integral_value():
        raise ValueError(QUANTITY_RULE)
    whole, fraction = divmod(int(scaled), SCALE)
    return whole, fraction


def check_properties(given: Any) -> dict[str, Any]:
    """`given` as plain values when it is a flat object of texts, numbers, true, false and null within the limits; raises Fault."""
    if not isinstance(given, dict):
        raise Fault("invalid_properties", "/properties", "Must be an object.")
    if len(given) > PROPERTIES_MAX:
        raise Fault("invalid_properties", "/properties", f"At most {PROPERTIES_MAX} properties.")
    for name, value in given.items():
        pointer = f"/properties/{escape(name)}"
        if not is_name(name):
            raise Fault("invalid_properties", pointer, f"A property's name is 1 to {PROPERTY_NAME_LENGTH_MAX} visible characters.")
        if isinstance(value, (dict, list)):
            raise Fault("invalid_properties", pointer, "Must be a text, a number, true, false or null: properties are flat.")
        if isinstance(value, str) and (len(value) > PROPERTY_TEXT_LENGTH_MAX or "\x00" in value or not _is_unicode(value)):
            raise Fault("invalid_properties", pointer, f"Must be valid text of at most {PROPERTY_TEXT_LENGTH_MAX} characters without NUL.")
    return {name: value.plain() if isinstance(value, _Number) else value for name, value in given.items()}


def is_name(name: str) -> bool:
    """Whether a property may be called so."""
    return 1 <= len(name) <= PROPERTY_NAME_LENGTH_MAX and not UNPRINTABLE.search(name)


def escape(name: str) -> str:
    """`name` as a step of a JSON pointer, shortened when it is very long."""
    return UNPRINTABLE.sub("\ufffd", name[:80]).replace("~", "~0").replace("/", "~1")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        given = _decode(raw.decode())
    except (ValueError, RecursionError) as error:
        raise Fault("malformed_json", "", f"This is not JSON: {error}") from error
    except ArithmeticError as error:
        raise Fault("malformed_json", "", "A number's exponent is too large.") from error
    if not isinstance(given, dict):
        raise Fault("malformed_json", "", "An event is a JSON object.")
    return given


class _Number(Decimal):
    """A JSON number that remembers how it was written."""

    token: str

    def __new__(cls, token: str) -> _Number:
        if len(token) > 400:
            raise Fault("malformed_json", "", "A number has at most 400 digits.")
        number = super().__new__(cls, token)
        number.token = token
        return number

    def plain(self) -> int | Decimal:
        """The number as the quick road reads it: integers as int."""
        return Decimal(self) if set(self.token) & set(".eE") else int(self)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Fault("duplicate_name", f"/{escape(name)}", "This name stands twice in the same object.")
    return found


def _constant(token: str) -> Any:
    raise Fault("malformed_json", "", f"{token} is not a JSON number.")


_decode = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_Number, parse_int=_Number, parse_constant=_constant).decode


def _quantity(given: Any) -> tuple[int, int]:
    if given is None:
        return 1, 0
    token = given.token if isinstance(given, _Number) else given
    try:
        if not isinstance(token, str):
            raise TypeError(QUANTITY_RULE)
        return quantity(token)
    except (ValueError, TypeError):
        raise Fault("invalid_quantity", "/quantity", f"The quantity {QUANTITY_RULE}.") from None


def _timestamp(given: Any) -> int | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise Fault("invalid_timestamp", "/timestamp", "Must be an RFC 3339 date-time in quotes, such as 2026-11-22T10:30:00Z.")
    try:
        return parse(given)
    except BadTimestamp as error:
        raise Fault("invalid_timestamp", "/timestamp", f"The timestamp {error}.") from error


def _key(given: Any) -> str:
    if given is None:
        raise Fault("missing_field", "/idempotency_key", "Each event needs an idempotency_key: without one a retry would count twice.")
    if not isinstance(given, str) or not KEY.fullmatch(given):
        raise Fault("invalid_idempotency_key", "/idempotency_key", "Must be 1 to 255 visible ASCII characters.")
    return given


def _one_of(given: dict[str, Any], names: tuple[str, ...], length_max: int, *, required: bool) -> str | None:
    present = [name for name in names if name in given]
    if len(present) > 1:
        raise Fault("duplicate_name", f"/{present[1]}", f"Give either {present[0]} or {present[1]}, not both.")
    if not present:
        if required:
            raise Fault("missing_field", f"/{names[0]}", f"Each event needs {names[0]}.")
        return None
    return _text(given, present[0], length_max)


def _text(given: dict[str, Any], name: str, length_max: int) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= length_max or UNPRINTABLE.search(value):
        raise Fault("invalid_field", f"/{name}", f"Must be text of 1 to {length_max} visible characters.")
    return value


def _subscription(given: Any) -> bytes | None:
    if given is None:
        return None
    try:
        return subscription_bytes(given)
    except ValueError:
        raise Fault("invalid_field", "/subscription_id", "Must be a UUID.") from None


def subscription_bytes(value: Any) -> bytes:
    """A UUID in its usual form as 16 bytes; raises ValueError."""
    if not isinstance(value, str) or len(value) != 36:
        raise ValueError("must be a UUID")
    return uuid.UUID(value).bytes


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
