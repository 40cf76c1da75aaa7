"""What a price reads from metering: the windows to ask for, and the usage its model is asked with once they are read. Pure.

Most prices read one quantity. A matrix reads groups, a time-of-use tariff and bucketed peaks read hours and days of the customer's time
zone, prices by the event read events, a sum and a capacity read several metrics.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import gcd
from zoneinfo import ZoneInfo

from core.metering.reading import Measured, by_group, events, fold, parts, quantity
from core.metering.windows import By, Part, Window
from core.periods import Period
from core.pricing.compound import Capacity, Dynamic, GraduatedProrated, Matrix, Percentage, Sum, SumPart, TimeOfUse
from core.pricing.models import Model
from core.pricing.modifiers import Modified, Rounding, round_quantity
from core.pricing.percentage import Fold, summed
from core.pricing.proration import share
from core.pricing.terms import Measure, Rule
from core.pricing.usage import ByMetric, Carried, Changes, Events, Grouped, ProratedChange, Several, Usage

_ZERO = Decimal(0)
PLACES = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose usage of which window, and of which cycle it is a part; local times are those of `timezone`.

    Where other parts of the cycle came before it, they were measured from `measured_from` on.
    """

    organization_id: uuid.UUID
    window: Period
    cycle: Period
    timezone: str
    measured_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The windows a price needs, and its usage worked out from them."""

    windows: tuple[Window, ...]
    usage: Callable[[Measured], Usage]


def reading(rule: Rule, asked: Asked) -> Reading:
    """What the rule's price reads of the window."""
    return _reading(rule.model, uuid.UUID(rule.metric_id or ""), rule, asked)


def _reading(model: Model, metric_id: uuid.UUID, rule: Rule, asked: Asked) -> Reading:
    window = Window(asked.organization_id, metric_id, asked.window.start, asked.window.end)
    if rule.measure is Measure.LEVEL:
        window = window._replace(standing_from=asked.measured_from)
    seen_from = asked.measured_from if rule.measure is Measure.DISTINCT else None
    match model:
        case Modified() if model.bucket is not None:
            return _one(window._replace(by=By(model.bucket.value)), lambda found: Grouped(_buckets(found)))
        case Modified():
            return _reading(model.model, metric_id, rule, asked)
        case Matrix():
            return _combined(model, window._replace(by_group=True), seen_from)
        case TimeOfUse():
            pieces = [(name, window._replace(start=a, end=b)) for name, a, b in _hours(model, asked.window, asked.timezone)]
            return Reading(tuple(one for _, one in pieces), lambda measured: Grouped(_by_slot(pieces, measured)))
        case Percentage() if model.reads_sums:
            return Reading((window,), lambda measured: summed(model, events(measured, window), quantity(measured, window)))
        case Percentage():
            return _folded(window._replace(by=By.EVENT, fold=_PerEvent(model)), Events(()))
        case Dynamic() if model.amount_property is not None:
            carrying = window._replace(by=By.EVENT, carrying=model.amount_property, fold=_CARRIED)
            return _folded(carrying, Carried(_ZERO, _ZERO))
        case GraduatedProrated():
            return _changes(window._replace(by=By.EVENT), rule, asked)
        case Capacity():
            windows = {code: window._replace(metric_id=uuid.UUID(found)) for code, found in model.metrics.items()}
            used = tuple(windows.values())
            return Reading(used, lambda m: ByMetric({code: max(quantity(m, one), _ZERO) for code, one in windows.items()}))
        case Sum():
            readings = [_reading(part.price, _metric_of(part, metric_id), rule, asked) for part in model.parts]
            windows_of_all = tuple(one for found in readings for one in found.windows)
            return Reading(windows_of_all, lambda measured: Several(tuple(found.usage(measured) for found in readings)))
    if seen_from is None:
        return Reading((window,), lambda measured: quantity(measured, window))
    before, since = _seen(window, seen_from)
    return Reading((before, since), lambda measured: quantity(measured, since) - quantity(measured, before))


def _seen(window: Window, seen_from: datetime) -> tuple[Window, Window]:
    """The values seen before the window began, and by its end: their difference is what the window was the first to see."""
    return window._replace(start=seen_from, end=window.start), window._replace(start=seen_from)


def _combined(model: Matrix, window: Window, seen_from: datetime | None) -> Reading:
    if seen_from is None:
        return Reading((window,), lambda measured: Grouped(_combinations(model, by_group(measured, window))))
    before, since = _seen(window, seen_from)

    def usage(measured: Measured) -> Grouped:
        known = by_group(measured, before)
        return Grouped(_combinations(model, {key: used - known.get(key, _ZERO) for key, used in by_group(measured, since).items()}))

    return Reading((before, since), usage)


