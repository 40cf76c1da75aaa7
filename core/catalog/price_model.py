"""The model of a price read against the metrics there are: what it names exists, and the metric counts what the model needs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from core.catalog.reader import Reader, did_you_mean
from core.metering.answers import measure
from core.metering.models import Aggregation, Metric
from core.pricing.compound import Capacity, Dynamic, GraduatedProrated, Matrix, Percentage, Sum, TimeOfUse
from core.pricing.fields import RuleError
from core.pricing.models import Model, bare, name_of, parse, reads_one, resolved
from core.pricing.rules import Flat
from core.pricing.terms import Measure

_MEASURED = {Measure.FLOW: "what happened", Measure.DISTINCT: "different values", Measure.LEVEL: "what stood"}
ADDED_UP = (Aggregation.SUM, Aggregation.COUNT)
NOTHING = Flat(Decimal(0))
"""Stands for a price that was refused."""


def read_model(reader: Reader, pointer: str, written: Mapping[str, Any], metric: Metric | None, metrics: Mapping[str, Metric]) -> Model:
    """The checked price of usage of `metric`, or of a quantity held (None); faults name the key, such as /prices/0/tiers/1/up_to."""
    try:
        model = parse(written)
    except RuleError as error:
        reader.fault(pointer + error.pointer, error.detail)
        return NOTHING
    before = len(reader.faults)
    _check(reader, pointer, model, metric, metrics)
    if len(reader.faults) > before:
        return NOTHING
    ids = {code: str(found.id) for code, found in metrics.items()}
    return resolved(model, ids, tuple(metric.group_by) if metric else ())


def _check(reader: Reader, pointer: str, model: Model, metric: Metric | None, metrics: Mapping[str, Metric]) -> None:
    if metric is None:
        if not reads_one(model):
            reader.fault(f"{pointer}/metric", f"is missing: {name_of(model)} prices usage")
        return
    match bare(model):
        case TimeOfUse() | Percentage() | GraduatedProrated():
            _needs_sum(reader, f"{pointer}/metric", model, metric)
        case Dynamic() as dynamic if dynamic.amount_property is not None:
            _needs_sum(reader, f"{pointer}/metric", model, metric)
        case Matrix() as matrix:
            _check_matrix(reader, pointer, matrix, metric)
        case Capacity() as capacity:
            for code in capacity.metrics:
                place = f"{pointer}/capacity_tiers/0/limits/{code}"
                _measures_alike(reader, place, metric, _known(reader, place, code, metrics))
        case Sum() as parts:
            for i, part in enumerate(parts.parts):
                own = metric if part.metric is None else _known(reader, f"{pointer}/parts/{i}/metric", part.metric, metrics)
                if own is not None:
                    _measures_alike(reader, f"{pointer}/parts/{i}/metric", metric, own)
                    _check(reader, f"{pointer}/parts/{i}", part.price, own, metrics)


def _check_matrix(reader: Reader, pointer: str, matrix: Matrix, metric: Metric) -> None:
    for i, name in enumerate(matrix.dimensions):
        if name not in metric.group_by:
            known = ", ".join(metric.group_by) or "none"
            detail = f'the metric "{metric.code}" is not grouped by "{name}"; its dimensions: {known}{did_you_mean(name, metric.group_by)}'
            reader.fault(f"{pointer}/dimensions/{i}", detail)
    if len(matrix.dimensions) < len(metric.group_by) and metric.aggregation not in ADDED_UP:
        reader.fault(
            f"{pointer}/dimensions", f"must be all of {', '.join(metric.group_by)}: groups of a {metric.aggregation} do not add up"
        )


def _needs_sum(reader: Reader, pointer: str, model: Model, metric: Metric) -> None:
    if metric.aggregation not in ADDED_UP:
        reader.fault(
            pointer, f'must sum or count: {name_of(model)} adds up parts of the usage, and "{metric.code}" is a {metric.aggregation}'
        )
    elif metric.recurring and not isinstance(bare(model), GraduatedProrated):
        reader.fault(pointer, f'must not be recurring: {name_of(model)} prices what happened, and "{metric.code}" measures what stands')


def _measures_alike(reader: Reader, pointer: str, metric: Metric, other: Metric | None) -> None:
    """Metrics that one line prices together are merged in one way when its cycle is cut."""
    if other is not None and (one := measure(metric)) is not (found := measure(other)):
        reader.fault(
            pointer,
            f'must measure what "{metric.code}" does, {_MEASURED[one]}: "{other.code}" measures {_MEASURED[found]}, and parts of a '
            "cycle would not add up alike",
        )


def _known(reader: Reader, pointer: str, code: str, metrics: Mapping[str, Metric]) -> Metric | None:
    if code not in metrics:
        reader.fault(pointer, f'there is no metric "{code[:100]}"{did_you_mean(code, list(metrics))}')
    return metrics.get(code)
