"""From what was counted to the quantity that is billed: averages, means over time, buckets, rounding. Pure; exact up to one rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from core.metering.instants import micros
from core.metering.meters import Usage, add
from core.metering.models import Aggregation, BucketSize, BucketTotal, Metric
from core.metering.sets import nearest_rank
from core.metering.windows import Answer
from core.money import EXACT
from core.pricing.modifiers import Rounding, round_quantity
from core.pricing.terms import Measure

PLACES = 12
ADDED_UP = frozenset({Aggregation.COUNT, Aggregation.SUM, Aggregation.UNIQUE_COUNT})
"""Aggregations that measure what happened, not what stood."""
Exact = Decimal | Fraction
Pieces = Mapping[datetime, Usage]
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a metric's answer looks like: the side of a row of `metrics` that counting does not need."""

    aggregation: Aggregation
    percentile: Decimal | None = None
    recurring: bool = False
    bucket_size: BucketSize | None = None
    bucket_total: BucketTotal | None = None
    rounding: Rounding | None = None
    precision: int = 0


def shape(metric: Metric) -> Shape:
    """The answering side of a row of `metrics`."""
    return Shape(
        Aggregation(metric.aggregation),
        metric.percentile,
        metric.recurring,
        BucketSize(metric.bucket_size) if metric.bucket_size else None,
        BucketTotal(metric.bucket_total) if metric.bucket_total else None,
        Rounding(metric.rounding) if metric.rounding else None,
        metric.rounding_precision,
    )


def adds_up(metric: Metric) -> bool:
    """Whether the quantities of the parts of a window add up to that of the window."""
    added = metric.aggregation in (Aggregation.COUNT, Aggregation.SUM)
    return added and not (metric.recurring or metric.bucket_size or metric.rounding)


def measure(metric: Metric) -> Measure:
    """How the metric's quantities of the parts of a cycle make that of the cycle: see docs/decisions/0004."""
    if metric.bucket_total is not None:
        return Measure.FLOW if metric.bucket_total == BucketTotal.SUM else Measure.LEVEL
    if metric.recurring or metric.aggregation not in ADDED_UP:
        return Measure.LEVEL
    if metric.aggregation != Aggregation.UNIQUE_COUNT:
        return Measure.FLOW
    return Measure.DISTINCT if metric.operation_property is None else Measure.LEVEL


def answer(shape: Shape, spans: Sequence[Span], pieces: Pieces) -> Answer:
    """The quantity over `spans` (the buckets, or the one window), each counted in the piece that begins with it."""
    found = [(exact(shape, pieces[start], start, end)) for start, end in spans if start in pieces]
    events = sum(usage.events for usage in pieces.values())
    return Answer(rounded(shape, _together(shape, found)), events, pieces=pieces)


def exact(shape: Shape, usage: Usage, start: datetime, end: datetime) -> Exact:
    """The aggregate of one stretch of time, not rounded."""
    match shape.aggregation:
        case Aggregation.AVG:
            return Fraction(usage.quantity) / usage.events
        case Aggregation.WEIGHTED_SUM:
            weighted = Fraction(usage.quantity) * micros(end) - Fraction(usage.moment)
            return weighted / (micros(end) - micros(start))
        case Aggregation.UNIQUE_COUNT if usage.values:
            return Decimal(sum(not seen.removed for seen in usage.values.values()))
        case Aggregation.PERCENTILE if usage.counts:
            return nearest_rank(usage.counts, shape.percentile or Decimal(100))
        case _:
            return usage.quantity


def rounded(shape: Shape, quantity: Exact) -> Decimal:
    """As the metric says; an average or a mean that says nothing keeps 12 places."""
    if shape.rounding is not None:
        return round_quantity(quantity, shape.rounding, shape.precision)
    if isinstance(quantity, Decimal):
        return quantity
    return Decimal(f"{EXACT.normalize(round_quantity(quantity, Rounding.HALF_UP, PLACES)):f}")


def carried(shape: Shape, carry: Usage, start: datetime) -> Usage:
    """What stood at `start` as a reading of its own: it is there from `start` on, and no event of the stretch."""
    usage = replace(carry, events=0, values=dict(carry.values), counts=dict(carry.counts))
    if shape.aggregation == Aggregation.WEIGHTED_SUM:
        usage.moment = EXACT.multiply(usage.quantity, micros(start))
    return usage


def merged(shape: Shape, spans: Sequence[Span], answers: Iterable[Answer]) -> Answer:
    """Answers of several groups for the same spans as one."""
    pieces: dict[datetime, Usage] = {}
    for one in answers:
        for start, usage in (one.pieces or {}).items():
            mine = replace(usage, values=dict(usage.values), counts=dict(usage.counts))
            pieces[start] = add(shape.aggregation, pieces[start], mine) if start in pieces else mine
    return answer(shape, spans, pieces)


def _together(shape: Shape, found: Sequence[Exact]) -> Exact:
    if len(found) == 1:
        return found[0]
    if not found:
        return Decimal(0)
    match shape.bucket_total:
        case BucketTotal.MAX:
            return max(found, key=_fraction)
        case BucketTotal.MIN:
            return min(found, key=_fraction)
    total = sum(map(_fraction, found), Fraction(0))
    if shape.bucket_total is BucketTotal.AVG:
        return total / len(found)
    return sum((value for value in found if isinstance(value, Decimal)), Decimal(0)) if _decimals(found) else total


def _decimals(found: Sequence[Exact]) -> bool:
    return all(isinstance(value, Decimal) for value in found)


def _fraction(value: Exact) -> Fraction:
    return Fraction(value)
