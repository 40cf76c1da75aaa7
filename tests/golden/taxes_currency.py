"""Taxes and currencies: rounding and splitting are core/money, tax core/pricing/tax and core/tax, provider amounts the gateway's."""

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from core.money import CURRENCIES, allocate, exponent, round_half_up, round_ratio, to_decimal
from core.payments.gateways.stripe_amounts import ZERO_DECIMAL, AmountNotRepresentable, to_provider_amount
from core.pricing.tax import included_tax_minor, tax_minor
from core.tax import numbers
from core.tax.assess import EU, Treatment, assess, territory
from core.tax.rates import known
from tests.golden.compare import Either, Unsupported
from tests.golden.reading import decimal, only

ON = date(2025, 1, 1)


def answer(given: Mapping[str, Any]) -> dict[str, object]:
    """Rounded amounts, taxes, and checks of tax numbers."""
    questions: dict[str, Callable[[Mapping[str, Any]], dict[str, object]]] = {
        "minor_units": _minor_units,
        "round": lambda g: {"amount": _rounded(g["amount"], g["currency"])},
        "round_minor": lambda g: {"amount": round_ratio(*decimal(g["amount"]).as_integer_ratio())},
        "sum_rounded": _sum_rounded,
        "allocate": lambda g: {"parts": allocate(int(g["minor_amount"]), [decimal(weight) for weight in g["weights"]])},
        "tax": _tax,
        "vat": _vat,
        "eu_tax": _eu_tax,
        "vat_id": _vat_id,
        "tax_id": _tax_id,
        "to_provider_amount": _to_provider_amount,
        "provider_zero_decimal_list": _zero_decimal,
    }
    op = given.get("op")
    if op not in questions:
        raise Unsupported(f"no question {op}")
    return questions[op](given)


def _minor_units(given: Mapping[str, Any]) -> dict[str, object]:
    if given["currency"] not in CURRENCIES:
        raise Unsupported(f"no currency {given['currency']}")
    return {"digits": exponent(given["currency"])}


def _rounded(amount: object, currency: str) -> Decimal:
    if currency not in CURRENCIES:
        raise Unsupported(f"no currency {currency}")
    return to_decimal(round_half_up(decimal(amount), currency), currency)


def _sum_rounded(given: Mapping[str, Any]) -> dict[str, object]:
    amounts, currency = [decimal(amount) for amount in given["amounts"]], given["currency"]
    rounded = sum((_rounded(amount, currency) for amount in amounts), Decimal(0))
    return {"amount": rounded, "add_then_round": _rounded(sum(amounts, Decimal(0)), currency)}


def _tax(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op base rate_percent currency tax_behavior")
    currency, rate = given["currency"], decimal(given["rate_percent"])
    base = round_half_up(decimal(given["base"]), currency)
    if given.get("tax_behavior", "exclusive") == "inclusive":
        tax = included_tax_minor(base, rate, currency)
        return {"tax": to_decimal(tax, currency), "net": to_decimal(base - tax, currency), "total": to_decimal(base, currency)}
    tax = tax_minor(base, rate, currency)
    return {"tax": to_decimal(tax, currency), "net": to_decimal(base, currency), "total": to_decimal(base + tax, currency)}


def _vat(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op from to customer digital base rate_kind currency")
    if given.get("rate_kind", "standard") != "standard":
        raise Unsupported("reduced rates: services are sold at the standard rate")
    rate = assess(given["from"], given["to"], given["customer"] == "B2B", None, known(), ON).rate_percent
    tax = tax_minor(round_half_up(decimal(given["base"]), "EUR"), rate, "EUR")
    return {"tax": to_decimal(tax, "EUR"), "rate_percent": rate}


def _eu_tax(given: Mapping[str, Any]) -> dict[str, object]:
    """A VAT number counts as confirmed unless the case says otherwise."""
    only(given, "op seller_country customer_country vat_id vat_id_valid vat_id_country zip supply")
    if given.get("zip"):
        raise Unsupported("special territories inside a country are not told apart by post code")
    if given.get("supply", "service") != "service":
        raise Unsupported(f"supply of {given['supply']}: only services are sold")
    number = given.get("vat_id") or ""
    country = given.get("customer_country") or given.get("vat_id_country") or number[:2] or None
    found = assess(given["seller_country"], country, bool(given.get("vat_id_valid", number)), None, known(), ON)
    names = {Treatment.REVERSE_CHARGE: "reverse_charge", Treatment.EXPORT: "exempt", Treatment.STANDARD: f"standard:{found.country}"}
    return {"treatment": names.get(found.treatment, found.treatment.value)}


def _checked(number: str, country: str) -> str:
    """The country whose numbers are asked for; "EU" stands for that of the number's own prefix."""
    code = number.strip()[:2].upper() if country == "EU" else country
    if code not in EU | {"EL", "GB", "CH", "NO"}:
        raise Unsupported(f"numbers of {code} are not checked")
    return code


def _tax_id(given: Mapping[str, Any]) -> dict[str, object]:
    return {"valid": numbers.is_valid(given["number"], _checked(given["number"], given["country"]))}


def _vat_id(given: Mapping[str, Any]) -> dict[str, object]:
    """A number may be written with or without the letters of its country."""
    only(given, "op number country")
    country = _checked(given["number"], given["country"])
    try:
        compact = numbers.compact(given["number"], country)
    except ValueError as error:
        return {"valid": False, "reason": "checksum" if "checksum" in str(error) else "format"}
    home = territory(country)
    bare = compact.removeprefix(numbers.VAT_PREFIX.get(home, home))
    return {"valid": True, "compact": Either([compact, bare])}


def _to_provider_amount(given: Mapping[str, Any]) -> dict[str, object]:
    if given["provider"] != "stripe":
        raise Unsupported(f"no provider {given['provider']}")
    try:
        return {"minor_amount": to_provider_amount(decimal(given["amount"]), given["currency"])}
    except AmountNotRepresentable:
        raise Unsupported("disagrees: an amount the provider cannot charge exactly is refused, not rounded") from None


def _zero_decimal(given: Mapping[str, Any]) -> dict[str, object]:
    if given["provider"] != "stripe":
        raise Unsupported(f"no provider {given['provider']}")
    return {"currencies": sorted(ZERO_DECIMAL)}
