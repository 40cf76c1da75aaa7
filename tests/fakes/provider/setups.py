"""Saving a payment method: setup intents, and the hosted page in mode `setup`."""

from typing import Any

from flask import Blueprint

from tests.fakes.provider import cards
from tests.fakes.provider.context import address, emit, parameters, reply, store
from tests.fakes.provider.customers import payment_method, save_for
from tests.fakes.provider.errors import ApiError, invalid
from tests.fakes.provider.parameters import LIST, anything, boolean, integer, one_of, strings, text, texts
from tests.fakes.provider.store import Object

bp = Blueprint("setups", __name__, url_prefix="/v1")
METHODS = {"enabled": boolean, "allow_redirects": one_of("always", "never")}
INTENT = {
    "customer": text,
    "payment_method": text,
    "payment_method_types": texts,
    "automatic_payment_methods": METHODS,
    "usage": one_of("off_session", "on_session"),
    "confirm": boolean,
    "return_url": text,
    "description": text,
    "metadata": strings,
}
SESSION = {
    "mode": one_of("setup"),
    "customer": text,
    "currency": text,
    "payment_method_types": texts,
    "success_url": text,
    "cancel_url": text,
    "client_reference_id": text,
    "locale": text,
    "expires_at": integer,
    "metadata": strings,
    "setup_intent_data": {"description": text, "metadata": strings},
    "custom_text": anything,
}


@bp.post("/setup_intents")
def create_setup_intent() -> Object:
    """Create, and with `confirm` try at once."""
    values = parameters(INTENT)
    if "customer" in values:
        store().get("customer", values["customer"], "customer")
    intent = make_setup_intent(values)
    emit("setup_intent.created", intent)
    if values.get("confirm"):
        intent = confirm_setup(intent, values.get("payment_method"), values.get("return_url"))
    return reply(intent)


@bp.get("/setup_intents")
def list_setup_intents() -> Object:
    """List, all or of a customer."""
    values = parameters(LIST | {"customer": text, "payment_method": text})
    return reply(store().page("setup_intent", "/v1/setup_intents", values, customer=values.get("customer")))


@bp.get("/setup_intents/<identity>")
def retrieve_setup_intent(identity: str) -> Object:
    """Retrieve a setup intent."""
    parameters({"client_secret": text})
    return reply(store().get("setup_intent", identity))


@bp.post("/setup_intents/<identity>/confirm")
def confirm_setup_intent(identity: str) -> Object:
    """Save the payment method, or ask the cardholder to confirm with the bank."""
    values = parameters({"payment_method": text, "return_url": text, "mandate_data": anything})
    return reply(confirm_setup(store().get("setup_intent", identity), values.get("payment_method"), values.get("return_url")))


@bp.post("/setup_intents/<identity>/cancel")
def cancel_setup_intent(identity: str) -> Object:
    """Give up."""
    values = parameters({"cancellation_reason": text})
    intent = store().get("setup_intent", identity)
    if intent["status"] in ("succeeded", "canceled"):
        message = f"You cannot cancel this SetupIntent because it has a status of {intent['status']}."
        raise invalid(message, code="setup_intent_unexpected_state")
    changed = store().put(intent | {"status": "canceled", "next_action": None, "cancellation_reason": values.get("cancellation_reason")})
    emit("setup_intent.canceled", changed)
    return reply(changed)


@bp.post("/checkout/sessions")
def create_session() -> Object:
    """Open a hosted page that saves a payment method."""
    values = parameters(SESSION, "mode", "success_url")
    if "currency" not in values and "payment_method_types" not in values:
        raise invalid("You must provide `currency` or `payment_method_types` in `setup` mode.", param="currency", code="parameter_missing")
    if "customer" in values:
        store().get("customer", values["customer"], "customer")
    data = values.get("setup_intent_data", {})
    intent = make_setup_intent({"customer": values.get("customer"), "usage": "off_session", **data})
    identity = store().new_id("cs_test")
    session = {
        "id": identity,
        "object": "checkout.session",
        "cancel_url": None,
        "client_reference_id": None,
        "created": store().now(),
        "currency": None,
        "customer": None,
        "expires_at": store().now() + 86_400,
        "livemode": False,
        "metadata": {},
        "payment_intent": None,
        "payment_method_types": ["card"],
        "payment_status": "no_payment_required",
        "setup_intent": intent["id"],
        "status": "open",
        "url": address(f"/hosted/setup/{identity}"),
        **{name: value for name, value in values.items() if name not in ("setup_intent_data", "custom_text")},
    }
    return reply(store().put(session))


