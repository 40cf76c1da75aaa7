"""Reading requests strictly: one JSON document, every fault with its pointer, numbers exact, no text that cannot be kept or shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from core.errors import BillingError, FieldError, Invalid

T = TypeVar("T")

BODY_BYTES_MAX = 1024 * 1024
DEPTH_MAX = 8
ITEMS_MAX = 1_000
KEY_LENGTH_MAX = 64
TEXT_LENGTH_MAX = 2_048
INTEGER_DIGITS_MAX = 18
DECIMAL = re.compile(r"-?[0-9]{1,14}(\.[0-9]{1,12})?")
DECIMAL_PATTERN = r"^-?[0-9]{1,14}(\.[0-9]{1,12})?$"
YEARS = range(2000, 2201)
UNSTORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
"""Controls, bidirectional overrides, lone surrogates: they break storage or let text show as what it is not."""

_PATH = re.compile(r" - at `(?:key in )?\$?(?P<path>[^`]*)`$")
_FIELD = re.compile(r"(?:required|unknown) field `(?P<name>[^`]*)`")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[([^\]]*)\]")


class Exact(Decimal):
    """A decimal, given as a string ("99.00") or a JSON number and kept exactly: at most 14 digits and 12 places."""


class Malformed(BillingError):
    """The body is not one JSON document in UTF-8."""

    status, code, title = 400, "malformed", "The request could not be read"


class TooLarge(BillingError):
    """The body is larger than this address takes."""

    status, code, title = 413, "too_large", "The request is too large"


class WrongMediaType(BillingError):
    """The body is not JSON, or it is compressed."""

    status, code, title = 415, "unsupported_media_type", "This address takes application/json"


@dataclass(frozen=True, slots=True)
class Fault:
    """Stands where a value could not be taken, until `document` has found its pointer."""

    detail: str


def document(raw: bytes) -> Any:
    """The JSON document `raw`; raises Malformed, or Invalid naming every value that no field of ours could hold."""
    try:
        text = raw.decode("utf-8")
        found = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not UTF-8: byte {error.start} cannot be read.") from error
    except json.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from error
    except RecursionError as error:
        raise Malformed(f"The body is nested more than {DEPTH_MAX} levels deep.") from error
    faults = [FieldError(pointer, detail) for pointer, detail in _faults(found, "", 1)]
    if faults:
        raise Invalid("The request has values that cannot be taken.", errors=tuple(faults[:50]))
    return found


def convert(found: Any, wanted: type[T], *, strict: bool = True) -> T:
    """`found` as the Struct `wanted`; raises Invalid pointing at the first field that does not fit. Times become UTC."""
    try:
        return _plain_values(msgspec.convert(found, wanted, strict=strict, dec_hook=_exact), "")
    except msgspec.ValidationError as error:
        raise Invalid("The request has a field that does not fit.", errors=(field_error(str(error)),)) from error


def query(arguments: Iterable[tuple[str, list[str]]], wanted: type[T]) -> T:
    """The query parameters as the Struct `wanted`; a parameter given twice or unknown is refused."""
    values: dict[str, str] = {}
    faults = []
    for name, given in arguments:
        if len(given) > 1:
            faults.append(FieldError(f"/{_escaped(name)}", "This parameter is given more than once."))
        elif given[0].lower() == "null":  # msgspec would read it as "not given" and drop a filter
            faults.append(FieldError(f"/{_escaped(name)}", "Leave the parameter out instead."))
        elif problem := _text_problem(given[0]):
            faults.append(FieldError(f"/{_escaped(name)}", problem))
        else:
            values[name] = given[0]
    if faults:
        raise Invalid("The query has parameters that cannot be taken.", errors=tuple(faults))
    return convert(values, wanted, strict=False)


def field_error(message: str) -> FieldError:
    """msgspec's message as a pointer and a sentence: "Expected `str`, got `int` - at `$.prices[0].name`" -> /prices/0/name."""
    path = _PATH.search(message)
    detail = message[: path.start()] if path else message
    pointer = "".join(f"/{name or index}" for name, index in _STEP.findall(path["path"])) if path else ""
    pointer = pointer.replace("/...", "")  # msgspec does not name the key of a free-form object
    name = _FIELD.search(detail)
    if name:
        pointer += f"/{_escaped(name['name'])}"
        detail = "This field is needed." if "required" in detail else "There is no such field here."
    return FieldError(pointer, detail.replace("`", ""))


def _plain_values(value: Any, pointer: str) -> Any:
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            before = getattr(value, name)
            after = _plain_values(before, f"{pointer}/{name}")
            if after is not before:
                setattr(value, name, after)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            value[index] = _plain_values(item, f"{pointer}/{index}")
    elif isinstance(value, Exact):
        return Decimal(value)
    elif isinstance(value, datetime):
        if value.year not in YEARS:
            errors = (FieldError(pointer, f"Give a time from {YEARS.start} to {YEARS.stop - 1}."),)
            raise Invalid("The request has a time out of range.", errors=errors)
        return value.astimezone(UTC)
    return value


def _exact(wanted: type[Any], found: object) -> object:
    if wanted is not Exact:
        raise NotImplementedError(wanted)
    token = found if isinstance(found, str) else str(found) if isinstance(found, (int, Decimal)) and not isinstance(found, bool) else ""
    if not DECIMAL.fullmatch(token):
        raise ValueError('Give a decimal such as "12.50": at most 14 digits before the point and 12 after it')
    return Exact(token)


def _faults(value: Any, pointer: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Fault):
        yield pointer, value.detail
    elif isinstance(value, str):
        if problem := _text_problem(value):
            yield pointer, problem
    elif isinstance(value, (dict, list)):
        if depth > DEPTH_MAX:
            yield pointer, f"This is nested more than {DEPTH_MAX} levels deep."
            return
        if len(value) > ITEMS_MAX:
            yield pointer, f"Give at most {ITEMS_MAX} items."
            return
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            here = f"{pointer}/{_escaped(str(name))}"
            if isinstance(name, str) and (len(name) > KEY_LENGTH_MAX or UNSTORABLE.search(name)):
                yield f"{pointer}/{_escaped(name[:KEY_LENGTH_MAX])}", f"A name has at most {KEY_LENGTH_MAX} printable characters."
                continue
            yield from _faults(item, here, depth + 1)


def _text_problem(text: str) -> str:
    if len(text) > TEXT_LENGTH_MAX:
        return f"Give at most {TEXT_LENGTH_MAX} characters."
    return "This holds characters that cannot be printed." if UNSTORABLE.search(text) else ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        found[name] = Fault("This name is given more than once.") if name in found else value
    return found


def _constant(token: str) -> Fault:
    return Fault(f"{token} is not a number of JSON.")


def _float(token: str) -> Decimal | Fault:
    if DECIMAL.fullmatch(token):
        return Decimal(token)
    return Fault("Give a plain decimal: no exponent, at most 14 digits before the point and 12 after it.")


def _integer(token: str) -> int | Fault:
    return int(token) if len(token) <= INTEGER_DIGITS_MAX else Fault(f"Give a whole number of at most {INTEGER_DIGITS_MAX} digits.")


def _escaped(name: str) -> str:
    return UNSTORABLE.sub("?", name).replace("~", "~0").replace("/", "~1")
