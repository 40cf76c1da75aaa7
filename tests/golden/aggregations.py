"""Aggregations: a case's events become readings of a metric."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from core.money import round_half_up, to_decimal
from core.periods import Interval, Period, calendar_anchor, cycles
from core.pricing.aggregation import Aggregation, Reading, aggregate, by_key, max_of_daily_sums, unique_days, weighted_sum
from core.pricing.modifiers import Rounding, round_quantity
from core.pricing.price import price
from core.pricing.rules import Graduated, PerUnit, Tier
from tests.golden.compare import Unordered, Unsupported
from tests.golden.reading import at, decimal, maybe, only

KNOWN = (
    "aggregation property events event window filter group_by granularity timezone initial_value period_days "
    "unit_price tiers decimals currency"
)
EPOCH = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


def answer(given: Mapping[str, Any]) -> dict[str, object]:
    """The quantity, by group and by bucket where the case asks for them."""
    name = given.get("aggregation")
    if name == "rounding":
        return _rounding(given)
    if name == "max_of_daily_sum" and "daily_sums" in given:
        return _daily_sums(given)
    only(given, KNOWN)
    if "event" in given:
        return _one_event(given)
    events = [event for event in _windowed(given) if _kept(event, given.get("filter"))]
    readings = [_reading(event, given) for event in events]
    out: dict[str, object] = {"events_count": len(readings)}
    if name == "weighted_sum":
        return out | _weighted(given, events, readings)
    if name == "unique_count_prorated":
        window, timezone = Period(at(given["window"]["from"]), at(given["window"]["to"])), given.get("timezone", "UTC")
        days = unique_days(readings, window, timezone)
        return out | _values(Fraction(days, int(given.get("period_days") or window.days(timezone))), given)
    if name == "max_of_daily_sum":
        return out | _values(max_of_daily_sums(readings, given.get("timezone", "UTC")), given)
    if name not in {member.value for member in Aggregation}:
        raise Unsupported(f"no aggregation {name}")
    return out | _values(aggregate(Aggregation(name), readings), given) | _split(given, events, readings)


def _windowed(given: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    window = given.get("window")
    if window is None:
        return list(given.get("events", []))
    start, end = at(window["from"]), at(window["to"])
    inclusive = end.second == 59  # windows that end at 23:59:59 mean the whole second
    return [e for e in given["events"] if "at" not in e or start <= at(e["at"]) < end + timedelta(seconds=inclusive)]


def _kept(event: Mapping[str, Any], wanted: Mapping[str, object] | None) -> bool:
    for name, value in (wanted or {}).items():
        allowed = value if isinstance(value, list) else [value]
        if str(_property(event, name)) not in map(str, allowed):
            return False
    return True


def _property(event: Mapping[str, Any], path: str) -> object:
    value: object = event
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _reading(event: Mapping[str, Any], given: Mapping[str, Any]) -> Reading:
    moment = at(event["at"]) if "at" in event else EPOCH
    name = given["aggregation"]
    if name == "count":
        return Reading(moment)
    value = _property(event, given["property"])
    if str(name).startswith("unique_count"):
        return Reading(moment, value=str(value), removed=event.get("operation") == "remove")
    return Reading(moment, decimal(0 if value is None else value))


def _values(value: Decimal | Fraction, given: Mapping[str, Any]) -> dict[str, object]:
    rounded = round_quantity(value, Rounding.HALF_UP, int(given.get("decimals", 2)))
    out: dict[str, object] = {"value": value, "total": value, "value_rounded": rounded}
    if "tiers" in given or "unit_price" in given:
        tiers = tuple(
            Tier(maybe(t.get("up_to")), decimal(t.get("unit_price") or 0), decimal(t.get("flat_fee") or 0)) for t in given.get("tiers", [])
        )
        model = Graduated(tiers) if tiers else PerUnit(decimal(given["unit_price"]))
        quantity = max(round_quantity(value, Rounding.HALF_UP, 12), Decimal(0))
        currency = given.get("currency", "USD")
        out["amount"] = to_decimal(round_half_up(price(model, quantity), currency), currency)
    return out


def _split(given: Mapping[str, Any], events: Sequence[Mapping[str, Any]], readings: Sequence[Reading]) -> dict[str, object]:
    out: dict[str, object] = {}
    aggregation = Aggregation(given["aggregation"])
    if names := given.get("group_by"):
        groups = _grouped(names, events, readings)
        rows = [{"key": dict(zip(names, key, strict=True)), "value": aggregate(aggregation, rows)} for key, rows in groups.items()]
        out["groups"] = Unordered(rows)
    if unit := given.get("granularity"):
        buckets = [(bucket.start, [r for r in readings if bucket.contains(r.at)]) for bucket in _buckets(given, unit, readings)]
        out["buckets"] = [aggregate(aggregation, rows) for _, rows in buckets]
        out["rows"] = [{"start": start, "value": aggregate(aggregation, rows)} for start, rows in buckets if rows]
    return out


def _buckets(given: Mapping[str, Any], unit: str, readings: Sequence[Reading]) -> list[Period]:
    """The buckets of the window; of a case without one, those from the first event to the last."""
    timezone = given.get("timezone", "UTC")
    if "window" in given:
        start, end = at(given["window"]["from"]), at(given["window"]["to"])
    elif readings:
        start, end = min(r.at for r in readings), max(r.at for r in readings) + timedelta(microseconds=1)
    else:
        return []
    if unit in {interval.value for interval in Interval}:
        return list(cycles(calendar_anchor(Interval(unit), 1, start, timezone), start, end))
    lengths = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
    if unit not in lengths:
        raise Unsupported(f"granularity {unit}")
    local = start.astimezone(ZoneInfo(timezone)).replace(second=0, microsecond=0)
    first = (local if unit == "minute" else local.replace(minute=0)).astimezone(start.tzinfo)
    return [Period(first + n * lengths[unit], first + (n + 1) * lengths[unit]) for n in range((end - first) // lengths[unit] + 1)]


def _weighted(given: Mapping[str, Any], events: Sequence[Mapping[str, Any]], readings: Sequence[Reading]) -> dict[str, object]:
    window, initial = given["window"], decimal(given.get("initial_value") or 0)
    end = at(window["to"])
    span = Period(at(window["from"]), end + timedelta(seconds=end.second == 59))
    value, closing = weighted_sum(readings, span, initial)
    out: dict[str, object] = {"closing_value": closing}
    if names := given.get("group_by"):
        rows = [
            {"key": dict(zip(names, key, strict=True)), "value": weighted_sum(mine, span)[0]}
            for key, mine in _grouped(names, events, readings).items()
        ]
        out["groups"] = Unordered(rows)
    if unit := given.get("granularity"):
        means = []
        for bucket in (found for cut in _buckets(given, unit, readings) if (found := cut.overlap(span))):
            mean, initial = weighted_sum([reading for reading in readings if bucket.contains(reading.at)], bucket, initial)
            means.append({"start": bucket.start, "value": mean})
        out |= {"rows": means, "buckets": [row["value"] for row in means]}
    return out | _values(value, given)


def _grouped(
    names: Sequence[str], events: Sequence[Mapping[str, Any]], readings: Sequence[Reading]
) -> dict[tuple[object, ...], list[Reading]]:
    keys = {id(reading): tuple(_property(event, name) for name in names) for event, reading in zip(events, readings, strict=True)}
    return by_key(readings, lambda reading: keys[id(reading)])


def _rounding(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "aggregation units function precision")
    functions = {"round": Rounding.HALF_UP, "ceil": Rounding.UP, "floor": Rounding.DOWN}
    if given.get("function") is None:
        return {"value": decimal(given["units"])}
    return {"value": round_quantity(decimal(given["units"]), functions[given["function"]], int(given.get("precision") or 0))}


def _daily_sums(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, f"{KNOWN} daily_sums")
    readings = [Reading(EPOCH + timedelta(days=day), decimal(total)) for day, total in enumerate(given["daily_sums"])]
    return _values(max_of_daily_sums(readings, "UTC"), given)


def _one_event(given: Mapping[str, Any]) -> dict[str, object]:
    """What one event contributes; a group without a value is the empty text."""
    reading = _reading(given["event"], given)
    unique = given["aggregation"] == Aggregation.UNIQUE_COUNT
    value = reading.value if unique else aggregate(Aggregation(given["aggregation"]), [reading])
    groups = {name: str(_property(given["event"], name) or "") for name in given.get("group_by") or []}
    return {"event_value": value, "groups": groups}
