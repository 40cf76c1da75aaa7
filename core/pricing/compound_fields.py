"""The JSON form of prices of several quantities, there and back. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from core.money import plain
from core.pricing import rules
from core.pricing.compound import (
    OTHER_HOURS,
    Capacity,
    CapacityTier,
    Cell,
    Dynamic,
    GraduatedProrated,
    Matrix,
    Percentage,
    Slot,
    TimeOfUse,
)
from core.pricing.fields import RuleError, amount, listed, maybe, only, within
from core.pricing.rules import Graduated, PriceModel, parse_model

CELLS_MAX = 1_000
SLOTS_MAX = 20
TIERS_MAX = 100
DIMENSIONS_MAX = 5
VALUE_LENGTH_MAX = 200
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY = 1440
PERCENTAGE_KEYS = ("rate_percent", "fixed_fee_per_event", "free_events", "free_amount", "min_per_event", "max_per_event")


def text(data: Mapping[str, object], key: str) -> str | None:
    """A short text; None where it is absent."""
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= VALUE_LENGTH_MAX or any(ord(char) < 32 for char in value):
        raise RuleError(f"/{key}", f"must be a text of 1 to {VALUE_LENGTH_MAX} characters")
    return value


def dynamic(data: Mapping[str, object]) -> Dynamic:
    """`multiplier`, 1 unless given, and the `amount_property` of the events."""
    only(data, {"multiplier", "amount_property"})
    return Dynamic(amount(data, "multiplier", default=Decimal(1)), text(data, "amount_property"))


def percentage(data: Mapping[str, object]) -> Percentage:
    """A rate on each event, with its fixed fee, free allowances and bounds."""
    only(data, set(PERCENTAGE_KEYS))
    free_events = maybe(data, "free_events")
    if free_events is not None and free_events != free_events.to_integral_value():
        raise RuleError("/free_events", "must be a whole number")
    least, most = maybe(data, "min_per_event"), maybe(data, "max_per_event")
    if least is not None and most is not None and most < least:
        raise RuleError("/max_per_event", "must not be less than min_per_event")
    return Percentage(
        amount(data, "rate_percent"),
        amount(data, "fixed_fee_per_event", default=Decimal(0)),
        None if free_events is None else int(free_events),
        maybe(data, "free_amount"),
        least,
        most,
    )


def graduated_prorated(data: Mapping[str, object]) -> GraduatedProrated:
    """The tiers of a graduated price."""
    found = parse_model({"model": "graduated", **data})
    return GraduatedProrated(found.tiers if isinstance(found, Graduated) else ())


def capacity(data: Mapping[str, object]) -> Capacity:
    """Tiers of `price` and `limits` by metric code; the last one holds whatever is used."""
    only(data, {"capacity_tiers", "metrics"})
    items = listed(data, "capacity_tiers", most=TIERS_MAX)
    tiers = []
    for i, item in enumerate(items):
        with within(f"/capacity_tiers/{i}"):
            only(item, {"price", "limits"})
            limits = item.get("limits")
            if not isinstance(limits, Mapping) or not limits:
                raise RuleError("/limits", "must be an object of a limit for each metric, null for none")
            with within("/limits"):
                tiers.append(CapacityTier(amount(item, "price"), {str(code): maybe(limits, code) for code in limits}))
            if tiers[-1].limits.keys() != tiers[0].limits.keys():
                raise RuleError("/limits", f"must name the metrics of the first tier: {', '.join(tiers[0].limits)}")
    if any(limit is not None for limit in tiers[-1].limits.values()):
        raise RuleError(f"/capacity_tiers/{len(tiers) - 1}/limits", "must all be null in the last tier, so that any usage has a price")
    ids = data.get("metrics")
    known = {code: str(ids[code]) if isinstance(ids, Mapping) and code in ids else "" for code in tiers[0].limits}
    return Capacity(tuple(tiers), known)


def matrix(data: Mapping[str, object]) -> Matrix:
    """`dimensions`, `prices` by their values, and the `default`."""
    only(data, {"dimensions", "prices", "default", "group_by"})
    dimensions = _names(data, "dimensions")
    if "default" not in data:
        raise RuleError("/default", "is missing: the price of all other values, or null for none")
    cells = []
    for i, item in enumerate(listed(data, "prices", least=0, most=CELLS_MAX)):
        with within(f"/prices/{i}"):
            cells.append(Cell(_values(item, dimensions), _one_price({key: item[key] for key in item if key != "values"})))
    default = None if data["default"] is None else _nested(data, "default")
    return Matrix(tuple(dimensions), tuple(cells), default, tuple(_names(data, "group_by")) if data.get("group_by") else ())


def time_of_use(data: Mapping[str, object]) -> TimeOfUse:
    """`windows` of local hours, each with its price, and the `default` for all other hours."""
    only(data, {"windows", "default"})
    slots: list[Slot] = []
    for i, item in enumerate(listed(data, "windows", most=SLOTS_MAX)):
        with within(f"/windows/{i}"):
            name = text(item, "name")
            if name is None or name == OTHER_HOURS or any(slot.name == name for slot in slots):
                raise RuleError("/name", "must be a name of its own")
            price = _one_price({key: value for key, value in item.items() if key not in ("name", "weekdays", "from", "to")})
            slots.append(Slot(name, _weekdays(item), _minute(item, "from"), _minute(item, "to"), price))
    return TimeOfUse(tuple(slots), _nested(data, "default"))


def to_json(model: Dynamic | Percentage | GraduatedProrated | Capacity | Matrix | TimeOfUse) -> dict[str, object]:
    """The keys of the model."""
    match model:
        case Dynamic():
            named = {} if model.amount_property is None else {"amount_property": model.amount_property}
            return {"multiplier": plain(model.multiplier), **named}
        case Percentage():
            given = {key: getattr(model, key) for key in PERCENTAGE_KEYS}
            return {key: plain(value) if isinstance(value, Decimal) else value for key, value in given.items() if value is not None}
        case GraduatedProrated():
            return {"tiers": rules.to_json(Graduated(model.tiers))["tiers"]}
        case Capacity():
            tiers = [{"price": plain(tier.price), "limits": {c: _or_null(v) for c, v in tier.limits.items()}} for tier in model.tiers]
            return {"capacity_tiers": tiers, "metrics": dict(model.metrics)}
        case Matrix():
            cells = [{"values": dict(cell.values), **rules.to_json(cell.price)} for cell in model.cells]
            default = None if model.default is None else rules.to_json(model.default)
            known = {"group_by": list(model.group_by)} if model.group_by else {}
            return {"dimensions": list(model.dimensions), "prices": cells, "default": default, **known}
        case TimeOfUse():
            return {"windows": [_slot(slot) for slot in model.slots], "default": rules.to_json(model.default)}


def _slot(slot: Slot) -> dict[str, object]:
    hours = {"from": _clock(slot.start), "to": _clock(slot.end)}
    return {"name": slot.name, "weekdays": [WEEKDAYS[day] for day in sorted(slot.weekdays)], **hours, **rules.to_json(slot.price)}


def _one_price(data: Mapping[str, Any]) -> PriceModel:
    """A price of one quantity; per unit unless it names another model."""
    return parse_model({"model": "per_unit", **data})


def _nested(data: Mapping[str, object], key: str) -> PriceModel:
    with within(f"/{key}"):
        value = data.get(key)
        if not isinstance(value, Mapping):
            raise RuleError("", 'must be a price, such as {"unit_price": "0.01"}')
        return _one_price(value)


def _names(data: Mapping[str, object], key: str) -> list[str]:
    names = data.get(key)
    if not isinstance(names, list) or not 1 <= len(names) <= DIMENSIONS_MAX or len(set(map(str, names))) != len(names):
        raise RuleError(f"/{key}", f"must be a list of 1 to {DIMENSIONS_MAX} different names of dimensions")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise RuleError(f"/{key}/{i}", "must be the name of a dimension")
    return names


def _values(item: Mapping[str, object], dimensions: list[str]) -> dict[str, str]:
    values = item.get("values")
    if not isinstance(values, Mapping) or not values:
        raise RuleError("/values", "must be an object of at least one dimension and its value")
    with within("/values"):
        only(values, set(dimensions))
        return {name: found for name in values if (found := text(values, name)) is not None}


def _weekdays(item: Mapping[str, object]) -> frozenset[int]:
    days = item.get("weekdays", list(WEEKDAYS))
    if not isinstance(days, list) or not days:
        raise RuleError("/weekdays", f"must be a list of {', '.join(WEEKDAYS)}")
    for i, day in enumerate(days):
        if day not in WEEKDAYS:
            raise RuleError(f"/weekdays/{i}", f"must be one of {', '.join(WEEKDAYS)}")
    return frozenset(WEEKDAYS.index(day) for day in days)


def _minute(item: Mapping[str, object], key: str) -> int:
    value = item.get(key, "00:00")
    if isinstance(value, str) and len(value) == 5 and value[2] == ":" and (value[:2] + value[3:]).isascii():
        hours, minutes = value[:2], value[3:]
        if (
            hours.isdigit()
            and minutes.isdigit()
            and int(minutes) < 60
            and int(hours) * 60 + int(minutes) <= MINUTES_A_DAY - (key == "from")
        ):
            return int(hours) * 60 + int(minutes)
    raise RuleError(f"/{key}", 'must be a local time, such as "08:00"')


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _or_null(limit: Decimal | None) -> str | None:
    return None if limit is None else plain(limit)
