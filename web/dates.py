"""Calendar days typed into forms, read in the customer's timezone."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from core.periods import midnight


def read_day(text: str) -> date | None:
    """A day as date fields send it (2026-11-22); None for nothing or for what is no day."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def begins(day: date, timezone: str) -> datetime:
    """The first instant of the local day."""
    return midnight(day, timezone)


def ends(day: date, timezone: str) -> datetime:
    """The first instant after the local day."""
    return midnight(day + timedelta(days=1), timezone)
