"""Prices of more than one quantity: of single events, of prorated changes, of several limits at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from core.pricing.percentage import PaidEvents, Percentage, percentage
from core.pricing.price import tier_index
from core.pricing.rules import PriceModel, Tier
from core.pricing.usage import ProratedChange

__all__ = [
    "Capacity", "CapacityTier", "Cell", "Compound", "Dynamic", "GraduatedProrated", "Matrix", "PaidEvents", "Percentage", "ProratedChange",
    "Slot", "Sum", "SumPart", "TimeOfUse", "capacity", "graduated_prorated", "percentage",
]  # fmt: skip

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class GraduatedProrated:
    """A graduated price of a quantity that changes within the cycle: running full units choose the tier, prorated units are priced."""

    tiers: tuple[Tier, ...]


def graduated_prorated(tiers: Sequence[Tier], changes: Sequence[ProratedChange]) -> Fraction:
    """Graduated price of a quantity that changed within a cycle: the running full units choose the tier, prorated units are priced.

    Flat fees are owed for every tier the running quantity has reached. Never below 0.
    """
    units = prorated_units(tiers, changes)
    amount = sum(
        (Fraction(tier.unit_price) * held + Fraction(tier.flat_fee) for tier, held in zip(tiers, units, strict=False)), Fraction(0)
    )
    return max(amount, Fraction(0))


def prorated_units(tiers: Sequence[Tier], changes: Sequence[ProratedChange]) -> list[Fraction]:
    """The prorated units in each tier that the running quantity has reached."""
    units = [Fraction(0)] * len(tiers)
    running, reached = _ZERO, 0
    for change in changes:
        low, high = sorted((running, running + change.units))
        running += change.units
        reached = max(reached, tier_index(tiers, max(high, _ZERO)))
        if change.units:
            weight = Fraction(change.prorated_units) / Fraction(abs(change.units))
            units = [before + weight * part for before, part in zip(units, _between(tiers, low, high), strict=True)]
    return units[: reached + 1]


def _between(tiers: Sequence[Tier], low: Decimal, high: Decimal) -> list[Fraction]:
    """The units from `low` to `high` by tier; units below 0 are in the first one."""
    found, lower = [], None
    for tier in tiers:
        start = low if lower is None else max(low, lower)
        end = high if tier.up_to is None else min(high, tier.up_to)
        found.append(Fraction(max(end - start, _ZERO)))
        lower = tier.up_to
    return found


@dataclass(frozen=True, slots=True)
class CapacityTier:
    """A price that holds as long as no quantity is above its limit (None: without limit)."""

    price: Decimal
    limits: Mapping[str, Decimal | None]


@dataclass(frozen=True, slots=True)
class Capacity:
    """The price of the first tier whose limits hold all of several metrics, by code; `metrics` has the id of each code."""

    tiers: tuple[CapacityTier, ...]
    metrics: Mapping[str, str]


def capacity(tiers: Sequence[CapacityTier], quantities: Mapping[str, Decimal]) -> Decimal:
    """Price of the first tier whose limits hold every quantity; `ValueError` if none does. A quantity without a limit is not held."""
    for tier in tiers:
        if all(name in tier.limits and _holds(tier.limits[name], quantity) for name, quantity in quantities.items()):
            return tier.price
    raise ValueError("no capacity tier holds these quantities")


def _holds(limit: Decimal | None, quantity: Decimal) -> bool:
    return limit is None or quantity <= limit


@dataclass(frozen=True, slots=True)
class Dynamic:
    """The events carry their price, in major units, which is billed `multiplier` times.

    It is the metric's own quantity, or with `amount_property` the number each event has there.
    """

    multiplier: Decimal = Decimal(1)
    amount_property: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """The price of usage whose dimensions have these values; a dimension that is not named may have any."""

    values: Mapping[str, str]
    price: PriceModel


@dataclass(frozen=True, slots=True)
class Matrix:
    """A price by dimension values: each combination at the price of the first cell that fits it, else the default (None: free).

    Each combination of values is priced alone, so tiers count the units of one combination. `group_by` are all dimensions of the metric.
    """

    dimensions: tuple[str, ...]
    cells: tuple[Cell, ...]
    default: PriceModel | None
    group_by: tuple[str, ...] = ()

    def price_of(self, values: Sequence[str]) -> PriceModel | None:
        """The price of a combination, in the order of `dimensions`."""
        given = dict(zip(self.dimensions, values, strict=True))
        fits = (cell.price for cell in self.cells if all(given[name] == value for name, value in cell.values.items()))
        return next(fits, self.default)


@dataclass(frozen=True, slots=True)
class Slot:
    """Local hours of the week: on `weekdays` (0: Monday), from minute `start` of the day up to `end`; over midnight unless that is more."""

    name: str
    weekdays: frozenset[int]
    start: int
    end: int
    price: PriceModel

    def holds(self, weekday: int, minute: int) -> bool:
        """Whether a local minute lies in it; the hours after midnight belong to the day on which they began."""
        if self.start < self.end:
            return weekday in self.weekdays and self.start <= minute < self.end
        return (weekday in self.weekdays and minute >= self.start) or ((weekday - 1) % 7 in self.weekdays and minute < self.end)


OTHER_HOURS = "other hours"


@dataclass(frozen=True, slots=True)
class TimeOfUse:
    """A price by the local hour of use: the first slot that holds the hour, else the default. Each price sees the usage of its hours."""

    slots: tuple[Slot, ...]
    default: PriceModel

    def slot_at(self, weekday: int, minute: int) -> str:
        """The name of the slot that holds a local minute of the week."""
        return next((slot.name for slot in self.slots if slot.holds(weekday, minute)), OTHER_HOURS)

    def price_of(self, name: str) -> PriceModel:
        """The price of the slot `name`."""
        return next((slot.price for slot in self.slots if slot.name == name), self.default)


@dataclass(frozen=True, slots=True)
class SumPart:
    """One of several prices that add up to one line; it reads a metric of its own, or the rule's (None)."""

    price: "PriceModel | Compound"
    metric: str | None = None
    metric_id: str | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of several prices, rounded once."""

    parts: tuple[SumPart, ...]


Compound = Dynamic | Percentage | GraduatedProrated | Capacity | Matrix | TimeOfUse | Sum
