"""What one metric reads from one usage event, and how readings add up. Pure: the aggregator, the queries and a recount share it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from core.metering.expressions import Expression
from core.metering.expressions import parse as parse_expression
from core.metering.instants import micros
from core.metering.models import Aggregation, Metric
from core.money import EXACT, parse_decimal

Scalar = str | int | bool | Decimal | None
_decode_properties = msgspec.json.Decoder(float_hook=Decimal).decode
NO_GROUP = ""
ADDED = frozenset({Aggregation.COUNT, Aggregation.SUM, Aggregation.AVG})
"""Aggregations whose state of an hour is the number of events and the sum of their quantities."""
REMOVE = "remove"
HOUR_MICROS = 3_600_000_000
OUT_OF_RANGE = "must be a number from {least} to 99999999999999 with at most 12 decimals"
LARGEST = 10**14
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
    expression: Expression | None = None
    """Arithmetic in place of `source`."""
    operation: str | None = None
    """Of a unique count: the property that says "remove" when the value goes away; anything else adds it."""
    signed: bool = False
    """Whether its values may be negative: changes of something that goes on."""
    counted_through: datetime | None = None
    """While its past is being counted: it reads events before this instant."""
    late_after: int | None = None
    """An event that is older than so many microseconds when it comes is refused."""
    earlier: tuple[tuple[int, Meter], ...] = ()
    """What it was for events before an instant (microseconds since 1970), newest first."""

    def at(self, timestamp: int) -> Meter:
        """What it is for an event of that instant, in microseconds since 1970."""
        return next((before for until, before in reversed(self.earlier) if timestamp < until), self)

    @property
    def timed(self) -> bool:
        """Whether an event's time decides if and how it is read."""
        return self.late_after is not None or bool(self.earlier)

    @property
    def plain(self) -> bool:
        """Whether the event's quantity is all it needs: a whole column can be counted at once."""
        return self.aggregation in ADDED and not (
            self.source or self.expression or self.conditions or self.group_by or self.earlier or self.counted_through is not None
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """The properties without which an event does not feed it."""
        if self.aggregation == Aggregation.COUNT:
            return ()
        if self.expression is not None:
            return self.expression.names
        return (self.source,) if self.source is not None else ()

    @property
    def reads(self) -> frozenset[str]:
        """Every property it looks at, or looked at before."""
        own = {*self.needs, *(condition.name for condition in self.conditions), *self.group_by}
        return frozenset(own).union(*(before.reads for _, before in self.earlier))


@dataclass(frozen=True, slots=True)
class Event:
    """A usage event as metrics see it. `place` is its batch and position: the tie-break between events of one instant."""

    timestamp: datetime
    place: tuple[int, int]
    quantity: Decimal
    properties: Mapping[str, Scalar]


class Seen(NamedTuple):
    """One value of a unique count: when it was seen first and last, and whether the last event took it away."""

    first_at: datetime
    last_at: datetime
    last_place: tuple[int, int] = (0, 0)
    removed: bool = False


@dataclass(slots=True)
class Usage:
    """Readings added up. `quantity`: sum (also of an average, a weighted sum, a percentile), maximum, minimum, latest, or number of values.

    `moment` is the sum of value times instant (microseconds since 1970) of a weighted sum. A unique count has its `values`, a percentile
    the `counts` of events by value.
    """

    events: int
    quantity: Decimal
    first_at: datetime
    last_at: datetime
    last_place: tuple[int, int]
    values: dict[bytes, Seen] = field(default_factory=dict)
    moment: Decimal = Decimal(0)
    counts: dict[Decimal, int] = field(default_factory=dict)


class UnreadableProperty(ValueError):
    """The property a metric sums is there but is not a quantity; `name` names it."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name = name


def meter(metric: Metric) -> Meter:
    """The counting side of a row of `metrics`."""
    aggregation = Aggregation(metric.aggregation)
    found = Meter(
        metric.id,
        metric.number,
        metric.code,
        metric.event_name,
        aggregation,
        metric.property,
        _conditions(metric.filters),
        tuple(metric.group_by),
        expression=parse_expression(metric.expression) if metric.expression else None,
        operation=metric.operation_property,
        signed=aggregation == Aggregation.WEIGHTED_SUM or (aggregation == Aggregation.SUM and metric.recurring),
        counted_through=metric.counted_through,
        late_after=metric.late_after_hours * HOUR_MICROS if metric.late_after_hours else None,
    )
    return replace(found, earlier=tuple(_earlier(found, metric.earlier))) if metric.earlier else found


def _earlier(now: Meter, kept: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Meter]]:
    for one in kept:
        expression, operation = one["expression"], one["operation_property"]
        read = parse_expression(expression) if expression else None
        before = replace(now, source=one["property"], conditions=_conditions(one["filters"]), expression=read, operation=operation)
        yield micros(datetime.fromisoformat(one["until"])), before


def _conditions(filters: Iterable[Mapping[str, Any]]) -> tuple[Condition, ...]:
    return tuple(Condition(item["property"], frozenset(canonical(value) for value in item["in"])) for item in filters)


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
    return all(given.get(name) is not None for name in meter.needs)


def value_of(meter: Meter, quantity: Decimal, given: Mapping[str, Scalar]) -> Decimal:
    """The number the metric adds up (1 for the counts). Raises UnreadableProperty when a property is no quantity."""
    if meter.aggregation in (Aggregation.COUNT, Aggregation.UNIQUE_COUNT):
        return Decimal(1)
    if meter.expression is not None:
        return _worked_out(meter, meter.expression, quantity, given)
    return quantity if meter.source is None else number(meter.source, given[meter.source], signed=meter.signed)


def number(name: str, found: Scalar, *, signed: bool = False) -> Decimal:
    """The property `name` as an exact number. Raises UnreadableProperty."""
    if isinstance(found, bool):
        raise UnreadableProperty(name, "must be a number, not true or false")
    range_ = OUT_OF_RANGE.format(least=f"-{LARGEST - 1}" if signed else "0")
    if isinstance(found, Decimal) and not -12 <= (found.adjusted() if found else 0) <= 14:
        raise UnreadableProperty(name, range_)
    try:
        return parse_decimal(found if isinstance(found, str) else canonical(found), signed=signed)
    except ValueError as error:
        raise UnreadableProperty(name, range_) from error


def _worked_out(meter: Meter, expression: Expression, quantity: Decimal, given: Mapping[str, Scalar]) -> Decimal:
    values = {name: Fraction(number(name, given[name], signed=True)) for name in expression.names}
    first = expression.names[0] if expression.names else meter.code
    try:
        value = expression.value(quantity, values)
    except ZeroDivisionError as error:
        raise UnreadableProperty(first, f"makes {expression.text} divide by zero") from error
    if abs(value) >= LARGEST or (value < 0 and not meter.signed):
        raise UnreadableProperty(first, f"makes {expression.text} {value:f}; it {OUT_OF_RANGE.format(least='0')}")
    return value


def group_of(meter: Meter, given: Mapping[str, Scalar]) -> str:
    """The rollup's group: a JSON array of the group_by values as text (null where absent), or "" without group_by."""
    if not meter.group_by:
        return NO_GROUP
    values = [None if given.get(name) is None else canonical(given[name]) for name in meter.group_by]
    return msgspec.json.encode(values).decode()


def read(meter: Meter, event: Event) -> Usage | None:
    """What the metric reads from one event; None when the event does not feed it, or not yet. Raises UnreadableProperty."""
    if meter.counted_through is not None and event.timestamp >= meter.counted_through:
        return None
    if meter.earlier:
        meter = meter.at(micros(event.timestamp))
    if not feeds(meter, event.properties):
        return None
    quantity = value_of(meter, event.quantity, event.properties)
    usage = Usage(1, quantity, event.timestamp, event.timestamp, event.place)
    match meter.aggregation:
        case Aggregation.UNIQUE_COUNT:
            given = event.properties
            removed = meter.operation is not None and canonical(given.get(meter.operation)).lower() == REMOVE
            hashed = hashlib.blake2b(canonical(given[meter.source or ""]).encode(), digest_size=16).digest()  # nobody can make them collide
            usage.values[hashed] = Seen(event.timestamp, event.timestamp, event.place, removed)
        case Aggregation.WEIGHTED_SUM:
            usage.moment = EXACT.multiply(quantity, micros(event.timestamp))
        case Aggregation.PERCENTILE:
            usage.counts[EXACT.normalize(quantity)] = 1
    return usage


def add(aggregation: Aggregation, usage: Usage, other: Usage) -> Usage:
    """Add `other` to `usage` in place, and return it. Whatever the order of adding, the result is the same."""
    newer = (other.last_at, other.last_place) > (usage.last_at, usage.last_place)
    match aggregation:
        case Aggregation.COUNT | Aggregation.SUM | Aggregation.AVG | Aggregation.WEIGHTED_SUM | Aggregation.PERCENTILE:
            usage.quantity = EXACT.add(usage.quantity, other.quantity)
            usage.moment = EXACT.add(usage.moment, other.moment)
        case Aggregation.MAX:
            usage.quantity = max(usage.quantity, other.quantity)
        case Aggregation.MIN:
            usage.quantity = min(usage.quantity, other.quantity)
        case Aggregation.LATEST:
            usage.quantity = other.quantity if newer else usage.quantity
        case Aggregation.UNIQUE_COUNT:
            for value, seen in other.values.items():
                usage.values[value] = _joined(usage.values[value], seen) if value in usage.values else seen
            usage.quantity = Decimal(len(usage.values))
    for number_, events in other.counts.items():
        usage.counts[number_] = usage.counts.get(number_, 0) + events
    usage.events += other.events
    usage.first_at = min(usage.first_at, other.first_at)
    if newer:
        usage.last_at, usage.last_place = other.last_at, other.last_place
    return usage


def _joined(one: Seen, other: Seen) -> Seen:
    last = max(one, other, key=lambda seen: (seen.last_at, seen.last_place))
    return last._replace(first_at=min(one.first_at, other.first_at))