@bp.get("/checkout/sessions/<identity>")
def retrieve_session(identity: str) -> Object:
    """Retrieve a hosted page's state."""
    parameters({})
    return reply(current_session(identity))


@bp.post("/checkout/sessions/<identity>/expire")
def expire_session(identity: str) -> Object:
    """Close a hosted page."""
    parameters({})
    session = current_session(identity)
    if session["status"] != "open":
        raise invalid(f'Only Checkout Sessions with a status in ["open"] can be expired. This one is {session["status"]}.')
    return reply(_expire(session))


def current_session(identity: str) -> Object:
    """The session of an id; one whose time is over is closed first."""
    session = store().get("checkout.session", identity)
    if session["status"] == "open" and session["expires_at"] <= store().now():
        with store().change():
            return _expire(session)
    return session


def _expire(session: Object) -> Object:
    closed = store().put(session | {"status": "expired", "url": None})
    emit("checkout.session.expired", closed)
    return closed


def complete_session(session: Object, intent: Object) -> Object:
    """Close a hosted page whose payment method is saved."""
    done = store().put(session | {"status": "complete", "url": None, "setup_intent": intent["id"]})
    emit("checkout.session.completed", done)
    return done


def make_setup_intent(values: dict[str, Any]) -> Object:
    """A new setup intent, not tried yet."""
    identity = store().new_id("seti")
    method = values.get("payment_method")
    return store().put(
        {
            "id": identity,
            "object": "setup_intent",
            "automatic_payment_methods": values.get("automatic_payment_methods"),
            "cancellation_reason": None,
            "client_secret": store().new_id(f"{identity}_secret"),
            "created": store().now(),
            "customer": values.get("customer"),
            "description": values.get("description"),
            "last_setup_error": None,
            "latest_attempt": None,
            "livemode": False,
            "metadata": values.get("metadata", {}),
            "next_action": None,
            "payment_method": payment_method(method)["id"] if method else None,
            "payment_method_types": values.get("payment_method_types", ["card"]),
            "status": "requires_confirmation" if method else "requires_payment_method",
            "usage": values.get("usage", "off_session"),
        }
    )


def confirm_setup(intent: Object, method_id: str | None, return_url: str | None) -> Object:
    """Try to save the payment method for the intent's customer."""
    if intent["status"] in ("succeeded", "canceled", "processing"):
        raise invalid(
            f"You cannot confirm this SetupIntent because it has a status of {intent['status']}.", code="setup_intent_unexpected_state"
        )
    chosen = method_id or intent["payment_method"]
    if not chosen:
        raise invalid("You cannot confirm this SetupIntent because it's missing a payment method.", code="setup_intent_unexpected_state")
    method = payment_method(chosen)
    if cards.CARDS[method["_number"]].confirm:
        action = {
            "type": "redirect_to_url",
            "redirect_to_url": {"url": address(f"/hosted/confirm/{intent['id']}"), "return_url": return_url},
        }
        changed = intent | {"status": "requires_action", "payment_method": method["id"], "next_action": action}
        emit("setup_intent.requires_action", store().put(changed))
        return changed
    return save_setup(intent, method)


def save_setup(intent: Object, method: Object, *, confirmed: bool = False) -> Object:
    """Save the payment method and finish the intent, or refuse the card."""
    try:
        if intent["customer"]:
            save_for(method, intent["customer"], confirmed=confirmed)
        elif cards.CARDS[method["_number"]].saving:
            raise cards.refusal(cards.CARDS[method["_number"]].saving)
    except ApiError as error:
        if error.status == 402:
            failed_setup(intent, error)
        raise
    done = intent | {"status": "succeeded", "payment_method": method["id"], "next_action": None, "last_setup_error": None}
    emit("setup_intent.succeeded", store().put(done))
    return done


def failed_setup(intent: Object, error: ApiError) -> Object:
    """Write down why a payment method was not saved; another can be tried."""
    changed = intent | {
        "status": "requires_payment_method",
        "payment_method": None,
        "next_action": None,
        "last_setup_error": dict(error.body["error"]),
    }
    emit("setup_intent.setup_failed", store().put(changed))
    error.body["error"]["setup_intent"] = changed
    return changed
