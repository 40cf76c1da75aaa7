"""An audit event's data in words: what it was before and what it is now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from core import rendering


def changes(data: Mapping[str, Any], currency: str) -> list[tuple[str, str, str]]:
    """(what, before, after) for each fact of the event; `before` is "" for what was not there. Amounts are in the event's currency."""
    money = str(data.get("currency") or currency)
    before, after = data.get("before"), data.get("after")
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [(_label(name), _text(name, before.get(name), money), _text(name, value, money)) for name, value in after.items()]
    shown = {name: value for name, value in data.items() if value not in (None, "") and name != "currency" and not name.endswith("_id")}
    return [(_label(name), "", _text(name, value, money)) for name, value in shown.items()]


def _label(name: str) -> str:
    return name.removesuffix("_minor").replace("_", " ")


def _text(name: str, value: Any, currency: str) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_text(key, item, currency)}" for key, item in value.items() if item not in (None, ""))
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_minor") and isinstance(value, int):
        return rendering.money(value, currency)
    try:
        return rendering.datetime_tz(datetime.fromisoformat(value)) if name.endswith(("_at", "start", "end", "to")) else str(value)
    except (TypeError, ValueError):
        return str(value)
