"""How a customer is taxed: place of supply of services sold to businesses and consumers. Pure.

Sources: Directive 2006/112/EC, articles 44 (place of supply to a taxable person), 45 and 58 (electronic services to others),
196 (reverse charge), 226(11a) (the mention on the invoice), 7 (Monaco counts as France); Northern Ireland is outside for services.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum

EU = frozenset(
    {
        "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU",
        "IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
    }
)  # fmt: skip
SAME_TERRITORY = {"MC": "FR", "EL": "GR", "IM": "GB", "UK": "GB"}
"""Codes that mean, or are treated as, another country's VAT territory."""
REVERSE_CHARGE_NOTE = "Reverse charge – Article 196 Directive 2006/112/EC"
OUTSIDE_EU_NOTE = "Not subject to VAT in the EU – Articles 44 and 59 Directive 2006/112/EC"
OUTSIDE_NOTE = "Supply to a customer abroad, no tax charged"


class Treatment(StrEnum):
    """Why an invoice carries the rate it carries."""

    STANDARD = "standard"
    REVERSE_CHARGE = "reverse_charge"
    EXPORT = "export"
    OVERRIDE = "override"
    NOT_REGISTERED = "not_registered"


@dataclass(frozen=True, slots=True)
class Rate:
    """A country's standard rate in percent from `valid_from` up to and excluding `valid_to`."""

    country: str
    name: str
    rate_percent: Decimal
    valid_from: date
    valid_to: date | None = None


@dataclass(frozen=True, slots=True)
class TaxAssessment:
    """The tax of an invoice: `rate_percent` (19 is 19 %) on every line; `note` is the sentence the law asks for, or ""."""

    treatment: Treatment
    name: str
    rate_percent: Decimal
    note: str
    country: str


def assess(
    seller_country: str,
    buyer_country: str | None,
    buyer_tax_id_valid: bool,
    override: Decimal | None,
    rates: Sequence[Rate],
    on: date,
) -> TaxAssessment:
    """The tax on services supplied on day `on`. Countries are ISO 3166-1 alpha-2; a customer without one is taxed as at home.

    `override` is a rate agreed for the customer. LookupError when a country whose rate is needed has none on that day.
    """
    seller, buyer = territory(seller_country), territory(buyer_country or seller_country)
    if override is not None:
        return TaxAssessment(Treatment.OVERRIDE, _name(rates, buyer, on), override, "", buyer)
    if buyer == seller:
        return _standard(rates, seller, on)
    if seller not in EU:
        return TaxAssessment(Treatment.EXPORT, "Tax", Decimal(0), OUTSIDE_NOTE, buyer)
    if buyer not in EU:
        return TaxAssessment(Treatment.EXPORT, "VAT", Decimal(0), OUTSIDE_EU_NOTE, buyer)
    if buyer_tax_id_valid:
        return TaxAssessment(Treatment.REVERSE_CHARGE, "VAT", Decimal(0), REVERSE_CHARGE_NOTE, buyer)
    return _standard(rates, buyer, on)


def territory(country: str) -> str:
    """The country whose VAT applies in `country`."""
    code = country.strip().upper()
    return SAME_TERRITORY.get(code, code)


def rate_on(rates: Sequence[Rate], country: str, on: date) -> Rate | None:
    """The country's standard rate on a day."""
    for rate in rates:
        if rate.country == country and rate.valid_from <= on and (rate.valid_to is None or on < rate.valid_to):
            return rate
    return None


def _standard(rates: Sequence[Rate], country: str, on: date) -> TaxAssessment:
    rate = rate_on(rates, country, on)
    if rate is None:
        if country in EU:
            raise LookupError(f"no standard VAT rate is known for {country} on {on.isoformat()}")
        return TaxAssessment(Treatment.NOT_REGISTERED, "Tax", Decimal(0), "", country)
    return TaxAssessment(Treatment.STANDARD, rate.name, rate.rate_percent, "", country)


def _name(rates: Sequence[Rate], country: str, on: date) -> str:
    rate = rate_on(rates, country, on)
    return rate.name if rate else "Tax"
