"""Calendar days typed into forms, read in the customer's timezone."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from flask import request

from core.errors import FieldError, Invalid
from core.periods import midnight


def read_day(text: str) -> date | None:
    """A day as date fields send it (2026-11-22); None for nothing or for what is no day."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def planned_return(act: str, timezone: str) -> dict[str, datetime]:
    """What the form says of the day a pause ends on, as `pause` and `resume` take it; {} when it says nothing. Invalid at the day."""
    name = {"pause": "until", "resume": "when"}.get(act, "")
    typed = request.form.get(name, "").strip() if name else ""
    if not typed:
        return {}
    day = read_day(typed)
    if day is None:
        raise Invalid("The day cannot be read.", errors=(FieldError(f"/{name}", "Enter a day, or leave it empty."),))
    return {name: begins(day, timezone)}


def begins(day: date, timezone: str) -> datetime:
    """The first instant of the local day."""
    return midnight(day, timezone)


def ends(day: date, timezone: str) -> datetime:
    """The first instant after the local day."""
    return midnight(day + timedelta(days=1), timezone)
