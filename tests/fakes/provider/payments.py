"""Payment intents: the only place where money moves."""

import re
from typing import Any

from flask import Blueprint, g

from tests.fakes.provider import cards
from tests.fakes.provider.charges import charge_failed, charge_succeeded
from tests.fakes.provider.context import address, emit, parameters, reply, store
from tests.fakes.provider.customers import payment_method
from tests.fakes.provider.errors import invalid
from tests.fakes.provider.parameters import LIST, anything, boolean, integer, one_of, optional_text, strings, text, texts
from tests.fakes.provider.store import Object

bp = Blueprint("payments", __name__, url_prefix="/v1/payment_intents")
METHODS = {"enabled": boolean, "allow_redirects": one_of("always", "never")}
CONFIRM = {
    "payment_method": text,
    "off_session": boolean,
    "return_url": text,
    "error_on_requires_action": boolean,
    "mandate_data": anything,
    "receipt_email": optional_text,
}
INTENT = CONFIRM | {
    "amount": integer,
    "currency": text,
    "customer": text,
    "confirm": boolean,
    "description": optional_text,
    "metadata": strings,
    "payment_method_types": texts,
    "automatic_payment_methods": METHODS,
    "statement_descriptor_suffix": text,
    "setup_future_usage": one_of("off_session", "on_session"),
    "capture_method": one_of("automatic", "automatic_async"),
}
MINIMUM = {"usd": 50, "eur": 50, "chf": 50, "aud": 50, "cad": 50, "nzd": 50, "sgd": 50, "gbp": 30, "jpy": 50, "sek": 300, "nok": 300}
MINIMUM |= {"dkk": 250, "pln": 200, "ron": 200, "czk": 1500, "huf": 17_500, "hkd": 400, "mxn": 1000, "myr": 200, "aed": 200, "bgn": 100}
MAXIMUM = 99_999_999
TWO_ZEROS = {"isk", "ugx"}  # their decimals exist for compatibility only and must be 00
ONE_ZERO = {"bhd", "jod", "kwd", "omr", "tnd"}
OPEN = ("requires_payment_method", "requires_confirmation", "requires_action")


@bp.post("")
def create() -> Object:
    """Create, and with `confirm` charge at once."""
    values = parameters(INTENT, "amount", "currency")
    _check_amount(values["amount"], values["currency"])
    if "customer" in values:
        store().get("customer", values["customer"], "customer")
    if "off_session" in values and not values.get("confirm"):
        raise invalid("You can only pass off_session=true when confirm=true.", param="off_session")
    if values.get("automatic_payment_methods", {}).get("enabled") and "payment_method_types" in values:
        raise invalid("You may only specify one of these parameters: automatic_payment_methods, payment_method_types.")
    method = payment_method(values["payment_method"]) if "payment_method" in values else None
    _check_owner(method, values.get("customer"))
    if values.get("confirm"):
        _check_confirmable(values, method)
    intent = _intent(values, method)
    emit("payment_intent.created", store().put(intent))
    return reply(_attempt(intent, method, values) if method and values.get("confirm") else intent)


@bp.get("")
def list_payment_intents() -> Object:
    """List, all or of a customer."""
    values = parameters(LIST | {"customer": text})
    return reply(store().page("payment_intent", "/v1/payment_intents", values, customer=values.get("customer")))


@bp.get("/search")
def search() -> Object:
    """Find by `metadata['key']:'value'`. The real index lags behind by up to a minute; here by nothing."""
    values = parameters({"query": text, "limit": integer, "page": text}, "query")
    clause = re.fullmatch(r"""metadata\[["']([^"']+)["']\]:["']([^"']*)["']""", values["query"])
    if clause is None:
        raise invalid("We were unable to parse your search query.", param="query")
    found = [thing for thing in reversed(store().all("payment_intent")) if thing["metadata"].get(clause[1]) == clause[2]]
    return {"object": "search_result", "url": "/v1/payment_intents/search", "has_more": False, "next_page": None, "data": found}


@bp.get("/<identity>")
def retrieve(identity: str) -> Object:
    """Retrieve a payment intent."""
    parameters({"client_secret": text})
    return reply(store().get("payment_intent", identity))


@bp.post("/<identity>/confirm")
def confirm(identity: str) -> Object:
    """Charge."""
    intent = store().get("payment_intent", identity)
    values = parameters(CONFIRM)
    if intent["status"] not in OPEN:
        raise invalid(
            f"You cannot confirm this PaymentIntent because it has a status of {intent['status']}.",
            code="payment_intent_unexpected_state",
            payment_intent=intent,
        )
    chosen = values.get("payment_method", intent["payment_method"])
    method = payment_method(chosen) if chosen else None
    _check_owner(method, intent["customer"])
    _check_confirmable(intent | values, method)
    return reply(_attempt(intent, method, values) if method else intent)


@bp.post("/<identity>/cancel")
def cancel(identity: str) -> Object:
    """Stop one that has not succeeded."""
    intent = store().get("payment_intent", identity)
    values = parameters({"cancellation_reason": one_of("duplicate", "fraudulent", "requested_by_customer", "abandoned")})
    if intent["status"] not in OPEN:
        raise invalid(
            f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}.",
            code="payment_intent_unexpected_state",
            payment_intent=intent,
        )
    reason = values.get("cancellation_reason")
    stopped = store().put(intent | {"status": "canceled", "canceled_at": store().now(), "cancellation_reason": reason, "next_action": None})
    emit("payment_intent.canceled", stopped)
    return reply(stopped)


