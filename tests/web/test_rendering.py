"""Formats: money, quantities, prices, dates; the same in pages, mails and PDFs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from core import rendering
from core.money import to_decimal

D = Decimal
BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("minor", "currency", "locale", "text"),
    [
        (138127, "EUR", "en_GB", "€1,381.27"),
        (-14248, "EUR", "en_GB", "−€142.48"),
        (0, "EUR", "en_GB", "€0.00"),
        (123456780, "USD", "en_US", "$1,234,567.80"),
        (123456780, "EUR", "de_DE", "1.234.567,80\xa0€"),
        (123456780, "EUR", "fr_FR", "1\u202f234\u202f567,80\xa0€"),
        (123456780, "CHF", "de_CH", "CHF\xa01’234’567.80"),
        (1234568, "JPY", "ja_JP", "￥1,234,568"),
        (123456780, "INR", "en_IN", "₹12,34,567.80"),
        (1234567, "KWD", "en_US", "KWD\xa01,234.567"),
    ],
)
def test_money_is_written_as_the_locale_does(minor: int, currency: str, locale: str, text: str) -> None:
    assert rendering.money(minor, currency, locale) == text


@given(st.integers(-(10**15), 10**15), st.sampled_from(["EUR", "JPY", "KWD", "USD"]))
def test_no_digit_of_an_amount_is_ever_lost(minor: int, currency: str) -> None:
    text = rendering.plain_money(minor, currency).replace(",", "").replace("−", "-")
    assert D(text) == to_decimal(minor, currency)
    assert "".join(rendering.money_parts(minor, currency)) == rendering.money(minor, currency)


@pytest.mark.parametrize(
    ("price", "unit", "text"),
    [
        ("99", "", "€99.00"),
        ("0.18", "GB", "€0.18 per GB"),
        ("0.125", "GB", "€0.125 per GB"),
        ("0.0000048", "", "€4.80 per 1\xa0M"),
        ("0.0000015", "", "€1.50 per 1\xa0M"),
        ("0.000002", "tokens", "€2.00 per 1\xa0M tokens"),
        ("0.00004", "", "€0.04 per 1,000"),
        ("0.0009", "call", "€0.90 per 1,000 call"),
        ("0.000000000123", "", "€0.000123 per 1\xa0M"),
        ("0", "", "€0.00"),
        ("12345.678901", "", "€12,345.678901"),
    ],
)
def test_unit_prices_are_exact_and_readable(price: str, unit: str, text: str) -> None:
    assert rendering.unit_price(D(price), "EUR", unit) == text


@given(st.decimals(min_value=D("0.000001"), max_value=D(1_000_000), places=9))
def test_a_written_unit_price_is_the_price(price: Decimal) -> None:
    scale = rendering.price_scale(price)
    shown = rendering.unit_price(price, "EUR", symbol=False, per=False).replace(",", "")
    assert D(shown) == price * scale


def test_quantities_keep_every_digit_and_no_more() -> None:
    assert rendering.quantity(645_752_663) == "645,752,663"
    assert rendering.quantity(D("25.600"), "GB") == "25.6\xa0GB"
    assert rendering.quantity(D("1E+3")) == "1,000"
    assert rendering.quantity(D("-0.000000000001")) == "−0.000000000001"


def test_periods_end_inclusively_in_the_customers_zone() -> None:
    start, end = datetime(2026, 10, 31, 23, tzinfo=UTC), datetime(2026, 11, 30, 23, tzinfo=UTC)
    assert rendering.period(start, end, BERLIN) == "1–30 Nov 2026"
    assert rendering.period(start, end, BERLIN, zone=True) == "1–30 Nov 2026 (Europe/Berlin)"
    assert rendering.period(start, end) == "31 Oct–30 Nov 2026, from 23:00\xa0UTC, until 23:00\xa0UTC"
    assert rendering.period(start, start + timedelta(days=1), BERLIN) == "1 Nov 2026"
    assert (
        rendering.period(datetime(2026, 12, 21, 23, tzinfo=UTC), datetime(2027, 1, 21, 23, tzinfo=UTC), BERLIN) == "22 Dec 2026–21 Jan 2027"
    )


def test_moments_name_their_zone() -> None:
    at = datetime(2026, 11, 24, 5, 0, 7, tzinfo=UTC)
    assert rendering.datetime_tz(at, BERLIN) == "24 Nov 2026, 06:00\xa0CET"
    assert rendering.time_tz(at, BERLIN) == "06:00:07\xa0CET"
    assert rendering.time_tz(at, "America/Sao_Paulo", seconds=False) == "02:00\xa0UTC-03:00"
    assert rendering.date(at, "Pacific/Auckland") == "24 Nov 2026"
    assert rendering.date(date(2026, 11, 22)) == "22 Nov 2026"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12, "12 s ago"), (0, "0 s ago"), (840, "14 min ago"), (7 * 86400, "7 days ago"), (-3 * 86400, "in 3 days"), (7200, "2 hours ago")],
)
def test_ages_are_said_in_one_unit(seconds: int, text: str) -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert rendering.relative(now - timedelta(seconds=seconds), now) == text


def test_changes_are_words_and_never_infinite() -> None:
    assert rendering.change(138127, 121626) == "▲ 13.6\xa0% higher"
    assert rendering.change(90, 100) == "▼ 10.0\xa0% lower"
    assert rendering.change(5, 0) == "n/a"
    assert rendering.change(7, 7) == "unchanged"


def test_a_template_with_an_unknown_value_fails_instead_of_printing_nothing() -> None:
    with pytest.raises(UndefinedError):
        rendering.environment().from_string("{{ nothing }}").render()


def test_stored_instants_need_an_offset() -> None:
    assert rendering.instant("2026-11-24T05:00:00+00:00").tzinfo is not None
    with pytest.raises(ValueError, match="offset"):
        rendering.instant("2026-11-24T05:00:00")


def test_an_average_is_for_reading_and_says_four_places() -> None:
    assert rendering.average_price(D("869.73792"), D(241_793_100), "EUR", scale=1_000_000) == "€3.5970"
    assert rendering.average_price(D("10"), D(3), "EUR") == "€3.3333"
