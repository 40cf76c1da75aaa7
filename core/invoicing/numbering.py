"""Invoice numbers: one gapless series per legal entity, name and year (Directive 2006/112/EC art. 226(2)).

Numbers are taken in the finalizing transaction, as late as possible: the counter's row is locked until the commit, and a rollback gives
the number back. A database sequence would leave a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.invoicing.models import NumberSeries

ENTITY_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True)
class Number:
    """A place in a series; `text` is what the document shows: INV-2026-0042."""

    entity: str
    series: str
    year: int
    sequence: int

    @property
    def text(self) -> str:
        return f"{self.series}-{self.year}-{self.sequence:04d}"


def take(session: Session, *, entity: str, series: str, years: Sequence[int]) -> list[Number]:
    """The next numbers, one for each entry of `years` in order; the series' rows stay locked until the transaction ends."""
    entity = entity[:ENTITY_LENGTH_MAX]
    following = {year: _reserve(session, entity, series, year, years.count(year)) for year in sorted(set(years))}
    numbers = []
    for year in years:
        numbers.append(Number(entity, series, year, following[year]))
        following[year] += 1
    return numbers


def _reserve(session: Session, entity: str, series: str, year: int, count: int) -> int:
    """Move the counter on by `count`; returns the first of the new numbers."""
    counter = insert(NumberSeries).values(entity=entity, series=series, year=year, last_number=count)
    last = session.execute(
        counter.on_conflict_do_update(
            index_elements=["entity", "series", "year"],
            set_={"last_number": NumberSeries.last_number + count},
        ).returning(NumberSeries.last_number)
    ).scalar_one()
    return last - count + 1


def upcoming(session: Session, *, entity: str, series: str, year: int) -> Number:
    """The number the next invoice of the series gets unless another one comes first; nothing is taken."""
    counter = session.get(NumberSeries, (entity[:ENTITY_LENGTH_MAX], series, year), populate_existing=True)
    return Number(entity[:ENTITY_LENGTH_MAX], series, year, (counter.last_number if counter else 0) + 1)
