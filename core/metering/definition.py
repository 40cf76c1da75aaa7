"""What a new metric may say, and what is wrong with what it says. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from core.errors import FieldError
from core.metering.expressions import BadExpression, parse
from core.metering.meters import canonical
from core.metering.models import Aggregation, BucketSize, BucketTotal, LatePolicy, Metric
from core.metering.wire import is_name
from core.pricing.modifiers import Rounding

CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:\-]{0,99}")
GROUPS_MAX = 5
FILTERS_MAX = 20
PRECISION_MAX = 12
LATE_HOURS_MAX = 35 * 24
COUNTS = frozenset({Aggregation.COUNT, Aggregation.UNIQUE_COUNT})
GOES_ON = (Aggregation.SUM, Aggregation.LATEST, Aggregation.UNIQUE_COUNT, Aggregation.WEIGHTED_SUM)
"""Aggregations whose value can carry into the next period."""


@dataclass(frozen=True, slots=True)
class Definition:
    """The fields of a new metric, as core.metering.models.Metric describes them."""

    code: str
    name: str
    aggregation: str
    unit: str = ""
    property: str | None = None
    event_name: str | None = None
    filters: Sequence[Mapping[str, Any]] = ()
    group_by: Sequence[str] = ()
    expression: str | None = None
    operation_property: str | None = None
    percentile: Decimal | None = None
    recurring: bool = False
    bucket_size: str | None = None
    bucket_total: str | None = None
    rounding: str | None = None
    rounding_precision: int = 0
    late_policy: str = LatePolicy.ADJUST
    late_after_hours: int | None = None

    def row(self) -> Metric:
        """The row of a definition without faults."""
        return Metric(
            code=self.code,
            name=self.name.strip(),
            unit=self.unit,
            aggregation=self.aggregation,
            property=self.property,
            event_name=self.event_name or self.code,
            filters=[{"property": item["property"], "in": [canonical(value) for value in item["in"]]} for item in self.filters],
            group_by=list(self.group_by),
            expression=self.expression,
            operation_property=self.operation_property,
            percentile=self.percentile,
            recurring=self.recurring,
            bucket_size=self.bucket_size,
            bucket_total=self.bucket_total,
            rounding=self.rounding,
            rounding_precision=self.rounding_precision,
            late_policy=self.late_policy,
            late_after_hours=self.late_after_hours,
        )


def faults(given: Definition) -> list[FieldError]:
    """Everything that is wrong with a definition."""
    return [*_names(given), *_value(given), *_dimensions(given), *_shape(given), *late_faults(given.late_policy, given.late_after_hours)]


def label_faults(name: str, unit: str) -> Iterator[FieldError]:
    """What is wrong with what people read."""
    if not 1 <= len(name.strip()) <= 255:
        yield FieldError("/name", "Give a name of 1 to 255 characters.")
    if len(unit) > 50:
        yield FieldError("/unit", "At most 50 characters.")


def late_faults(policy: str, after_hours: int | None) -> Iterator[FieldError]:
    """What is wrong with what a metric says about late usage."""
    if policy not in set(LatePolicy):
        yield FieldError("/late_policy", f"Choose one of {', '.join(LatePolicy)}.")
    elif policy == LatePolicy.REJECT and (after_hours is None or not 1 <= after_hours <= LATE_HOURS_MAX):
        yield FieldError("/late_after_hours", f"Say after how many hours, 1 to {LATE_HOURS_MAX}, an event is refused.")
    elif policy != LatePolicy.REJECT and after_hours is not None:
        yield FieldError("/late_after_hours", "Only a metric that rejects late events has a limit.")


def _names(given: Definition) -> Iterator[FieldError]:
    for field, text in (("/code", given.code), ("/event_name", given.event_name or given.code)):
        if not CODE.fullmatch(text):
            yield FieldError(field, "Use letters, digits and _ . : - (at most 100).")
    yield from label_faults(given.name, given.unit)
    if given.aggregation not in set(Aggregation):
        yield FieldError("/aggregation", f"Choose one of {', '.join(Aggregation)}.")


def _value(given: Definition) -> Iterator[FieldError]:
    """What each event contributes."""
    if given.property is not None and not is_name(given.property):
        yield FieldError("/property", "Name a property of the event.")
    if given.property is None and given.aggregation == Aggregation.UNIQUE_COUNT:
        yield FieldError("/property", "unique_count needs a property whose different values are counted.")
    if given.expression is not None:
        yield from _expression(given, given.expression)
    if given.operation_property is not None:
        if given.aggregation != Aggregation.UNIQUE_COUNT:
            yield FieldError("/operation_property", "Only a unique_count has values that are added and removed.")
        elif not is_name(given.operation_property):
            yield FieldError("/operation_property", "Name a property of the event.")


def _expression(given: Definition, text: str) -> Iterator[FieldError]:
    if given.property is not None:
        yield FieldError("/expression", "Give a property or an expression, not both.")
    if given.aggregation in COUNTS:
        yield FieldError("/expression", f"{given.aggregation} looks at no number; leave the expression out.")
    try:
        parse(text)
    except BadExpression as error:
        yield FieldError("/expression", f"This is no expression: {error}.")


def _dimensions(given: Definition) -> Iterator[FieldError]:
    groups = list(given.group_by)
    if len(groups) > GROUPS_MAX or len(set(groups)) != len(groups) or not all(map(is_name, groups)):
        yield FieldError("/group_by", f"Name at most {GROUPS_MAX} different properties.")
    if len(given.filters) > FILTERS_MAX:
        yield FieldError("/filters", f"At most {FILTERS_MAX} conditions.")
    for i, item in enumerate(given.filters):
        if not is_name(str(item.get("property", ""))) or not isinstance(item.get("in"), (list, tuple)) or not item["in"]:
            yield FieldError(f"/filters/{i}", 'A condition is {"property": name, "in": [values]}.')


def _shape(given: Definition) -> Iterator[FieldError]:
    """What becomes of the contributions."""
    if given.aggregation == Aggregation.PERCENTILE and given.percentile is None:
        yield FieldError("/percentile", "Say which percentile: over 0, at most 100.")
    elif given.percentile is not None and given.aggregation != Aggregation.PERCENTILE:
        yield FieldError("/percentile", "Only the aggregation percentile has one.")
    elif given.percentile is not None and not 0 < given.percentile <= 100:
        yield FieldError("/percentile", "Choose a percentile over 0 and at most 100.")
    if given.recurring and given.aggregation not in GOES_ON:
        yield FieldError("/recurring", f"Only {', '.join(GOES_ON)} carry into the next period.")
    if (given.bucket_size is None) != (given.bucket_total is None):
        yield FieldError("/bucket", "A bucket has a size and a total.")
    if given.bucket_size is not None:
        if given.recurring or given.aggregation == Aggregation.WEIGHTED_SUM:
            yield FieldError("/bucket", "What carries on over time is not cut into buckets.")
        if given.bucket_size not in set(BucketSize):
            yield FieldError("/bucket/size", f"Choose one of {', '.join(BucketSize)}.")
        if given.bucket_total not in set(BucketTotal):
            yield FieldError("/bucket/total", f"Choose one of {', '.join(BucketTotal)}.")
    if given.rounding is not None and given.rounding not in set(Rounding):
        yield FieldError("/rounding/function", f"Choose one of {', '.join(Rounding)}.")
    if not -PRECISION_MAX <= given.rounding_precision <= PRECISION_MAX:
        yield FieldError("/rounding/precision", f"Choose a precision of -{PRECISION_MAX} to {PRECISION_MAX} places.")
