"""What a refused event says of itself, as far as it can be read. Pure."""

from __future__ import annotations

import msgspec

from core.metering.wire import NAME_FIELDS

NAME_MAX, KEY_MAX = 100, 255


def names(event: bytes) -> tuple[str | None, str | None]:
    """(event name, idempotency key) of an event as it was sent; None for what is no text, or where nothing can be read."""
    try:
        given = msgspec.json.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, None
    if not isinstance(given, dict):
        return None, None
    name = next((given[field] for field in NAME_FIELDS if isinstance(given.get(field), str)), None)
    key = given.get("idempotency_key")
    return _storable(name, NAME_MAX), _storable(key if isinstance(key, str) else None, KEY_MAX)


def _storable(text: str | None, length: int) -> str | None:
    return text.replace("\0", "")[:length] if text is not None else None
