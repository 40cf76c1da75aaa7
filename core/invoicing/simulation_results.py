"""What a price simulation found: sums by currency, how many win and lose by how much, and the subscriptions themselves."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import case, func, select, tuple_
from sqlalchemy.orm import Session

from core.identity.models import Organization
from core.invoicing.simulation_models import SimulatedCost

BANDS: tuple[tuple[str, int | None], ...] = (
    ("more than 50 % less", -50),
    ("20 to 50 % less", -20),
    ("5 to 20 % less", -5),
    ("up to 5 % less", 0),
    ("the same", None),
    ("up to 5 % more", 5),
    ("5 to 20 % more", 20),
    ("20 to 50 % more", 50),
    ("more than 50 % more", None),
)
"""Bands of the change and where each ends, in percent; what cost nothing before and something now is in the last."""
SAME = 4


@dataclass(frozen=True, slots=True)
class Totals:
    """The subscriptions of one currency that had a closed period; net minor units. `bands` are counts in the order of BANDS."""

    currency: str
    subscriptions: int
    billed_minor: int
    simulated_minor: int
    bands: tuple[int, ...]

    @property
    def difference_minor(self) -> int:
        """Positive: more would have been billed."""
        return self.simulated_minor - self.billed_minor

    @property
    def ratio(self) -> Decimal | None:
        """The difference as a share of what was billed; None when that was nothing."""
        return Decimal(self.difference_minor) / self.billed_minor if self.billed_minor else None

    @property
    def cheaper(self) -> int:
        """How many would have paid less."""
        return sum(self.bands[:SAME])

    @property
    def dearer(self) -> int:
        """How many would have paid more."""
        return sum(self.bands[SAME + 1 :])


@dataclass(frozen=True, slots=True)
class Row:
    """One subscription, as SimulatedCost, with its customer's name."""

    subscription_id: uuid.UUID
    organization_id: uuid.UUID
    name: str
    currency: str
    periods: int
    billed_minor: int
    simulated_minor: int
    error: str | None

    @property
    def difference_minor(self) -> int:
        """Positive: it would have paid more."""
        return self.simulated_minor - self.billed_minor

    @property
    def ratio(self) -> Decimal | None:
        """The difference as a share of what was billed; None when that was nothing."""
        return Decimal(self.difference_minor) / self.billed_minor if self.billed_minor else None


def totals(session: Session, simulation_id: uuid.UUID) -> list[Totals]:
    """Sums and bands by currency, the currency with the most subscriptions first."""
    cost = SimulatedCost
    band, count = _band(), func.count()
    rows = session.execute(
        select(cost.currency, band, count, func.sum(cost.billed_minor), func.sum(cost.simulated_minor))
        .where(cost.simulation_id == simulation_id, cost.periods > 0)
        .group_by(cost.currency, band)
    ).all()
    found = []
    for currency in {row[0] for row in rows}:
        mine = {row[1]: row for row in rows if row[0] == currency}
        bands = tuple(mine[i][2] if i in mine else 0 for i in range(len(BANDS)))
        billed, simulated = (int(sum(row[column] for row in mine.values())) for column in (3, 4))
        found.append(Totals(currency, sum(bands), billed, simulated, bands))
    return sorted(found, key=lambda entry: (-entry.subscriptions, entry.currency))


def left_out(session: Session, simulation_id: uuid.UUID) -> tuple[int, int]:
    """(subscriptions without a closed period, subscriptions that could not be priced)."""
    without, failed = SimulatedCost.error.is_(None), SimulatedCost.error.is_not(None)
    wanted = select(func.count().filter(without), func.count().filter(failed))
    young, broken = session.execute(wanted.where(SimulatedCost.simulation_id == simulation_id, SimulatedCost.periods == 0)).one()
    return young, broken


def rows(
    session: Session, simulation_id: uuid.UUID, *, after: tuple[int, uuid.UUID] | None = None, limit: int | None = 50
) -> Sequence[Row]:
    """The subscriptions by their difference, the largest increase first, behind `after` (difference, subscription id); None: all."""
    difference = SimulatedCost.simulated_minor - SimulatedCost.billed_minor
    wanted = _rows(simulation_id).order_by(difference.desc(), SimulatedCost.subscription_id.desc()).limit(limit)
    if after is not None:
        wanted = wanted.where(tuple_(difference, SimulatedCost.subscription_id) < after)
    return [Row(*found) for found in session.execute(wanted)]


def _rows(simulation_id: uuid.UUID) -> Any:
    cost = SimulatedCost
    return (
        select(
            cost.subscription_id, cost.organization_id, Organization.name, cost.currency, cost.periods, cost.billed_minor,
            cost.simulated_minor, cost.error,
        )
        .join(Organization, Organization.id == cost.organization_id)
        .where(cost.simulation_id == simulation_id)
    )  # fmt: skip


def _band() -> Any:
    """The number of the band a row is in; whole numbers alone, so that no bound is missed by rounding."""
    before, change = func.abs(SimulatedCost.billed_minor), (SimulatedCost.simulated_minor - SimulatedCost.billed_minor) * 100
    return case(
        (change == 0, SAME),
        (change < -50 * before, 0),
        (change < -20 * before, 1),
        (change < -5 * before, 2),
        (change < 0, 3),
        (change <= 5 * before, 5),
        (change <= 20 * before, 6),
        (change <= 50 * before, 7),
        else_=8,
    )
