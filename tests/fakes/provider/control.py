"""What tests and demos use beside the provider's API: failure modes, the record of charges, the knobs of delivery, the clock."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from tests.fakes.provider.context import provider, store
from tests.fakes.provider.errors import invalid

bp = Blueprint("control", __name__, url_prefix="/_control")
KNOBS: dict[str, type | tuple[type, ...]] = {
    "url": (str, type(None)),
    "secret": str,
    "dup": int,
    "drop": bool,
    "delay": (int, float),
    "shuffle": bool,
}


@bp.get("/ready")
def ready() -> Response:
    """Answers as soon as requests are taken."""
    return jsonify(ready=True)


@bp.post("/mode")
def add_mode() -> Response:
    """`{"match": {"next": 2}, "mode": "charge_then_drop"}`: put a failure mode in force."""
    values = _body("match", "mode")
    provider().modes.add(values.get("match", {}), values.get("mode"))
    return jsonify(modes=provider().modes.rules())


@bp.get("/mode")
def list_modes() -> Response:
    """The failure modes in force."""
    return jsonify(modes=provider().modes.rules())


@bp.delete("/mode")
def clear_modes() -> Response:
    """Everything works again."""
    provider().modes.clear()
    return jsonify(modes=[])


@bp.get("/charges")
def record() -> Response:
    """The record: each time money moved, oldest first."""
    return jsonify(charges=store().rows("charged"), refunds=store().rows("refunded"))


@bp.get("/deliveries")
def deliveries() -> Response:
    """Every delivery of an event, with the status that the receiver answered (null: nobody there)."""
    return jsonify(deliveries=store().rows("deliveries"), **provider().events.state())


@bp.post("/webhooks")
def configure_webhooks() -> Response:
    """Turn the knobs: url, secret, dup (copies), drop (deliver nothing), delay (seconds), shuffle."""
    values = _body(*KNOBS)
    for name, value in values.items():
        if not isinstance(value, KNOBS[name]):
            raise invalid(f"{name} has the wrong type", param=name)
    provider().events.configure(**values)
    return jsonify(**provider().events.state())


@bp.post("/webhooks/replay")
def replay() -> Response:
    """`{"event": "evt_…", "times": 1}`: deliver an event again."""
    values = _body("event", "times")
    provider().events.send(str(values.get("event")), int(values.get("times", 1)))
    return jsonify(**provider().events.state())


@bp.post("/clock")
def move_clock() -> Response:
    """`{"advance": seconds}`: let the provider's time pass; idempotency keys end after 24 hours of it."""
    seconds = _body("advance").get("advance")
    if not isinstance(seconds, int) or seconds < 0:
        raise invalid("advance must be a number of seconds", param="advance")
    store().clock_ahead += seconds
    return jsonify(now=store().now())


def _body(*known: str) -> dict[str, Any]:
    values = request.get_json(force=True, silent=True)
    if not isinstance(values, dict):
        raise invalid("The body must be a JSON object.")
    unknown = set(values) - set(known)
    if unknown:
        raise invalid(f"Received unknown parameter: {min(unknown)}", param=min(unknown))
    return values