@dataclass(frozen=True, slots=True)
class _PerEvent:
    """Folds the events of a percentage price."""

    model: Percentage

    def fold(self) -> _Charging:
        return _Charging(self.model.fold())


@dataclass(frozen=True, slots=True)
class _Charging:
    kept: Fold

    def add(self, event: Part) -> None:
        self.kept.add(event.quantity)

    def usage(self) -> Events:
        return self.kept.events()


@dataclass(frozen=True, slots=True)
class _Carried:
    """Folds events that carry their price."""

    def fold(self) -> _Carrying:
        return _Carrying()


@dataclass(slots=True)
class _Carrying:
    quantity: Decimal = _ZERO
    amount: Decimal = _ZERO

    def add(self, event: Part) -> None:
        self.quantity += event.quantity
        self.amount += event.carried or _ZERO

    def usage(self) -> Carried:
        return Carried(self.quantity, max(self.amount, _ZERO))


_CARRIED = _Carried()


def _folded(window: Window, nothing: Usage) -> Reading:
    def usage(measured: Measured) -> Usage:
        found = fold(measured, window)
        return found.usage() if isinstance(found, _Charging | _Carrying) else nothing

    return Reading((window,), usage)


def _one(window: Window, usage: Callable[[tuple[Part, ...]], Usage]) -> Reading:
    return Reading((window,), lambda measured: usage(parts(measured, window)))


def _metric_of(part: SumPart, otherwise: uuid.UUID) -> uuid.UUID:
    return uuid.UUID(part.metric_id) if part.metric_id else otherwise


def _buckets(found: tuple[Part, ...]) -> dict[tuple[str, ...], Decimal]:
    return {(part.start.isoformat(),): part.quantity for part in found if part.quantity > 0}


def _combinations(model: Matrix, groups: Mapping[tuple[str | None, ...], Decimal]) -> dict[tuple[str, ...], Decimal]:
    """Quantities by the values of the model's dimensions; dimensions of the metric that the price does not name are added up."""
    places = [model.group_by.index(name) for name in model.dimensions]
    found: dict[tuple[str, ...], Decimal] = {}
    for values, used in groups.items():
        key = tuple(values[place] or "" for place in places) if values else ("",) * len(places)
        found[key] = found.get(key, _ZERO) + used
    return {key: used for key, used in found.items() if used > 0}


@lru_cache(maxsize=512)
def _hours(model: TimeOfUse, window: Period, timezone: str) -> tuple[tuple[str, datetime, datetime], ...]:
    """The window as stretches of one slot each: (slot, start, end). Cached: an invoice run asks the same of thousands of customers."""
    zone = ZoneInfo(timezone)
    step = gcd(60, *(minute for slot in model.slots for minute in (slot.start, slot.end)))
    found: list[tuple[str, datetime, datetime]] = []
    at = window.start
    while at < window.end:
        local = at.astimezone(zone)
        past = timedelta(minutes=local.minute % step, seconds=local.second, microseconds=local.microsecond)
        until = min(at + timedelta(minutes=step) - past, window.end)
        name = model.slot_at(local.weekday(), local.hour * 60 + local.minute)
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1], until)
        else:
            found.append((name, at, until))
        at = until
    return tuple(found)


def _by_slot(pieces: Sequence[tuple[str, Window]], measured: Measured) -> dict[tuple[str, ...], Decimal]:
    found: dict[tuple[str, ...], Decimal] = {}
    for name, window in pieces:
        found[name,] = found.get((name,), _ZERO) + quantity(measured, window)
    return {key: max(used, _ZERO) for key, used in found.items()}


def _changes(window: Window, rule: Rule, asked: Asked) -> Reading:
    """What was there when the window began, whole, then each event with the share of the cycle that is left of it."""

    def usage(measured: Measured) -> Changes:
        found = parts(measured, window)
        before = quantity(measured, window) - sum((part.quantity for part in found), _ZERO)
        started = [_change(before, asked.window.start, rule, asked)] if before else []
        return Changes((*started, *(_change(part.quantity, part.start, rule, asked) for part in found)))

    return Reading((window,), usage)


def _change(units: Decimal, at: datetime, rule: Rule, asked: Asked) -> ProratedChange:
    left = share(Period(at, asked.window.end), asked.cycle, rule.prorate, asked.timezone) if at < asked.window.end else Fraction(0)
    return ProratedChange(units, round_quantity(Fraction(units) * left, Rounding.HALF_UP, PLACES))
