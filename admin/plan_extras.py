"""Features and limits of a plan as rows of texts, and back; what no row can hold is left over. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from admin import price_rows

FEATURE = ("name", "value")
LIMIT = ("metric", "value", "period", "action")


def features_of(given: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(features that a row can hold, the others)."""
    rows = {name: shown(value) for name, value in given.items() if not isinstance(value, (dict, list))}
    fit = {name: text for name, text in rows.items() if value_of(text) == given[name] and type(value_of(text)) is type(given[name])}
    return [{"name": name, "value": text} for name, text in fit.items()], {key: given[key] for key in given if key not in fit}


def limits_of(given: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(limits that a row can hold, the others)."""
    rows: list[dict[str, Any]] = []
    other: dict[str, Any] = {}
    for metric, said in given.items():
        parts = said if isinstance(said, Mapping) else {"value": said}
        row = {"metric": metric, **{name: shown(parts.get(name)) for name in LIMIT[1:]}}
        fits = not isinstance(said, bool) and limit(row) == (dict(said) if isinstance(said, Mapping) else said)
        if fits:
            rows.append(row)
        else:
            other[metric] = said
    return rows, other


def limit(row: Mapping[str, str]) -> Any:
    """A row as a plan has it: the number alone, or with its period and action."""
    value = price_rows.whole(row["value"])
    parts = {name: row[name] for name in ("period", "action") if row.get(name)}
    return {"value": value, **parts} if parts else value


def value_of(text: str) -> Any:
    """What a text stands for: yes and no, a whole number, or itself."""
    return text == "yes" if text in ("yes", "no") else price_rows.whole(text)


def shown(value: Any) -> str:
    """A value as a text of the form."""
    return "" if value is None else ("yes" if value else "no") if isinstance(value, bool) else str(value)
