"""What the texts of the environment say: each function reads a variable's text, or raises ValueError with what it must be."""

from __future__ import annotations

import re
from decimal import Decimal

SECRET_LENGTH_MIN = 32


def strings(text: str) -> tuple[str, ...]:
    """Texts between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def count(text: str) -> int:
    """A whole number, 0 or more."""
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ValueError("must be a whole number, 0 or more")
    return int(text)


def at_least_one(text: str) -> int:
    """A whole number, 1 or more."""
    if number := count(text):
        return number
    raise ValueError("must be 1 or more")


def hour(text: str) -> int | None:
    """An hour of the day, or None for never."""
    if text == "never":
        return None
    if not re.fullmatch(r"[01]?[0-9]|2[0-3]", text):
        raise ValueError("must be an hour from 0 to 23 (UTC), or never")
    return int(text)


def seconds(text: str) -> Decimal:
    """Seconds, with a fraction."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
        raise ValueError("must be a number of seconds such as 0.15")
    return Decimal(text)


def yes(text: str) -> bool:
    """Whether it says yes."""
    if text not in ("yes", "no"):
        raise ValueError("must be yes or no")
    return text == "yes"


def secret(text: str) -> str:
    """A text too long to be guessed."""
    if len(text) < SECRET_LENGTH_MIN:
        raise ValueError(f"must have {SECRET_LENGTH_MIN} characters or more")
    return text
