"""What a price is asked with: one quantity, or the several that a model of several quantities needs. Plain values that add up."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Grouped:
    """Quantities by name: the values of dimensions, the hours of a tariff, the beginnings of buckets."""

    quantities: Mapping[tuple[str, ...], Decimal]


@dataclass(frozen=True, slots=True)
class ByMetric:
    """Quantities of several metrics by code; the first is the one that the line shows."""

    quantities: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Events:
    """The amount of each event, in the order they happened."""

    amounts: tuple[Decimal, ...]


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
            return sum(usage.amounts, _ZERO)
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
            return Events(one.amounts + other.amounts)
        case Changes(), Changes():
            return Changes(one.changes + other.changes)
        case Carried(), Carried():
            return Carried(one.quantity + other.quantity, one.amount + other.amount)
        case Several(), Several():
            return Several(tuple(_merged(a, b) for a, b in zip(one.parts, other.parts, strict=True)))
    raise TypeError(f"{type(one).__name__} and {type(other).__name__} are not usage of one price")
