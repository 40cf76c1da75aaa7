"""Create and change customer accounts. What is written here is what invoices, taxes and billing days rest on, so it is checked here."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import available_timezones

from babel import Locale
from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, FieldError, Invalid
from core.identity.models import Organization, OrganizationStatus, TestClock
from core.money import UnknownCurrency, exponent

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,98}[a-z0-9])?")
EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9-]{1,63})+")
COUNTRY = re.compile(r"[A-Z]{2}")
TAX_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ./-]{1,49}")
ADDRESS_FIELDS = ("line1", "line2", "city", "state", "postal_code", "country")
EMAIL_LENGTH_MAX = 254
ADDRESS_FIELD_LENGTH_MAX = 255
RATE_PERCENT_MAX = Decimal(100)
CHANGEABLE = ("name", "billing_email", "billing_address", "tax_id", "tax_rate_percent", "auto_collect", "locale", "extra")


def create(
    session: Session,
    *,
    name: str,
    slug: str,
    billing_email: str,
    currency: str,
    timezone: str,
    billing_address: Mapping[str, Any],
    actor: Actor,
    at: datetime,
    external_id: str | None = None,
    tax_id: str | None = None,
    tax_rate_percent: Decimal | None = None,
    auto_collect: bool = True,
    metadata: Mapping[str, Any] | None = None,
    test_clock_id: uuid.UUID | None = None,
) -> Organization:
    """A new account. Raises Invalid naming every field that is wrong, Conflict when slug or external id is taken.

    `timezone` (IANA) is where its billing days begin; `currency` (ISO 4217) is what it is billed in; both stay for good.
    """
    values: dict[str, Any] = {
        "name": name.strip(),
        "slug": slug,
        "external_id": external_id,
        "billing_email": billing_email,
        "currency": currency,
        "timezone": timezone,
        "billing_address": dict(billing_address),
        "tax_id": tax_id,
        "tax_rate_percent": tax_rate_percent,
    }
    errors = field_errors(values)
    clock = session.get(TestClock, test_clock_id) if test_clock_id else None
    if test_clock_id and clock is None:
        errors.append(FieldError("/test_clock_id", "There is no test clock with this id."))
    if errors:
        raise Invalid("The account was not created.", errors=tuple(errors))
    _refuse_taken(session, slug=slug, external_id=external_id)
    organization = Organization(
        **values,
        auto_collect=auto_collect,
        extra=dict(metadata or {}),
        test_clock=clock,
        status=OrganizationStatus.ACTIVE,
        created_at=at,
    )
    session.add(organization)
    session.flush()
    audit.record(session, actor, "organization.created", organization, at=at, name=organization.name, currency=currency, timezone=timezone)
    return organization


def update(session: Session, organization: Organization, changes: Mapping[str, Any], *, actor: Actor, at: datetime) -> Organization:
    """Change fields of CHANGEABLE (`extra` is the metadata); raises Invalid. Finalized invoices keep what they were issued with."""
    unknown = set(changes) - set(CHANGEABLE)
    assert not unknown, f"not changeable: {unknown}"
    errors = field_errors(changes)
    if errors:
        raise Invalid("The account was not changed.", errors=tuple(errors))
    before = {name: getattr(organization, name) for name in changes if getattr(organization, name) != changes[name]}
    for name in before:
        setattr(organization, name, changes[name])
    if before:
        session.flush()
        after = {name: changes[name] for name in before}
        audit.record(session, actor, "organization.changed", organization, at=at, before=before, after=after)
    return organization


def field_errors(values: Mapping[str, Any]) -> list[FieldError]:
    """Everything wrong with the fields given (those absent are not looked at)."""
    errors = [FieldError(f"/{name}", problem) for name, check in _CHECKS.items() if name in values and (problem := check(values[name]))]
    return errors + _address_errors(values["billing_address"]) if "billing_address" in values else errors


@lru_cache(maxsize=1)
def timezones() -> frozenset[str]:
    """The IANA time zones an account may live in."""
    return frozenset(name for name in available_timezones() if "/" in name or name == "UTC")


@lru_cache(maxsize=1)
def countries() -> dict[str, str]:
    """ISO 3166-1 alpha-2 codes with their English names (CLDR)."""
    not_countries = {"EU", "EZ", "UN", "QO", "XA", "XB", "ZZ"}
    territories: Mapping[str, str] = Locale("en").territories
    return {code: name for code, name in territories.items() if COUNTRY.fullmatch(code) and code not in not_countries}


def is_email(text: str) -> bool:
    """Whether `text` is an address mail can be sent to: ASCII, at most 254 characters, a dotted domain."""
    return len(text) <= EMAIL_LENGTH_MAX and EMAIL.fullmatch(text) is not None


def _name_problem(name: str) -> str:
    return "" if 1 <= len(name.strip()) <= 255 else "Give a name of 1 to 255 characters."


def _slug_problem(slug: str) -> str:
    return (
        "" if SLUG.fullmatch(slug) else "Use 1 to 100 lower-case letters, digits and hyphens, beginning and ending with a letter or digit."
    )


def _email_problem(email: str) -> str:
    return "" if is_email(email) else "This is not an e-mail address."


def _currency_problem(currency: str) -> str:
    try:
        exponent(currency)
    except UnknownCurrency:
        return "This is not a currency code of ISO 4217, such as EUR."
    return ""


def _timezone_problem(timezone: str) -> str:
    return "" if timezone in timezones() else "This is not an IANA time zone, such as Europe/Berlin."


def _external_id_problem(external_id: str | None) -> str:
    return "" if external_id is None or 1 <= len(external_id) <= 255 else "Give 1 to 255 characters, or leave it out."


def _tax_id_problem(tax_id: str | None) -> str:
    return "" if tax_id is None or TAX_ID.fullmatch(tax_id) else "Give 2 to 50 letters, digits, spaces, dots, slashes or hyphens."


def _rate_problem(rate: Decimal | None) -> str:
    return "" if rate is None or 0 <= rate <= RATE_PERCENT_MAX else "Give a percentage from 0 to 100."


_CHECKS: dict[str, Callable[[Any], str]] = {
    "name": _name_problem,
    "slug": _slug_problem,
    "external_id": _external_id_problem,
    "billing_email": _email_problem,
    "currency": _currency_problem,
    "timezone": _timezone_problem,
    "tax_id": _tax_id_problem,
    "tax_rate_percent": _rate_problem,
}


def _address_errors(address: Mapping[str, Any]) -> list[FieldError]:
    errors = [
        FieldError(f"/billing_address/{name}", "This is not a field of an address.") for name in address if name not in ADDRESS_FIELDS
    ]
    errors += [
        FieldError(f"/billing_address/{name}", f"Give at most {ADDRESS_FIELD_LENGTH_MAX} characters.")
        for name in ADDRESS_FIELDS
        if len(str(address.get(name) or "")) > ADDRESS_FIELD_LENGTH_MAX
    ]
    country = address.get("country")
    if not country:
        errors.append(FieldError("/billing_address/country", "The country is needed: it decides the tax."))
    elif country not in countries():
        errors.append(FieldError("/billing_address/country", "This is not a country code of ISO 3166-1, such as DE."))
    return errors


def _refuse_taken(session: Session, *, slug: str, external_id: str | None) -> None:
    if session.scalar(select(Organization.id).where(Organization.slug == slug)):
        raise Conflict("Another account has this slug.", code="slug_taken", errors=(FieldError("/slug", "This slug is taken."),))
    if external_id and session.scalar(select(Organization.id).where(Organization.external_id == external_id)):
        errors = (FieldError("/external_id", "This external id is taken."),)
        raise Conflict("Another account has this external id.", code="external_id_taken", errors=errors)
