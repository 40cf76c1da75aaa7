"""Form-encoded parameters: `card[number]=…&expand[0]=…` to nested values, checked against what an endpoint knows."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.fakes.provider.errors import invalid

Spec = dict[str, Any]
_PART = re.compile(r"\[([^\[\]]*)\]")


def nested(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Turn form pairs into nested dictionaries; lists stay dictionaries of position to value until they are checked."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        name, _, rest = key.partition("[")
        path = [name, *_PART.findall("[" + rest if rest else "")]
        here = result
        for part in path[:-1]:
            here = here.setdefault(part, {})
            if not isinstance(here, dict):
                raise invalid(f"Invalid {name}: mixed value and object", param=name)
        last = path[-1] if path[-1] else str(len(here))
        here[last] = value
    return result


def text(value: Any, name: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str):
        raise invalid(f"Invalid string: {value}", param=name)
    if not value:
        raise invalid(
            f"You passed an empty string for '{name}', which would unset it; it cannot be unset.",
            param=name,
            code="parameter_invalid_empty",
        )
    if len(value) > 5000:
        raise invalid("Invalid string: must be at most 5000 characters", param=name)
    return value


def optional_text(value: Any, name: str) -> str | None:
    """A string; the empty one unsets."""
    return text(value, name) if value != "" else None


def integer(value: Any, name: str) -> int:
    """A whole number."""
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise invalid(f"Invalid integer: {value}", param=name, code="parameter_invalid_integer")
    return int(value)


def boolean(value: Any, name: str) -> bool:
    """`true` or `false`."""
    if value not in ("true", "false"):
        raise invalid(f"Invalid boolean: {value}", param=name)
    return bool(value == "true")


def one_of(*allowed: str) -> Callable[[Any, str], str]:
    """One of the words."""

    def check(value: Any, name: str) -> str:
        if value not in allowed:
            raise invalid(f"Invalid {name}: must be one of {', '.join(allowed)}", param=name)
        return str(value)

    return check


def texts(value: Any, name: str) -> list[str]:
    """A list of strings."""
    if not isinstance(value, dict):
        raise invalid("Invalid array", param=name)
    return [text(entry, f"{name}[{position}]") for position, entry in value.items()]


def strings(value: Any, name: str) -> dict[str, str]:
    """Free keys with string values; at most 50, of at most 40 and 500 characters."""
    if value == "":
        return {}
    if not isinstance(value, dict) or any(isinstance(entry, dict) for entry in value.values()):
        raise invalid("Invalid object", param=name)
    if len(value) > 50 or any(len(key) > 40 or len(entry) > 500 for key, entry in value.items()):
        raise invalid(f"{name} can have up to 50 keys of up to 40 characters, with values of up to 500 characters", param=name)
    return dict(value)


def anything(value: Any, name: str) -> Any:
    """A value that is taken and kept as it is."""
    return value


def created(value: Any, name: str) -> dict[str, int]:
    """A timestamp, or bounds gt, gte, lt, lte."""
    if isinstance(value, dict):
        return {key: integer(entry, f"{name}[{key}]") for key, entry in value.items() if one_of("gt", "gte", "lt", "lte")(key, name)}
    moment = integer(value, name)
    return {"gte": moment, "lte": moment}


LIST: Spec = {"limit": integer, "starting_after": text, "ending_before": text, "created": created}


def check(values: Mapping[str, Any], spec: Spec, *, required: tuple[str, ...] = (), prefix: str = "") -> dict[str, Any]:
    """Return the converted values; an unknown or missing parameter is an error, as at the provider."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}[{key}]" if prefix else key
        rule = spec.get(key, texts if name == "expand" else None)
        if rule is None:
            raise invalid(f"Received unknown parameter: {name}", param=name, code="parameter_unknown")
        if isinstance(rule, dict):
            if not isinstance(value, dict):
                raise invalid("Invalid object", param=name)
            result[key] = check(value, rule, prefix=name)
        else:
            result[key] = rule(value, name)
    for key in required:
        if key not in result:
            raise invalid(f"Missing required param: {key}.", param=key, code="parameter_missing")
    return result
