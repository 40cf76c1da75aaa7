"""Every price model and its JSON form: one vocabulary in the API, the database, pages and golden cases. Pure.

A price is an object with a `model`, the model's keys, and if wanted the keys of modifiers. A key that neither has is refused, so that a
misspelt price is never a free one.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any

from core.money import plain
from core.pricing import compound_fields, rules
from core.pricing.compound import Capacity, Compound, Dynamic, GraduatedProrated, Matrix, Percentage, Sum, SumPart, TimeOfUse
from core.pricing.fields import RuleError, amount, listed, maybe, only, positive, within
from core.pricing.modifiers import Bucket, Modified, Rounding, UnitConversion
from core.pricing.rules import PriceModel

Model = PriceModel | Compound | Modified
PARTS_MAX = 20
MODIFIER_KEYS = frozenset(
    {"unit_conversion", "usage_discount", "discount_percent", "minimum_amount", "maximum_amount", "bucket", "prorate"}
)
_COMPOUND: dict[str, Callable[[Mapping[str, object]], Compound]] = {
    "dynamic": compound_fields.dynamic,
    "percentage": compound_fields.percentage,
    "graduated_prorated": compound_fields.graduated_prorated,
    "capacity": compound_fields.capacity,
    "matrix": compound_fields.matrix,
    "time_of_use": compound_fields.time_of_use,
}
_NAMES: dict[type, str] = {
    Dynamic: "dynamic",
    Percentage: "percentage",
    GraduatedProrated: "graduated_prorated",
    Capacity: "capacity",
    Matrix: "matrix",
    TimeOfUse: "time_of_use",
    Sum: "sum",
}
NAMES = (*rules.MODEL_NAMES, *_NAMES.values())


def parse(data: Mapping[str, object]) -> Model:
    """A price from its JSON object; `RuleError` names the first value that is wrong."""
    if not isinstance(data, Mapping):
        raise RuleError("", "must be an object")
    around = {key: value for key, value in data.items() if key in MODIFIER_KEYS}
    model = _parse_bare({key: value for key, value in data.items() if key not in MODIFIER_KEYS})
    return _modified(model, around) if around else model


def name_of(model: Model) -> str:
    """The `model` word of the JSON form."""
    match model:
        case Modified():
            return name_of(model.model)
        case Dynamic() | Percentage() | GraduatedProrated() | Capacity() | Matrix() | TimeOfUse() | Sum():
            return _NAMES[type(model)]
        case _:
            return rules.name_of(model)


def bare(model: Model) -> PriceModel | Compound:
    """The model without its modifiers."""
    return model.model if isinstance(model, Modified) else model


def reads_one(model: Model) -> bool:
    """Whether it is asked with one quantity."""
    if isinstance(model, Modified):
        return model.bucket is None and reads_one(model.model)
    return not isinstance(model, Compound) or (isinstance(model, Dynamic) and model.amount_property is None)


def prices_a_level(model: Model) -> bool:
    """Whether it prices a level as what it is; other models take it apart by event, by change or by bucket, and what they read adds up."""
    if isinstance(model, Modified):
        return model.bucket is None and prices_a_level(model.model)
    return not isinstance(model, Percentage | GraduatedProrated | Dynamic)


def resolved(model: Model, ids: Mapping[str, str], group_by: tuple[str, ...]) -> Model:
    """The model with the ids of the metrics it names by code, and the dimensions of the metric it reads."""
    match model:
        case Modified():
            inner = resolved(model.model, ids, group_by)
            return replace(model, model=bare(inner))
        case Capacity():
            return replace(model, metrics={code: ids[code] for code in model.metrics})
        case Matrix():
            return replace(model, group_by=group_by)
        case Sum():
            return Sum(tuple(_resolved_part(part, ids, group_by) for part in model.parts))
    return model


def _resolved_part(part: SumPart, ids: Mapping[str, str], group_by: tuple[str, ...]) -> SumPart:
    price = bare(resolved(part.price, ids, group_by))
    return SumPart(price, part.metric, None if part.metric is None else ids[part.metric])


def metric_codes(model: Model) -> tuple[str, ...]:
    """The codes of the metrics that the model itself names."""
    match bare(model):
        case Capacity() as found:
            return tuple(found.metrics)
        case Sum() as found:
            return tuple(dict.fromkeys(code for part in found.parts for code in (part.metric, *metric_codes(part.price)) if code))
    return ()


def to_json(model: Model) -> dict[str, object]:
    """The JSON form that `parse` reads back to an equal model."""
    match model:
        case Modified():
            return {**to_json(model.model), **_modifiers(model)}
        case Sum():
            return {"model": "sum", "parts": [_part(part) for part in model.parts]}
        case Dynamic() | Percentage() | GraduatedProrated() | Capacity() | Matrix() | TimeOfUse():
            return {"model": _NAMES[type(model)], **compound_fields.to_json(model)}
        case _:
            return rules.to_json(model)


def _parse_bare(data: Mapping[str, object]) -> PriceModel | Compound:
    name = data.get("model")
    if name == "sum":
        return _sum(data)
    if isinstance(name, str) and name in _COMPOUND:
        return _COMPOUND[name]({key: value for key, value in data.items() if key != "model"})
    if name not in rules.MODEL_NAMES:
        raise RuleError("/model", f"must be one of {', '.join(NAMES)}")
    return rules.parse_model(data)


def _sum(data: Mapping[str, object]) -> Sum:
    only(data, {"model", "parts"})
    parts = []
    for i, item in enumerate(listed(data, "parts", most=PARTS_MAX)):
        with within(f"/parts/{i}"):
            metric, metric_id = compound_fields.text(item, "metric"), compound_fields.text(item, "metric_id")
            price = _parse_bare({key: value for key, value in item.items() if key not in ("metric", "metric_id")})
            if isinstance(price, Sum):
                raise RuleError("/model", "a part of a sum cannot be a sum itself")
            parts.append(SumPart(price, metric, metric_id))
    return Sum(tuple(parts))


def _part(part: SumPart) -> dict[str, object]:
    named = {"metric": part.metric, "metric_id": part.metric_id}
    return {**{key: value for key, value in named.items() if value is not None}, **to_json(part.price)}


def _modified(model: PriceModel | Compound, data: Mapping[str, object]) -> Modified:
    for key in ("unit_conversion", "usage_discount", "bucket"):
        if not reads_one(model) and data.get(key) is not None:
            raise RuleError(f"/{key}", f"is for prices of one quantity, which {name_of(model)} is not")
    discount = amount(data, "discount_percent", default=Decimal(0))
    if discount > 100:
        raise RuleError("/discount_percent", "must be at most 100")
    least, most = maybe(data, "minimum_amount"), maybe(data, "maximum_amount")
    if least is not None and most is not None and most < least:
        raise RuleError("/maximum_amount", "must not be less than minimum_amount")
    bucket = data.get("bucket")
    if bucket is not None and bucket not in tuple(Bucket):
        raise RuleError("/bucket", f"must be one of {', '.join(Bucket)}")
    free = amount(data, "usage_discount", default=Decimal(0))
    if bucket is not None and free:
        raise RuleError("/usage_discount", "cannot be given with bucket, which prices each bucket alone")
    prorate = data.get("prorate", True)
    if not isinstance(prorate, bool):
        raise RuleError("/prorate", "must be true or false")
    conversion = _conversion(data["unit_conversion"]) if data.get("unit_conversion") is not None else None
    return Modified(model, conversion, free, discount, least, most, Bucket(str(bucket)) if bucket is not None else None, prorate)


def _conversion(data: object) -> UnitConversion:
    with within("/unit_conversion"):
        if not isinstance(data, Mapping):
            raise RuleError("", "must be an object")
        only(data, {"operation", "factor", "rounding", "precision"})
        if data.get("operation") not in ("multiply", "divide"):
            raise RuleError("/operation", 'must be "multiply" or "divide"')
        rounding, precision = data.get("rounding"), data.get("precision", 0)
        if rounding is not None and rounding not in tuple(Rounding):
            raise RuleError("/rounding", f"must be one of {', '.join(Rounding)}, or left out")
        if not isinstance(precision, int) or isinstance(precision, bool) or not -12 <= precision <= 12:
            raise RuleError("/precision", "must be a whole number from -12 to 12")
        way = Rounding(str(rounding)) if rounding is not None else None
        return UnitConversion(data["operation"] == "multiply", positive(data, "factor"), way, precision)


def _modifiers(model: Modified) -> dict[str, object]:
    out: dict[str, object] = {}
    if model.conversion is not None:
        how = model.conversion
        out["unit_conversion"] = {
            "operation": "multiply" if how.multiply else "divide",
            "factor": plain(how.factor),
            **({"rounding": how.rounding.value, "precision": how.precision} if how.rounding else {}),
        }
    for field in fields(model):
        value: Any = getattr(model, field.name)
        if isinstance(value, StrEnum):
            out[field.name] = value.value
        elif isinstance(value, Decimal) and (value or field.name.endswith("imum_amount")):
            out[field.name] = plain(value)
        elif not is_dataclass(value) and value is False:
            out[field.name] = False
    return out
