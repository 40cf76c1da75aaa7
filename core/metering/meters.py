"""What one metric reads from one usage event, and how readings add up. Pure: the aggregator, the queries and a recount share it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import msgspec

from core.metering.models import Aggregation, Metric
from core.money import EXACT, parse_decimal

Scalar = str | int | bool | Decimal | None
_decode_properties = msgspec.json.Decoder(float_hook=Decimal).decode
NO_GROUP = ""
PLAIN_EXPONENT_MAX = 40
"""Numbers further from 1 are written with an exponent: 1e999999 must not become a million characters."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The event's property `name` must be one of `values` (canonical texts)."""

    name: str
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Meter:
    """A metric as the counting code needs it."""

    id: uuid.UUID
    number: int
    code: str
    event_name: str
    aggregation: Aggregation
    source: str | None = None
    """The property it reads; None: the event's quantity."""
    conditions: tuple[Condition, ...] = ()
    group_by: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether the event's quantity is all it needs: a whole column can be counted at once."""
        return (
            self.source is None and not self.conditions and not self.group_by and self.aggregation in (Aggregation.COUNT, Aggregation.SUM)
        )


@dataclass(frozen=True, slots=True)
class Event:
    """A usage event as metrics see it. `place` is its batch and position: the tie-break between events of one instant."""

    timestamp: datetime
    place: tuple[int, int]
    quantity: Decimal
    properties: Mapping[str, Scalar]


@dataclass(slots=True)
class Usage:
    """Readings added up. `quantity` is the aggregate; a unique count also has its `values`, each with its first and last time."""

    events: int
    quantity: Decimal
    first_at: datetime
    last_at: datetime
    last_place: tuple[int, int]
    values: dict[bytes, tuple[datetime, datetime]] = field(default_factory=dict)


class UnreadableProperty(ValueError):
    """The property a metric sums is there but is not a quantity; `name` names it."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name = name


def meter(metric: Metric) -> Meter:
    """The counting side of a row of `metrics`."""
    conditions = tuple(Condition(item["property"], frozenset(canonical(value) for value in item["in"])) for item in metric.filters)
    aggregation = Aggregation(metric.aggregation)
    return Meter(metric.id, metric.number, metric.code, metric.event_name, aggregation, metric.property, conditions, tuple(metric.group_by))


def properties(raw: bytes) -> dict[str, Scalar]:
    """The stored JSON object with exact numbers; of a name that came twice the last one holds, as in PostgreSQL's jsonb."""
    decoded: dict[str, Scalar] = _decode_properties(raw)
    return decoded


def canonical(value: object) -> str:
    """One text for equal values: 1, 1.0 and 1e0 are the same, "1" (text) is too; true is "true"; None is the empty text."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return canonical(Decimal(repr(value)))
        case Decimal():
            return f"{EXACT.normalize(value):f}" if abs(value.adjusted()) <= PLAIN_EXPONENT_MAX else str(value)
        case _:
            return str(value)


def feeds(meter: Meter, given: Mapping[str, Scalar]) -> bool:
    """Whether an event with these properties counts for the metric."""
    if any(canonical(given.get(condition.name)) not in condition.values for condition in meter.conditions):
        return False
    return meter.source is None or meter.aggregation == Aggregation.COUNT or given.get(meter.source) is not None


def value_of(meter: Meter, quantity: Decimal, given: Mapping[str, Scalar]) -> Decimal:
    """The number the metric adds up (1 for the counts). Raises UnreadableProperty when its property is no quantity."""
    if meter.aggregation in (Aggregation.COUNT, Aggregation.UNIQUE_COUNT):
        return Decimal(1)
    if meter.source is None:
        return quantity
    found = given[meter.source]
    if isinstance(found, bool):
        raise UnreadableProperty(meter.source, "must be a number, not true or false")
    if isinstance(found, Decimal) and not -12 <= (found.adjusted() if found else 0) <= 14:
        raise UnreadableProperty(meter.source, "must be a number from 0 to 99999999999999 with at most 12 decimals")
    try:
        return parse_decimal(found if isinstance(found, str) else canonical(found))
    except ValueError as error:
        raise UnreadableProperty(meter.source, "must be a number from 0 to 99999999999999 with at most 12 decimals") from error


def group_of(meter: Meter, given: Mapping[str, Scalar]) -> str:
    """The rollup's group: a JSON array of the group_by values as text (null where absent), or "" without group_by."""
    if not meter.group_by:
        return NO_GROUP
    values = [None if given.get(name) is None else canonical(given[name]) for name in meter.group_by]
    return msgspec.json.encode(values).decode()


def value_hash(value: object) -> bytes:
    """What the set of a unique count holds of a value; collisions cannot be made on purpose."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=16).digest()


def read(meter: Meter, event: Event) -> Usage | None:
    """What the metric reads from one event; None when the event does not feed it. Raises UnreadableProperty."""
    if not feeds(meter, event.properties):
        return None
    quantity = value_of(meter, event.quantity, event.properties)
    values: dict[bytes, tuple[datetime, datetime]] = {}
    if meter.aggregation == Aggregation.UNIQUE_COUNT:
        values[value_hash(event.properties[meter.source or ""])] = (event.timestamp, event.timestamp)
    return Usage(1, quantity, event.timestamp, event.timestamp, event.place, values)


def add(aggregation: Aggregation, usage: Usage, other: Usage) -> Usage:
    """Add `other` to `usage` in place, and return it. Whatever the order of adding, the result is the same."""
    newer = (other.last_at, other.last_place) > (usage.last_at, usage.last_place)
    match aggregation:
        case Aggregation.COUNT | Aggregation.SUM:
            usage.quantity = EXACT.add(usage.quantity, other.quantity)
        case Aggregation.MAX:
            usage.quantity = max(usage.quantity, other.quantity)
        case Aggregation.LATEST:
            usage.quantity = other.quantity if newer else usage.quantity
        case Aggregation.UNIQUE_COUNT:
            for value, (first, last) in other.values.items():
                known = usage.values.get(value, (first, last))
                usage.values[value] = (min(first, known[0]), max(last, known[1]))
            usage.quantity = Decimal(len(usage.values))
    usage.events += other.events
    usage.first_at = min(usage.first_at, other.first_at)
    if newer:
        usage.last_at, usage.last_place = other.last_at, other.last_place
    return usage