def settle(intent: Object, *, confirmed: bool) -> Object:
    """The cardholder answered the bank on the hosted page."""
    method = store().get("payment_method", intent["payment_method"])
    if not confirmed:
        message = "The provided PaymentMethod has failed authentication."
        return charge_failed(intent, method, "payment_intent_authentication_failure", message)
    refused = cards.CARDS[method["_number"]].charging
    if refused:
        return charge_failed(intent, method, refused)
    return charge_succeeded(intent, method)


def _attempt(intent: Object, method: Object, values: dict[str, Any]) -> Object:
    """Charge the card, or find out why not; a refused card is an error that carries the intent."""
    card = cards.CARDS[method["_number"]]
    mode = g.get("mode") or ""
    intent = intent | {"payment_method": method["id"], "next_action": None}
    refused = mode.removeprefix("decline:") if mode.startswith("decline:") else card.charging
    if refused:
        raise cards.refusal(refused, payment_intent=charge_failed(intent, method, refused))
    asks = card.confirm == "always" or (card.confirm == "unless_saved_with" and not method["_saved_with_confirmation"])
    if asks or mode == "requires_action":
        if values.get("off_session") or values.get("error_on_requires_action"):
            code = "authentication_required"
            raise cards.refusal(code, payment_intent=charge_failed(intent, method, code))
        return _ask(intent, values.get("return_url"))
    if mode == "processing":
        waiting = store().put(intent | {"status": "processing"})
        emit("payment_intent.processing", waiting)
        return waiting
    return charge_succeeded(intent, method)


def _ask(intent: Object, return_url: str | None) -> Object:
    """The bank wants the cardholder: give the page where they confirm, or leave it to the provider's script."""
    if return_url:
        page = {"url": address(f"/hosted/confirm/{intent['id']}"), "return_url": return_url}
        action: Object = {"type": "redirect_to_url", "redirect_to_url": page}
    else:
        action = {"type": "use_stripe_sdk", "use_stripe_sdk": {}}
    asked = store().put(intent | {"status": "requires_action", "next_action": action})
    emit("payment_intent.requires_action", asked)
    return asked


def _check_amount(amount: int, currency: str) -> None:
    if not re.fullmatch(r"[a-zA-Z]{3}", currency):
        raise invalid(f"Invalid currency: {currency}.", param="currency")
    currency = currency.lower()
    if amount < 1:
        raise invalid("This value must be greater than or equal to 1.", param="amount", code="parameter_invalid_integer")
    if amount < MINIMUM.get(currency, 1):
        raise invalid("The amount is below the minimum charge amount for the currency.", param="amount", code="amount_too_small")
    if amount > MAXIMUM:
        raise invalid(f"Amount must be no more than {MAXIMUM}.", param="amount", code="amount_too_large")
    if (currency in TWO_ZEROS and amount % 100) or (currency in ONE_ZERO and amount % 10):
        raise invalid(f"Invalid amount for {currency}: its last digits must be zero.", param="amount", code="invalid_charge_amount")


def _check_owner(method: Object | None, customer: str | None) -> None:
    if method and method["customer"] and method["customer"] != customer:
        raise invalid(
            "The provided PaymentMethod belongs to a Customer. Include that Customer in the `customer` parameter.",
            param="payment_method",
        )


def _check_confirmable(values: dict[str, Any], method: Object | None) -> None:
    if method is None:
        raise invalid(
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            param="payment_method",
            code="payment_intent_unexpected_state",
        )
    if "payment_method_types" in values and method["type"] not in values["payment_method_types"]:
        raise invalid("The PaymentMethod provided is not allowed for this PaymentIntent.", param="payment_method")
    automatic = values.get("automatic_payment_methods") or {}
    listed = "payment_method_types" in values and not automatic.get("enabled")
    if not listed and automatic.get("allow_redirects") != "never" and not values.get("return_url"):
        raise invalid(
            "This PaymentIntent accepts payment methods that might redirect your customer, so you must provide a `return_url`,"
            " list `payment_method_types`, or set `automatic_payment_methods[allow_redirects]` to `never`.",
            param="return_url",
        )


def _intent(values: dict[str, Any], method: Object | None) -> Object:
    identity = store().new_id("pi")
    blank = dict.fromkeys(("canceled_at", "cancellation_reason", "last_payment_error", "latest_charge", "next_action", "review"))
    automatic = values.get("automatic_payment_methods", None if "payment_method_types" in values else {"enabled": True})
    return {
        "id": identity,
        "object": "payment_intent",
        **blank,
        "amount": values["amount"],
        "amount_capturable": 0,
        "amount_received": 0,
        "automatic_payment_methods": automatic,
        "capture_method": values.get("capture_method", "automatic_async"),
        "client_secret": store().new_id(f"{identity}_secret"),
        "confirmation_method": "automatic",
        "created": store().now(),
        "currency": values["currency"].lower(),
        "customer": values.get("customer"),
        "description": values.get("description"),
        "livemode": False,
        "metadata": values.get("metadata", {}),
        "payment_method": method["id"] if method else None,
        "payment_method_types": values.get("payment_method_types", ["card"]),
        "receipt_email": values.get("receipt_email"),
        "setup_future_usage": values.get("setup_future_usage"),
        "statement_descriptor_suffix": values.get("statement_descriptor_suffix"),
        "status": "requires_confirmation" if method else "requires_payment_method",
    }
