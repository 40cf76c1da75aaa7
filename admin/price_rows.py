"""A price of the editor: read from the form, written as the API's document, and back. Pure: no request, no database.

A field's name is its JSON pointer with _ for /: "prices_0_tiers_1_up_to" is /prices/0/tiers/1/up_to, so a refusal finds its field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from admin.price_form import MODELS, WEEKDAYS, Field, columns, fields, level_of_rows

WHOLE = re.compile(r"-?[0-9]{1,9}")
NAMES = re.compile(r"[,\s]+")
ROWS_MAX = 1_000
CONVERSION = ("operation", "factor", "rounding", "precision")
FIRST_ROWS: dict[str, list[dict[str, Any]]] = {
    "time_of_use": [{"name": "peak", "weekdays": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "20:00", "model": "per_unit"}],
}
Form = Mapping[str, str]


def read(form: Form, at: str, level: str = "price") -> dict[str, Any]:
    """The price whose inputs begin with `at`, as it was typed; a model chosen just now gets its first rows."""
    price: dict[str, Any] = {
        "model": form.get(f"{at}_model", "per_unit" if level == "one" else "").strip(),
        "metric": _text(form, f"{at}_metric"),
    }
    shape = MODELS.get(price["model"])
    for field in (known for known in fields(price, level) if known.name != "model"):
        price[field.name] = _value(form, f"{at}_{field.name}", field)
    if shape and shape.rows:
        price[shape.rows.name] = _rows(form, at, price)
    if shape and shape.default:
        price["default"] = read(form, f"{at}_default", "one")
    if level == "price":
        price["more"] = _text(form, f"{at}_more")
        prefix = f"{at}_use_"
        price["use"] = {name.removeprefix(prefix): form[name].strip() for name in form if name.startswith(prefix)}
    return price


def new_row(price: Mapping[str, Any]) -> dict[str, Any]:
    """An empty row of the price's model."""
    row: dict[str, Any] = {column.name: list(WEEKDAYS) if column.kind == "days" else "" for column in columns(price)}
    shape = MODELS[price["model"]]
    return {**row, "model": "per_unit"} if shape.rows and shape.rows.priced else row


def document(price: Mapping[str, Any], level: str = "price") -> dict[str, Any]:
    """The price in the API's vocabulary; what was left empty is left out. ValueError where other keys are not JSON."""
    written: dict[str, Any] = {}
    for field in fields(price, level):
        if (value := _typed(price.get(field.name), field)) not in ("", None, []):
            written[field.name] = value
    if "model" in price:
        written["model"] = price["model"]
    written |= _modifiers(written)
    shape = MODELS.get(price["model"])
    if shape and shape.rows and (rows := price.get(shape.rows.name)):
        written[shape.rows.name] = [_row(price, row) for row in rows]
    if price["model"] == "capacity":
        written.pop("metrics", None)
    if shape and shape.default:
        rest = price.get("default") or {}
        written["default"] = document(rest, "one") if rest.get("model") else None
    return written | _more(price, written) if level == "price" else written


