"""What a price is asked with: one quantity, or the several that a model of several quantities needs. Plain values that add up."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import NamedTuple

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Grouped:
    """Quantities by name: the values of dimensions, the hours of a tariff, the beginnings of buckets."""

    quantities: Mapping[tuple[str, ...], Decimal]


@dataclass(frozen=True, slots=True)
class ByMetric:
    """Quantities of several metrics by code; the first is the one that the line shows."""

    quantities: Mapping[str, Decimal]


class Band(NamedTuple):
    """So many events, and the sum of their amounts."""

    events: int
    amount: Decimal


NO_EVENTS = Band(0, _ZERO)


@dataclass(frozen=True, slots=True)
class Events:
    """The amounts of single events, in the order they happened, then `bands` of events whose order and single amounts do not matter.

    `free` are events that were taken out because they cost nothing.
    """

    amounts: tuple[Decimal, ...]
    bands: tuple[Band, ...] = ()
    free: Band = NO_EVENTS

    @property
    def count(self) -> int:
        """How many events there are."""
        return len(self.amounts) + self.free.events + sum(band.events for band in self.bands)


@dataclass(frozen=True, slots=True)
class ProratedChange:
    """A change of a running quantity by `units`, that counts as `prorated_units` in the cycle because it came late or left early."""

    units: Decimal
    prorated_units: Decimal


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of a running quantity within a cycle, in order; what was there at its beginning comes first, whole."""

    changes: tuple[ProratedChange, ...]


@dataclass(frozen=True, slots=True)
class Carried:
    """A quantity, and the money that its events carry with it, major units."""

    quantity: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Several:
    """The usage of each part of a sum of prices."""

    parts: tuple["Usage", ...]


Usage = Decimal | Grouped | ByMetric | Events | Changes | Carried | Several


def merged(usages: Iterable[Usage], nothing: Usage = _ZERO) -> Usage:
    """The usage of windows that follow each other as that of one; `nothing` of none. All are of one kind."""
    return reduce(_merged, usages, nothing)


def total(usage: Usage) -> Decimal:
    """The quantity a line shows: the sum of the quantities; of a sum of prices that of its first part."""
    match usage:
        case Decimal():
            return usage
        case Grouped():
            return sum(usage.quantities.values(), _ZERO)
        case ByMetric():
            return next(iter(usage.quantities.values()), _ZERO)
        case Events():
            return sum((band.amount for band in usage.bands), usage.free.amount) + sum(usage.amounts, _ZERO)
        case Changes():
            return sum((change.units for change in usage.changes), _ZERO)
        case Carried():
            return usage.quantity
        case Several():
            return total(usage.parts[0]) if usage.parts else _ZERO


def _merged(one: Usage, other: Usage) -> Usage:
    match one, other:
        case Decimal(), Decimal():
            return one + other
        case Grouped(), Grouped():
            added = {key: one.quantities.get(key, _ZERO) + value for key, value in other.quantities.items()}
            return Grouped({**one.quantities, **added})
        case ByMetric(), ByMetric():
            return ByMetric({code: quantity + other.quantities.get(code, _ZERO) for code, quantity in one.quantities.items()})
        case Events(), Events():
            free = Band(one.free.events + other.free.events, one.free.amount + other.free.amount)
            return Events(one.amounts + other.amounts, one.bands + other.bands, free)
        case Changes(), Changes():
            return Changes(one.changes + other.changes)
        case Carried(), Carried():
            return Carried(one.quantity + other.quantity, one.amount + other.amount)
        case Several(), Several():
            return Several(tuple(_merged(a, b) for a, b in zip(one.parts, other.parts, strict=True)))
    raise TypeError(f"{type(one).__name__} and {type(other).__name__} are not usage of one price")
