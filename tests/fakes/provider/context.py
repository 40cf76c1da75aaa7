"""What every endpoint works with: the store, the events, the parameters of the request and its failure mode."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask import current_app, g, request

from tests.fakes.provider.errors import invalid
from tests.fakes.provider.parameters import Spec, check
from tests.fakes.provider.store import Object, Store

if TYPE_CHECKING:
    from tests.fakes.provider.events import Events
    from tests.fakes.provider.modes import Modes


@dataclass(slots=True)
class Provider:
    """The parts of one running provider."""

    store: Store
    events: "Events"
    modes: "Modes"
    in_flight: set[str] = field(default_factory=set)


def provider() -> Provider:
    """The running provider."""
    found: Provider = current_app.extensions["provider"]
    return found


def store() -> Store:
    """Its memory."""
    return provider().store


def emit(kind: str, thing: Object) -> None:
    """Record an event and have it delivered."""
    provider().events.emit(kind, thing, key=g.get("idempotency_key"), request_id=g.get("request_id"))


def parameters(spec: Spec, *required: str) -> dict[str, Any]:
    """The checked parameters of this request."""
    values = check(g.parameters, spec, required=required)
    g.expand = values.pop("expand", [])
    return values


def reply(thing: Object) -> Object:
    """The answer, with the objects that were asked for by `expand[]` in place of their ids."""
    for path in g.get("expand", []):
        parts = path.split(".")
        if parts[0] == "data" and thing["object"] == "list":
            thing = thing | {"data": [_expanded(entry, parts[1:], path) for entry in thing["data"]]}
        else:
            thing = _expanded(thing, parts, path)
    return thing


def _expanded(thing: Object, parts: list[str], path: str) -> Object:
    if not parts:
        return thing
    if parts[0] not in thing:
        raise invalid(f"This property cannot be expanded ({path}).", param="expand")
    value = thing[parts[0]]
    if isinstance(value, str):
        value = store().find(value)
        if value is None:
            raise invalid(f"This property cannot be expanded ({path}).", param="expand")
    if isinstance(value, dict):
        value = _expanded(value, parts[1:], path)
    return thing | {parts[0]: value}


def address(path: str) -> str:
    """The full address of one of the provider's own pages."""
    return request.host_url.rstrip("/") + path
