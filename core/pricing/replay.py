"""A billed line worked out again from what is stored with it: the price, the usage, the windows, how a part of a cycle is measured. Pure.

`inputs` is stored beside the derivation (`Owed.detail`); `again` reads both back and prices them as if for the first time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

from core.money import EXACT, plain, round_half_up
from core.periods import Period
from core.pricing.compound import Matrix, Percentage, Sum
from core.pricing.models import Model, bare, parse
from core.pricing.modifiers import Modified
from core.pricing.owing import Owed, Part, owed
from core.pricing.percentage import settled
from core.pricing.proration import Proration
from core.pricing.spend import SpendPart, spend_part
from core.pricing.terms import ON_SPEND, Kind, LineKey, Measure, Rule, Segment, Term, Timing
from core.pricing.usage import Band, ByMetric, Carried, Changes, Events, Grouped, ProratedChange, Several, Usage

_LINE = "line"


def inputs(entry: Owed, terms: Sequence[Term]) -> dict[str, object]:
    """What `Owed.detail` leaves out and `again` needs, as JSON values."""
    rule = entry.rule
    zones = {term.id: term.anchor.timezone for term in terms}
    found: dict[str, object] = {"proration": rule.prorate.value, "timezone": zones.get(entry.parts[0].segments[0].term_id, "UTC")}
    model = bare(rule.model)
    if isinstance(model, Matrix):
        found["dimensions"] = list(model.group_by)
    if rule.overage_factor != 1:
        found["overage_factor"] = plain(rule.overage_factor)
    if rule.kind is Kind.USAGE and rule.measure is not Measure.FLOW:
        found["measure"] = rule.measure.value
    if seen := [segment.measured_from.isoformat() for part in entry.parts for segment in part.segments if segment.measured_from]:
        found["measured_from"] = seen[0]
    several = [part.usage for part in entry.parts if isinstance(part, Part) and not isinstance(part.usage, Decimal)]
    if several:
        found["usage"] = [_written(model, usage) for usage in several]
    return found


def again(detail: Mapping[str, Any], currency: str) -> Owed | None:
    """The amount owed, priced anew; None for a line that holds no price (nothing is owed any more, or it was written by hand).

    ValueError or KeyError when what is stored cannot be read.
    """
    if "parts" not in detail:
        return None
    kind, cycle, policy = Kind(detail["kind"]), _period(detail["cycle"]), Proration(detail["proration"])
    rule = Rule(
        id=_LINE,
        code=_LINE,
        kind=kind,
        timing=Timing(detail["timing"]),
        model=_model(detail),
        metric_id=_LINE if kind is Kind.USAGE else None,
        prorate=policy,
        overage_factor=Decimal(detail.get("overage_factor", "1")),
        measure=Measure(detail.get("measure", "flow")),
    )
    with localcontext(EXACT):
        if kind in ON_SPEND:
            return _spend(rule, cycle, detail, currency)
        if kind is Kind.USAGE:
            return _usage(rule, cycle, detail, currency)
        cuts = [_segment(rule, cycle, window, part, detail) for part in detail["parts"] for window in part["windows"]]
    return owed(cuts, {}, currency)[LineKey(_LINE, cycle.start)]


def usages(detail: Mapping[str, Any]) -> list[tuple[tuple[Period, ...], Usage]]:
    """What each part of a line of usage was priced with: its windows, and the usage read of them together. Raises as `again`."""
    return [
        (
            tuple(_period(window) for window in part["windows"]),
            _read(detail["usage"][i]) if "usage" in detail else Decimal(part["quantity"]) + Decimal(part.get("included", "0")),
        )
        for i, part in enumerate(detail["parts"])
    ]


def _usage(rule: Rule, cycle: Period, detail: Mapping[str, Any], currency: str) -> Owed:
    cuts: list[Segment] = []
    used: dict[tuple[str, datetime, datetime], Usage] = {}
    for i, part in enumerate(detail["parts"]):
        included = Decimal(part.get("included", "0"))
        first, *more = (_segment(rule, cycle, window, part, detail) for window in part["windows"])
        allowance = Fraction(included) * (first.fraction if rule.is_level else 1)
        cuts += [first._replace(allowance=allowance), *more]
        measured: Usage = _read(detail["usage"][i]) if "usage" in detail else Decimal(part["quantity"]) + included
        used[rule.reads, first.window.start, first.window.end] = measured
    return owed(cuts, used, currency)[LineKey(_LINE, cycle.start)]


def _spend(rule: Rule, cycle: Period, detail: Mapping[str, Any], currency: str) -> Owed:
    (stored,) = detail["parts"]
    cuts = [_segment(rule, cycle, window, stored, detail) for window in stored["windows"]]
    part: SpendPart = spend_part(cuts, round_half_up(Decimal(stored["quantity"]), currency), currency)
    minor = round_half_up(part.amount, currency)
    return Owed(LineKey(_LINE, cycle.start), rule, cycle, currency, minor, part.amount, Decimal(1), (part,))


def _segment(rule: Rule, cycle: Period, window: Sequence[str], part: Mapping[str, Any], detail: Mapping[str, Any]) -> Segment:
    span = _period(window)
    fraction = rule.share(span, cycle, str(detail["timezone"]))
    quantity = Decimal(0) if rule.kind is Kind.USAGE else Decimal(part["quantity"])
    return Segment(LineKey(_LINE, cycle.start), rule, _LINE, cycle, span, fraction, quantity)


def _model(detail: Mapping[str, Any]) -> Model:
    model = parse(detail["model"])
    inner = bare(model)
    if not isinstance(inner, Matrix):
        return model
    inner = replace(inner, group_by=tuple(detail.get("dimensions", ())))
    return replace(model, model=inner) if isinstance(model, Modified) else inner


def _period(span: Sequence[str]) -> Period:
    return Period(datetime.fromisoformat(span[0]), datetime.fromisoformat(span[1]))


def _written(model: Model, usage: Usage) -> dict[str, object] | str:
    match bare(model), usage:
        case _, Decimal():
            return plain(usage)
        case _, Grouped():
            return {"grouped": [[list(key), plain(quantity)] for key, quantity in usage.quantities.items()]}
        case _, ByMetric():
            return {"metrics": [[code, plain(quantity)] for code, quantity in usage.quantities.items()]}
        case Percentage() as price, Events():
            kept = settled(price, usage)
            return {"free": _band(kept.free), "charged": [_band(band) for band in kept.bands]}
        case _, Changes():
            return {"changes": [[plain(change.units), plain(change.prorated_units)] for change in usage.changes]}
        case _, Carried():
            return {"carried": [plain(usage.quantity), plain(usage.amount)]}
        case Sum() as added, Several():
            return {"several": [_written(part.price, used) for part, used in zip(added.parts, usage.parts, strict=True)]}
    raise TypeError(f"{type(usage).__name__} is no usage of this price")


def _band(band: Band) -> list[object]:
    return [band.events, plain(band.amount)]


def _read(data: Any) -> Usage:
    match data:
        case str():
            return Decimal(data)
        case {"grouped": pairs}:
            return Grouped({tuple(key): Decimal(quantity) for key, quantity in pairs})
        case {"metrics": pairs}:
            return ByMetric({code: Decimal(quantity) for code, quantity in pairs})
        case {"events": amounts}:  # as lines kept them once
            return Events(tuple(map(Decimal, amounts)))
        case {"free": [count, amount], "charged": bands}:
            return Events((), tuple(Band(n, Decimal(charged)) for n, charged in bands), Band(count, Decimal(amount)))
        case {"changes": pairs}:
            return Changes(tuple(ProratedChange(Decimal(units), Decimal(prorated)) for units, prorated in pairs))
        case {"carried": [quantity, amount]}:
            return Carried(Decimal(quantity), Decimal(amount))
        case {"several": parts}:
            return Several(tuple(map(_read, parts)))
    raise ValueError("its usage cannot be read")
