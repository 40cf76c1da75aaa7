"""Amounts as Stripe's API wants them, which is not always ISO 4217 (docs.stripe.com/currencies, "Special cases"). Pure."""

from decimal import Decimal

from core.money import exponent, to_decimal

ZERO_DECIMAL = frozenset({"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"})
"""Currencies that Stripe lists as having no decimals. MGA has two in ISO 4217."""

TWO_DECIMAL_FOR_COMPATIBILITY = frozenset({"ISK", "UGX"})
"""Currencies without decimals whose API amounts still carry two, which must be 00."""


class AmountNotRepresentable(ValueError):
    """The provider cannot charge exactly this amount in this currency."""


def provider_exponent(currency: str) -> int:
    """Return how many decimals an API amount of a currency carries; raises UnknownCurrency."""
    digits = exponent(currency)
    if currency in TWO_DECIMAL_FOR_COMPATIBILITY:
        return 2
    return 0 if currency in ZERO_DECIMAL else digits


def to_provider_amount(amount: Decimal, currency: str) -> int:
    """Turn major units into the integer of the API, exactly.

    Raises AmountNotRepresentable when decimals would be lost: a fraction of an ariary, aurar, or the last of three
    decimals (Stripe takes three-decimal amounts only in multiples of ten).
    """
    places = provider_exponent(currency)
    usable = 0 if currency in ZERO_DECIMAL | TWO_DECIMAL_FOR_COMPATIBILITY else min(places, 2)
    if amount.scaleb(usable) % 1:
        raise AmountNotRepresentable(f"{amount} {currency} cannot be charged exactly by the provider")
    return int(amount.scaleb(places))


def to_provider(amount_minor: int, currency: str) -> int:
    """Turn minor units into the integer of the API; raises AmountNotRepresentable."""
    return to_provider_amount(to_decimal(amount_minor, currency), currency)


def from_provider(amount: int, currency: str) -> int:
    """Turn an integer of the API into minor units; raises AmountNotRepresentable for aurar and the like."""
    minor = Decimal(amount).scaleb(exponent(currency) - provider_exponent(currency))
    if minor % 1:
        raise AmountNotRepresentable(f"{amount} of the provider's units of {currency} are no whole minor units")
    return int(minor)