def of_document(given: Mapping[str, Any], level: str = "price") -> dict[str, Any]:
    """The price as it stands in the form; keys without an input are kept as JSON under `more`."""
    rest = dict(given)
    metric = "" if rest.get("metric") is None else str(rest["metric"])
    price: dict[str, Any] = {"model": str(rest.get("model", "per_unit" if level == "one" else "")), "metric": metric}
    conversion = rest.pop("unit_conversion", None)
    if isinstance(conversion, Mapping):
        rest |= {f"unit_conversion_{name}": value for name, value in conversion.items() if name in CONVERSION}
    if isinstance(rest.get("prorate"), bool):
        rest["prorate"] = "yes" if rest["prorate"] else "no"
    if price["model"] == "capacity":
        tiers = rest.get("capacity_tiers")
        first = tiers[0].get("limits") if isinstance(tiers, list) and tiers and isinstance(tiers[0], Mapping) else None
        rest["metrics"] = list(first) if isinstance(first, Mapping) else []
    rest = {key: value for key, value in rest.items() if key not in ("model", "metric")}
    for field in fields(price, level):
        if field.name not in price:
            price[field.name] = _shown(rest.pop(field.name, None), field)
    shape = MODELS.get(price["model"])
    if shape and shape.rows:
        found = rest.pop(shape.rows.name, [])
        price[shape.rows.name] = [_row_of(price, row) for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []
    if shape and shape.default:
        other = rest.pop("default", None)
        price["default"] = of_document(other, "one") if isinstance(other, Mapping) else {"model": ""}
    if level == "price":
        left = {key: value for key, value in rest.items() if value is not None}
        price |= {"more": json.dumps(left, indent=2, ensure_ascii=False) if left else "", "use": {}}
    return price


def names(price: Mapping[str, Any], at: str, level: str = "price") -> Iterator[str]:
    """The names of all inputs of the price, and of its parts that can carry a refusal."""
    yield at
    for field in fields(price, level):
        yield f"{at}_{field.name}"
    shape = MODELS.get(price["model"])
    if shape and shape.rows:
        yield f"{at}_{shape.rows.name}"
        for j, row in enumerate(price.get(shape.rows.name) or ()):
            place = f"{at}_{shape.rows.name}_{j}"
            yield from (f"{place}_{column.name}" for column in columns(price))
            if shape.rows.priced:
                yield from names(row, place, level_of_rows(price["model"]))
    if shape and shape.default:
        yield from names(price.get("default") or {"model": ""}, f"{at}_default", "one")
    if level == "price":
        yield f"{at}_more"
        yield from (f"{at}_use_{key}" for key in price.get("use", ()))


def count(form: Form, name: str) -> int:
    """How many rows there are, told by an input that each has, such as "prices_{}_model"."""
    n = 0
    while n < ROWS_MAX and name.format(n) in form:
        n += 1
    return n


def whole(text: str) -> int | str:
    """The number, or the text as it is where it is none."""
    return int(text) if WHOLE.fullmatch(text) else text


def _rows(form: Form, at: str, price: dict[str, Any]) -> list[dict[str, Any]]:
    shape = MODELS[price["model"]].rows
    if shape is None:
        return []
    found = []
    for j in range(count(form, f"{at}_{shape.name}_{{}}_{shape.marker}")):
        place = f"{at}_{shape.name}_{j}"
        row = {column.name: _value(form, f"{place}_{column.name}", column) for column in columns(price)}
        found.append({**read(form, place, level_of_rows(price["model"])), **row} if shape.priced else row)
    if len(found) < shape.least:
        return [dict(row) for row in FIRST_ROWS.get(price["model"], [new_row(price)])]
    return found


def _row(price: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the document: a bound left empty is none, values and limits stand under one key."""
    shape = MODELS[price["model"]].rows
    written = document(row, level_of_rows(price["model"])) if shape and shape.priced else {}
    nested: dict[str, dict[str, Any]] = {}
    for column in columns(price):
        value = _typed(row.get(column.name), column)
        group, _, name = column.name.partition("_")
        if group in ("values", "limits") and name:
            nested.setdefault(group, {})
            if group == "limits" or value:
                nested[group][name] = value or None
        elif column.name == "up_to":
            written["up_to"] = value or None
        elif value not in ("", None) or column.name == "weekdays":
            written[column.name] = value
    return {**nested, **written}


def _row_of(price: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    shape = MODELS[price["model"]].rows
    found: dict[str, Any] = of_document(row, level_of_rows(price["model"])) if shape and shape.priced else {}
    for column in columns(price):
        group, _, name = column.name.partition("_")
        inner = row.get(group)
        if group in ("values", "limits") and name:
            found[column.name] = _shown(inner.get(name) if isinstance(inner, Mapping) else None, column)
        else:
            usual = list(WEEKDAYS) if column.kind == "days" else None
            found[column.name] = _shown(row.get(column.name, usual), column)
    return found


def _modifiers(written: dict[str, Any]) -> dict[str, Any]:
    """The conversion under its own key, and whether a part of a period counts its share."""
    conversion = {name: written.pop(f"unit_conversion_{name}", None) for name in CONVERSION}
    found: dict[str, Any] = {}
    if conversion["operation"]:
        found["unit_conversion"] = {name: value for name, value in conversion.items() if value is not None}
    if "prorate" in written:
        found |= {"prorate": False} if written.pop("prorate") == "no" else {}
    return found


def _more(price: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    keys = json.loads(price.get("more") or "{}")
    if not isinstance(keys, dict):
        raise ValueError("must be a JSON object of the other keys")
    return {key: value for key, value in keys.items() if key not in taken}


def _value(form: Form, name: str, field: Field) -> Any:
    if field.kind == "days":
        return [day for day in WEEKDAYS if f"{name}_{day}" in form]
    if field.kind == "names":
        return [word for word in NAMES.split(_text(form, name)) if word]
    return _text(form, name)


def _typed(value: Any, field: Field) -> Any:
    return whole(value) if field.kind == "whole" and isinstance(value, str) else value


def _shown(value: Any, field: Field) -> Any:
    if field.kind in ("names", "days"):
        return [str(item) for item in value] if isinstance(value, list) else []
    return "" if value is None else str(value)


def _text(form: Form, name: str) -> str:
    return form.get(name, "").strip()
