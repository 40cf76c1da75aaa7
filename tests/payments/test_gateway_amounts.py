"""Minor units to the provider's units and back: every currency, exactly or not at all."""

from decimal import Decimal

import pytest

from core.money import CURRENCIES, UnknownCurrency
from core.payments.gateways.stripe_amounts import AmountNotRepresentable, from_provider, to_provider, to_provider_amount


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        ("10", "USD", 1000),
        ("212.12", "EUR", 21212),
        ("500", "JPY", 500),
        ("1500", "KRW", 1500),
        ("5", "ISK", 500),
        ("5", "UGX", 500),
        ("1.230", "KWD", 1230),
        ("0.500", "BHD", 500),
        ("175.00", "HUF", 17500),
        ("500", "MGA", 500),
    ],
)
def test_major_units_become_the_integer_of_the_api(amount: str, currency: str, expected: int) -> None:
    assert to_provider_amount(Decimal(amount), currency) == expected


@pytest.mark.parametrize(("amount", "currency"), [("1.234", "KWD"), ("5.5", "ISK"), ("0.20", "MGA"), ("1.005", "EUR"), ("0.5", "JPY")])
def test_an_amount_that_would_lose_decimals_is_refused(amount: str, currency: str) -> None:
    with pytest.raises(AmountNotRepresentable, match=currency):
        to_provider_amount(Decimal(amount), currency)


def test_an_unknown_currency_is_refused() -> None:
    with pytest.raises(UnknownCurrency):
        to_provider_amount(Decimal(1), "EURO")


@pytest.mark.parametrize("currency", sorted(CURRENCIES))
def test_there_and_back_is_the_same_amount(currency: str) -> None:
    for minor in (0, 100, 12_300, 987_654_300):
        assert from_provider(to_provider(minor, currency), currency) == minor


def test_a_foreign_amount_between_two_minor_units_is_not_rounded() -> None:
    with pytest.raises(AmountNotRepresentable):
        from_provider(550, "ISK")
