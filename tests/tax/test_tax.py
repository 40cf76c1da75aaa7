"""How customers are taxed, and what the seeded rates say."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.tax import numbers, rates
from core.tax.assess import EU, OUTSIDE_EU_NOTE, REVERSE_CHARGE_NOTE, assess, rate_on
from core.tax.models import TaxRate

ON = date(2026, 6, 30)


@pytest.mark.parametrize(
    ("seller", "buyer", "vat_id_valid", "override", "treatment", "rate", "note"),
    [
        ("DE", "DE", False, None, "standard", "19", ""),
        ("DE", "DE", True, None, "standard", "19", ""),
        ("DE", "FR", True, None, "reverse_charge", "0", REVERSE_CHARGE_NOTE),
        ("DE", "FR", False, None, "standard", "20", ""),
        ("FR", "DE", False, None, "standard", "19", ""),
        ("DE", "FI", False, None, "standard", "25.5", ""),
        ("DE", "MC", False, None, "standard", "20", ""),
        ("FR", "MC", True, None, "standard", "20", ""),
        ("DE", "GR", True, None, "reverse_charge", "0", REVERSE_CHARGE_NOTE),
        ("DE", "US", False, None, "export", "0", OUTSIDE_EU_NOTE),
        ("DE", "GB", True, None, "export", "0", OUTSIDE_EU_NOTE),
        ("DE", None, False, None, "standard", "19", ""),
        ("GB", "GB", False, None, "standard", "20", ""),
        ("CH", "DE", True, None, "export", "0", "Supply to a customer abroad, no tax charged"),
        ("US", "US", False, None, "not_registered", "0", ""),
        ("DE", "FR", True, Decimal("5.5"), "override", "5.5", ""),
        ("DE", "US", False, Decimal(0), "override", "0", ""),
    ],
)
def test_treatment(
    seller: str, buyer: str | None, vat_id_valid: bool, override: Decimal | None, treatment: str, rate: str, note: str
) -> None:
    found = assess(seller, buyer, vat_id_valid, override, rates.known(), ON)
    assert (found.treatment, found.rate_percent, found.note) == (treatment, Decimal(rate), note)


@pytest.mark.parametrize(
    ("country", "on", "rate"),
    [
        ("DE", date(2020, 6, 30), "19"),
        ("DE", date(2020, 7, 1), "16"),
        ("DE", date(2020, 12, 31), "16"),
        ("DE", date(2021, 1, 1), "19"),
        ("EE", date(2025, 6, 30), "22"),
        ("EE", date(2025, 7, 1), "24"),
        ("RO", date(2025, 8, 1), "21"),
        ("SK", date(2025, 1, 1), "23"),
        ("FI", date(2024, 9, 1), "25.5"),
        ("CH", date(2024, 1, 1), "8.1"),
        ("LU", date(2023, 12, 31), "16"),
    ],
)
def test_rates_hold_from_their_day(country: str, on: date, rate: str) -> None:
    found = rate_on(rates.known(), country, on)
    assert found is not None
    assert found.rate_percent == Decimal(rate)


def test_every_member_state_has_one_rate_on_any_day_since_2021() -> None:
    for country in EU:
        for year in range(2021, 2027):
            for month in range(1, 13):
                on = date(year, month, 1)
                holding = [
                    r for r in rates.known() if r.country == country and r.valid_from <= on and (r.valid_to is None or on < r.valid_to)
                ]
                assert len(holding) == 1, (country, on)


def test_a_missing_rate_is_an_error_and_not_nothing() -> None:
    with pytest.raises(LookupError, match="DE"):
        assess("DE", "DE", False, None, [], ON)


@pytest.mark.parametrize(
    ("number", "country", "written"),
    [
        ("DE 136 695 976", "DE", "DE136695976"),
        ("136695976", "DE", "DE136695976"),
        ("fr 40 303265045", "FR", "FR40303265045"),
        ("094259216", "GR", "EL094259216"),
        ("EL094259216", "GR", "EL094259216"),
        ("GB980780684", "GB", "980780684"),
    ],
)
def test_valid_numbers_are_written_in_one_way(number: str, country: str, written: str) -> None:
    assert numbers.is_valid(number, country)
    assert numbers.compact(number, country) == written


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("DE136695977", "DE"),
        ("FR40303265045", "DE"),
        ("DE13669597", "DE"),
        ("", "DE"),
        (None, "DE"),
        ("DE136695976", None),
        ("12-3456789", "ZZ"),
    ],
)
def test_what_is_not_a_vat_number(number: str | None, country: str | None) -> None:
    assert not numbers.is_valid(number, country)


def test_the_reason_is_said() -> None:
    with pytest.raises(ValueError, match="not a valid VAT number of DE"):
        numbers.compact("DE136695977", "DE")


def test_first_use_seeds_the_table_once_and_later_rows_count(session: Session) -> None:
    assert set(rates.load(session)) == set(rates.known())
    count = session.scalar(select(func.count()).select_from(TaxRate))
    session.add(TaxRate(country="US", name="Tax", rate_percent=Decimal(7), valid_from=date(2026, 1, 1)))
    rates.seed(session)
    assert session.scalar(select(func.count()).select_from(TaxRate)) == (count or 0) + 1
    assert rate_on(rates.load(session), "US", ON) is not None
