"""Values the endpoints share: decimals, codes, addresses, metadata; how each is read, written and described."""

from __future__ import annotations

import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from api.contract import Listing, Output
from api.reading import DECIMAL_PATTERN, Exact
from core.errors import FieldError, Invalid
from core.identity.models import Organization
from core.identity.organizations import countries, timezones
from core.identity.queries import as_uuid
from core.money import CURRENCIES, format_decimal

Currency = Annotated[str, Meta(description="ISO 4217 code.", extra_json_schema={"enum": sorted(CURRENCIES)}, examples=["EUR"])]
Timezone = Annotated[str, Meta(description="IANA time zone.", extra_json_schema={"enum": sorted(timezones())}, examples=["Europe/Berlin"])]
Code = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,99}$", max_length=100, examples=["input_tokens"])]
_SIGNS = r"\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff"
LINE_PATTERN = rf"^[^\s{_SIGNS}]([^{_SIGNS}]*[^\s{_SIGNS}])?$"
"""A line of printable text that neither begins nor ends with a space."""
FREE_PATTERN = rf"^[^{_SIGNS}]*$"
"""A line that may be empty, in any script, without control characters."""
Text = Annotated[str, Meta(pattern=LINE_PATTERN, min_length=1, max_length=255)]
ShortText = Annotated[str, Meta(pattern=LINE_PATTERN, min_length=1, max_length=100)]
Metadata = dict[str, str | int | bool | None]
Reference = Annotated[
    str, Meta(description="The organization's id, external id or slug. Needed with a platform key only.", min_length=1, max_length=255)
]
Country = Annotated[str, Meta(description="ISO 3166-1 alpha-2 code.", extra_json_schema={"enum": sorted(countries())}, examples=["DE"])]
Cursor = Annotated[str, Meta(description="`next_cursor` of the page before.", max_length=200)]


class Address(Output, omit_defaults=True, forbid_unknown_fields=True):
    """A postal address. The country decides the tax."""

    country: Country
    line1: Annotated[str, Meta(max_length=255)] | None = None
    line2: Annotated[str, Meta(max_length=255)] | None = None
    city: Annotated[str, Meta(max_length=255)] | None = None
    state: Annotated[str, Meta(max_length=255)] | None = None
    postal_code: Annotated[str, Meta(max_length=255)] | None = None


def exact_schema(kind: type[Any]) -> dict[str, Any]:
    """JSON Schema of the types msgspec does not know."""
    if kind is Exact:
        return {
            "description": "A decimal, best sent as a string.",
            "anyOf": [{"type": "string", "pattern": DECIMAL_PATTERN}, {"type": "integer", "minimum": -(10**14) + 1, "maximum": 10**14 - 1}],
            "examples": ["99.00"],
        }
    raise NotImplementedError(kind)


def amount(minor: int | None, currency: str) -> str:
    """Minor units as the API writes money: a decimal string in major units."""
    return format_decimal(minor or 0, currency)


def plain_decimal(value: Decimal) -> str:
    """A quantity or unit price without exponent and without trailing zeros: "1500", "0.0000048"."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def cursor_id(query: Listing) -> uuid.UUID | None:
    """The row id a page continues after; Invalid when the cursor is none of ours."""
    if query.cursor is None:
        return None
    found = as_uuid(query.cursor)
    if found is None:
        raise Invalid("This page does not exist.", errors=(FieldError("/cursor", "Use a next_cursor of an earlier answer."),))
    return found


def instant(text: str, organization: Organization, pointer: str, *, day_end: bool = False, timezone: str | None = None) -> datetime:
    """An instant from a date-time with an offset, or from a day of the organization's billing time zone (or of `timezone`).

    A day means its first midnight, with `day_end` the midnight that ends it.
    """
    try:
        if len(text) == 10:
            day = date.fromisoformat(text) + timedelta(days=1 if day_end else 0)
            return datetime.combine(day, time(0), ZoneInfo(timezone or organization.timezone))
        return msgspec.convert(text, Annotated[datetime, Meta(tz=True)])
    except (ValueError, OverflowError, msgspec.ValidationError) as error:
        detail = "Give a day such as 2026-06-01, or a time with its offset such as 2026-06-01T00:00:00Z."
        raise Invalid("A time cannot be read.", errors=(FieldError(pointer, detail),)) from error
