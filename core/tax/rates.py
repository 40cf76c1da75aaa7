"""The standard VAT rates we know: facts seeded into `tax_rates` on first use, where operators may add later ones.

Sources: European Commission, "VAT rates applied in the Member States" and the Taxes in Europe Database; HMRC for GB, ESTV for CH,
Skatteetaten for NO.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from decimal import Decimal
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.tax.assess import Rate
from core.tax.models import TaxRate

# country -> (valid from, percent), each rate holding until the next
STANDARD: dict[str, tuple[tuple[str, str], ...]] = {
    "AT": (("1984-01-01", "20"),),
    "BE": (("1996-01-01", "21"),),
    "BG": (("1999-01-01", "20"),),
    "CY": (("2014-01-13", "19"),),
    "CZ": (("2013-01-01", "21"),),
    "DE": (("2007-01-01", "19"), ("2020-07-01", "16"), ("2021-01-01", "19")),
    "DK": (("1992-01-01", "25"),),
    "EE": (("2009-07-01", "20"), ("2024-01-01", "22"), ("2025-07-01", "24")),
    "ES": (("2012-09-01", "21"),),
    "FI": (("2013-01-01", "24"), ("2024-09-01", "25.5")),
    "FR": (("2014-01-01", "20"),),
    "GR": (("2016-06-01", "24"),),
    "HR": (("2012-03-01", "25"),),
    "HU": (("2012-01-01", "27"),),
    "IE": (("2012-01-01", "23"), ("2020-09-01", "21"), ("2021-03-01", "23")),
    "IT": (("2013-10-01", "22"),),
    "LT": (("2009-09-01", "21"),),
    "LU": (("2015-01-01", "17"), ("2023-01-01", "16"), ("2024-01-01", "17")),
    "LV": (("2012-07-01", "21"),),
    "MT": (("2004-01-01", "18"),),
    "NL": (("2012-10-01", "21"),),
    "PL": (("2011-01-01", "23"),),
    "PT": (("2011-01-01", "23"),),
    "RO": (("2017-01-01", "19"), ("2025-08-01", "21")),
    "SE": (("1990-07-01", "25"),),
    "SI": (("2013-07-01", "22"),),
    "SK": (("2011-01-01", "20"), ("2025-01-01", "23")),
    "GB": (("2011-01-04", "20"),),
    "CH": (("2018-01-01", "7.7"), ("2024-01-01", "8.1")),
    "NO": (("2005-01-01", "25"),),
}
NAME = "VAT"


def known() -> list[Rate]:
    """The seeded rates as values."""
    return [rate for country, steps in STANDARD.items() for rate in _steps(country, steps)]


def load(session: Session) -> tuple[Rate, ...]:
    """All rates of the database; the first call on an empty table seeds it."""
    rows = session.scalars(select(TaxRate).order_by(TaxRate.country, TaxRate.valid_from)).all()
    if not rows:
        seed(session)
        rows = session.scalars(select(TaxRate).order_by(TaxRate.country, TaxRate.valid_from)).all()
    return tuple(Rate(row.country, row.name, row.rate_percent, row.valid_from, row.valid_to) for row in rows)


def seed(session: Session) -> None:
    """Write the known rates that are not there yet; two that do it at once do no harm."""
    rows = [asdict(rate) for rate in known()]
    session.execute(insert(TaxRate).values(rows).on_conflict_do_nothing(index_elements=["country", "valid_from"]))


def _steps(country: str, steps: tuple[tuple[str, str], ...]) -> list[Rate]:
    starts = [date.fromisoformat(day) for day, _ in steps]
    ends: list[date | None] = [after for _, after in pairwise(starts)]
    return [
        Rate(country, NAME, Decimal(percent), start, end) for (_, percent), start, end in zip(steps, starts, [*ends, None], strict=True)
    ]
