"""Exact amounts, the one rounding, strict parsing, splitting without loss."""

from decimal import Decimal
from fractions import Fraction

import pytest

from core.money import (
    CURRENCIES,
    CurrencyMismatch,
    Money,
    UnknownCurrency,
    allocate,
    exponent,
    format_decimal,
    parse_decimal,
    round_half_up,
    to_decimal,
)


@pytest.mark.parametrize(("currency", "digits"), [("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("ISK", 0), ("MGA", 2)])
def test_exponent_follows_iso_4217(currency: str, digits: int) -> None:
    assert exponent(currency) == digits


@pytest.mark.parametrize("currency", ["XYZ", "eur", "", "EURO"])
def test_an_unknown_currency_is_refused_everywhere(currency: str) -> None:
    for use in (lambda: exponent(currency), lambda: round_half_up(Decimal(1), currency), lambda: format_decimal(1, currency)):
        with pytest.raises(UnknownCurrency):
            use()


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("0.005", "EUR", 1), ("0.0049999999", "EUR", 0), ("-0.005", "EUR", -1), ("-0.0049", "EUR", 0),
        ("2.5", "JPY", 3), ("1.0005", "KWD", 1001), ("32.70932", "EUR", 3271), ("99999999999999.995", "EUR", 10**16),
    ],
)  # fmt: skip
def test_rounding_is_half_away_from_zero(amount: str, currency: str, minor: int) -> None:
    assert round_half_up(Decimal(amount), currency) == minor
    assert round_half_up(Fraction(amount), currency) == minor


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(12345, "EUR", "123.45"), (-5, "EUR", "-0.05"), (123, "JPY", "123"), (1, "KWD", "0.001"), (0, "USD", "0.00")],
)
def test_api_form(minor: int, currency: str, text: str) -> None:
    assert format_decimal(minor, currency) == text
    assert to_decimal(minor, currency) == Decimal(text)


@pytest.mark.parametrize("currency", sorted(CURRENCIES))
def test_every_currency_goes_to_major_units_and_back(currency: str) -> None:
    for minor in (0, 1, -1, 99, 123456789):
        assert round_half_up(to_decimal(minor, currency), currency) == minor


def test_money_adds_and_compares_within_one_currency_only() -> None:
    assert Money(150, "EUR") + Money(50, "EUR") - Money(1, "EUR") == Money(199, "EUR")
    assert -Money(1, "EUR") < Money(0, "EUR") <= Money(0, "EUR") < Money(1, "EUR") >= Money(1, "EUR") > Money(0, "EUR")
    assert str(Money(199, "EUR")) == "1.99 EUR"
    assert Money(199, "EUR").decimal == Decimal("1.99")
    for mixed in (lambda: Money(1, "EUR") + Money(1, "USD"), lambda: Money(1, "EUR") < Money(1, "USD")):
        with pytest.raises(CurrencyMismatch):
            mixed()


@pytest.mark.parametrize("token", ["0", "1.5", "99999999999999.999999999999", "000.10"])
def test_a_plain_decimal_is_read(token: str) -> None:
    assert parse_decimal(token) == Decimal(token)


@pytest.mark.parametrize(
    "token",
    ["", " 1", "1\n", "1_000", "１２", "1e3", "NaN", "Infinity", "-1", "+1", "1.", ".5", "0x1", "1" * 15, f"0.{'1' * 13}", "1,5"],
)
def test_anything_else_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="decimal number"):
        parse_decimal(token)


def test_a_sign_is_read_only_where_it_is_allowed() -> None:
    assert parse_decimal("-1.5", signed=True) == Decimal("-1.5")


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [(100, [1, 1, 1], [34, 33, 33]), (-100, [1, 1, 1], [-34, -33, -33]), (5, [1, 1], [3, 2]), (100, [1, 1, 2], [25, 25, 50]),
     (10, [1, 2, 4], [1, 3, 6]), (0, [1, 2], [0, 0]), (7, [0, 1], [0, 7])],
)  # fmt: skip
def test_allocation_gives_leftovers_to_the_largest_remainder(total: int, weights: list[int], parts: list[int]) -> None:
    assert allocate(total, weights) == parts


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1, 1]])
def test_allocation_needs_a_positive_weight(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        allocate(10, weights)
