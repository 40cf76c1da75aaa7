"""Reading a price's JSON: amounts as decimal strings, keys that are known, and a fault that names its place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal

from core.money import parse_decimal


class RuleError(ValueError):
    """A price model's JSON is wrong: `pointer` is the JSON pointer of the value, `detail` says what it must be."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer or '/'}: {detail}")
        self.pointer = pointer
        self.detail = detail


@contextmanager
def within(pointer: str) -> Iterator[None]:
    """Faults found inside are those of the value at `pointer`."""
    try:
        yield
    except RuleError as error:
        raise RuleError(pointer + error.pointer, error.detail) from None


def listed(data: Mapping[str, object], key: str, *, least: int = 1, most: int) -> list[Mapping[str, object]]:
    """The list of objects under `key`."""
    items = data.get(key)
    if not isinstance(items, list) or not least <= len(items) <= most:
        raise RuleError(f"/{key}", f"must be a list of {least} to {most} objects")
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise RuleError(f"/{key}/{i}", "must be an object")
    return items


def positive(data: Mapping[str, object], key: str, pointer: str = "") -> Decimal:
    """As `amount`, more than 0."""
    value = amount(data, key, pointer)
    if value == 0:
        raise RuleError(f"{pointer}/{key}", "must be more than 0")
    return value


def maybe(data: Mapping[str, object], key: str, pointer: str = "") -> Decimal | None:
    """As `amount`; None where it is absent or null."""
    return None if data.get(key) is None else amount(data, key, pointer)


def amount(data: Mapping[str, object], key: str, pointer: str = "", default: Decimal | None = None) -> Decimal:
    """A decimal that is not negative, at most 14 digits and 18 places; `default` where it is absent."""
    value = data.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RuleError(f"{pointer}/{key}", "is missing" if key not in data else 'must be a decimal string, such as "0.25"')
    try:
        return parse_decimal(value, places=18)
    except ValueError as error:
        raise RuleError(f"{pointer}/{key}", str(error)) from None


def only(data: Mapping[str, object], known: set[str], pointer: str = "") -> None:
    """No keys but these."""
    for key in data:
        if key not in known:
            raise RuleError(f"{pointer}/{key}", f"is not a key here; known: {', '.join(sorted(known))}")
