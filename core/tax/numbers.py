"""Checks of tax identification numbers: form and check digits, by country. No register is asked."""

from __future__ import annotations

from types import ModuleType

from stdnum import get_cc_module
from stdnum.eu import vat as eu_vat
from stdnum.exceptions import ValidationError

from core.tax.assess import EU, territory

VAT_PREFIX = {"GR": "EL"}
"""VAT numbers of Greece begin with EL."""


def compact(number: str, country: str) -> str:
    """The number as it is written on invoices: without separators, for the EU with its country prefix; ValueError if it is not valid."""
    home = territory(country)
    prefix = VAT_PREFIX.get(home, home)
    try:
        if home in EU:
            plain = number.strip().upper().replace(" ", "")
            return str(eu_vat.validate(plain if plain.startswith(prefix) else prefix + plain))
        module = _module(home)
        return str(module.validate(number)) if module else number.strip()
    except ValidationError as error:
        raise ValueError(f"is not a valid VAT number of {home}: {str(error) or type(error).__name__}") from None


def is_valid(number: str | None, country: str | None) -> bool:
    """Whether the number is a well-formed VAT number of `country`; False without a number, a country, or a way to check."""
    if not number or not country:
        return False
    home = territory(country)
    if home not in EU and _module(home) is None:
        return False
    try:
        compact(number, country)
    except ValueError:
        return False
    return True


def _module(country: str) -> ModuleType | None:
    found = get_cc_module(country.lower(), "vat")
    return found if isinstance(found, ModuleType) else None
