"""Reads values of a document as people write it; every fault is collected with its JSON pointer. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar

from core.errors import FieldError
from core.money import CURRENCIES, exponent, parse_decimal

CODE_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
NAME_LENGTH_MAX = 255
OBJECT_BYTES_MAX = 16_384

E_ = TypeVar("E_", bound=StrEnum)


@dataclass(slots=True)
class Reader:
    """Collects faults while the document is read, so that one answer names all of them."""

    faults: list[FieldError] = field(default_factory=list)

    def fault(self, pointer: str, detail: str) -> None:
        """Note that the value at `pointer` is wrong."""
        self.faults.append(FieldError(pointer, detail))

    def text(self, pointer: str, value: object, *, longest: int = NAME_LENGTH_MAX, needed: bool = True) -> str:
        """A line of text without control characters; "" when it is absent or wrong."""
        if value is None and not needed:
            return ""
        if not isinstance(value, str) or (needed and not value.strip()):
            self.fault(pointer, "must be a text that is not empty")
        elif len(value) > longest:
            self.fault(pointer, f"must have at most {longest} characters")
        elif not storable(value):
            self.fault(pointer, "must not contain control characters")
        else:
            return value.strip()
        return ""

    def code(self, pointer: str, value: object) -> str:
        """An identifier of our vocabulary."""
        if isinstance(value, str) and CODE_FORM.fullmatch(value):
            return value
        self.fault(pointer, "must be 1 to 100 letters, digits and _ . : - and begin with a letter or digit")
        return ""

    def choice(self, pointer: str, value: object, options: Iterable[E_], default: E_) -> E_:
        """One of the options; `default` when it is absent or wrong."""
        by_name = {str(option): option for option in options}
        if value is None or value in by_name.values():
            return by_name[str(value)] if value is not None else default
        self.fault(pointer, f"must be one of {', '.join(by_name)}{did_you_mean(str(value), by_name)}")
        return default

    def whole(self, pointer: str, value: object, *, least: int, most: int) -> int:
        """A whole number between bounds; `least` when it is wrong."""
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.fault(pointer, f"must be a whole number from {least} to {most}")
        return least

    def amount(self, pointer: str, value: object, currency: str) -> Decimal:
        """Major units that the currency can express exactly."""
        try:
            amount = parse_decimal(str(as_text(value)))
        except ValueError as error:
            self.fault(pointer, str(error) if isinstance(value, (str, int, Decimal)) else 'must be a decimal string, such as "99.00"')
            return Decimal(0)
        if currency in CURRENCIES and amount != round(amount, exponent(currency)):
            self.fault(pointer, f"has more decimals than {currency} ({exponent(currency)})")
        return amount

    def object(self, pointer: str, value: object, *, most: int = OBJECT_BYTES_MAX) -> dict[str, Any]:
        """A JSON object of at most so many bytes; {} when it is absent or wrong."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.fault(pointer, "must be an object")
            return {}
        plain = {str(key): as_text(item) for key, item in value.items()}
        try:
            written = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            self.fault(pointer, "must hold JSON values only; write numbers with decimals as strings")
            return {}
        if len(written.encode("utf-8", "surrogatepass")) > most or not storable(written) or "\\u0000" in written:
            self.fault(pointer, f"must be at most {most} bytes without control characters")
            return {}
        return plain


def as_text(value: object) -> Any:
    """`value` with every Decimal in it as plain digits, the form prices are stored in."""
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() and abs(value.adjusted()) < 40 else str(value)
    if isinstance(value, Mapping):
        return {str(key): as_text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_text(item) for item in value]
    return value


def storable(text: str) -> bool:
    """Whether PostgreSQL and a page can hold the text: no control characters save line breaks and tabs, no lone surrogates."""
    return not any((ord(char) < 32 and char not in "\n\r\t") or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in text)


def did_you_mean(word: str, known: Collection[str]) -> str:
    """ "; did you mean …?" with the nearest known words, or nothing."""
    near = get_close_matches(word[:100], list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
