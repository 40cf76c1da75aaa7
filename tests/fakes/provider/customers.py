"""Customers and the payment methods that are saved for them."""

import hashlib
from typing import Any

from flask import Blueprint

from tests.fakes.provider import cards
from tests.fakes.provider.context import emit, parameters, reply, store
from tests.fakes.provider.errors import declined, invalid
from tests.fakes.provider.parameters import LIST, anything, integer, one_of, optional_text, strings, text
from tests.fakes.provider.store import Object

bp = Blueprint("customers", __name__, url_prefix="/v1")
ADDRESS = dict.fromkeys(("line1", "line2", "city", "state", "postal_code", "country"), optional_text)
CUSTOMER = {
    "name": optional_text,
    "email": optional_text,
    "description": optional_text,
    "phone": optional_text,
    "metadata": strings,
    "address": ADDRESS,
    "invoice_settings": {"default_payment_method": optional_text},
    "preferred_locales": anything,
}
CARD = {"number": text, "exp_month": integer, "exp_year": integer, "cvc": text, "token": text}
PAYMENT_METHOD = {
    "type": one_of("card"),
    "card": CARD,
    "billing_details": {"name": optional_text, "email": optional_text, "phone": optional_text, "address": ADDRESS},
    "metadata": strings,
}


@bp.post("/customers")
def create_customer() -> Object:
    """Create a customer."""
    values = parameters(CUSTOMER)
    made = _customer(store().new_id("cus"), values) | {"created": store().now()}
    emit("customer.created", store().put(made))
    return reply(made)


@bp.get("/customers")
def list_customers() -> Object:
    """List customers, all or with one e-mail address."""
    values = parameters(LIST | {"email": text})
    return reply(store().page("customer", "/v1/customers", values, email=values.get("email")))


@bp.get("/customers/<identity>")
def retrieve_customer(identity: str) -> Object:
    """Retrieve a customer."""
    parameters({})
    return reply(store().get("customer", identity))


@bp.post("/customers/<identity>")
def update_customer(identity: str) -> Object:
    """Change what is given; keys of metadata are merged, an empty one is removed."""
    old = store().get("customer", identity)
    values = parameters(CUSTOMER)
    metadata = {key: value for key, value in (old["metadata"] | values.get("metadata", {})).items() if value != ""}
    changed = old | values | {"metadata": metadata}
    emit("customer.updated", store().put(changed))
    return reply(changed)


@bp.get("/customers/<identity>/payment_methods")
def list_of_customer(identity: str) -> Object:
    """List the payment methods of a customer."""
    store().get("customer", identity)
    values = parameters(LIST | {"type": text})
    url = f"/v1/customers/{identity}/payment_methods"
    return reply(store().page("payment_method", url, values, customer=identity, type=values.get("type")))


@bp.post("/payment_methods")
def create_payment_method() -> Object:
    """Create a payment method from a test card's number or token. It belongs to nobody yet."""
    values = parameters(PAYMENT_METHOD, "type")
    given = values.get("card", {})
    number = cards.TOKENS.get(given.get("token", ""), given.get("number", "")).replace(" ", "")
    if "token" in given and given["token"] not in cards.TOKENS:
        raise invalid(f"No such token: '{given['token']}'", param="card[token]", code="resource_missing")
    if number not in cards.CARDS:
        raise declined("incorrect_number", "Your card number is incorrect.", param="number")
    return reply(make_payment_method(number, values))


@bp.get("/payment_methods")
def list_payment_methods() -> Object:
    """List payment methods of a customer."""
    values = parameters(LIST | {"customer": text, "type": text})
    if "customer" in values:
        store().get("customer", values["customer"], "customer")
    return reply(
        store().page("payment_method", "/v1/payment_methods", values, customer=values.get("customer", ""), type=values.get("type"))
    )


@bp.get("/payment_methods/<identity>")
def retrieve_payment_method(identity: str) -> Object:
    """Retrieve a payment method."""
    parameters({})
    return reply(store().get("payment_method", identity))


@bp.post("/payment_methods/<identity>/attach")
def attach(identity: str) -> Object:
    """Save a payment method for a customer. The card is checked: one that is declined is not saved."""
    values = parameters({"customer": text}, "customer")
    return reply(save_for(payment_method(identity), values["customer"]))


@bp.post("/payment_methods/<identity>/detach")
def detach(identity: str) -> Object:
    """Forget a payment method; it can not be used again."""
    found = store().get("payment_method", identity)
    parameters({})
    if found["customer"] is None:
        raise invalid("The payment method you provided is not attached to a customer so detachment is impossible.", param="payment_method")
    changed = found | {"customer": None, "_used_up": True}
    emit("payment_method.detached", store().put(changed))
    return reply(changed)


def payment_method(identity: str, param: str = "payment_method") -> Object:
    """The payment method of an id, or a new one for a test token such as `pm_card_visa`."""
    if identity in cards.TOKENS:
        return make_payment_method(cards.TOKENS[identity], {})
    found = store().get("payment_method", identity, param)
    if found["_used_up"]:
        raise invalid(
            "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, or was detached from a"
            " Customer. It may not be used again.",
            param=param,
        )
    return found


def make_payment_method(number: str, values: dict[str, Any]) -> Object:
    """A new payment method of a test card; keys that begin with `_` are the provider's own and never sent."""
    card = cards.CARDS[number]
    given = values.get("card", {})
    details = {"address": None, "email": None, "name": None, "phone": None} | values.get("billing_details", {})
    return store().put(
        {
            "id": store().new_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": details,
            "card": {
                "brand": card.brand,
                "checks": {"cvc_check": "pass"},
                "country": "US",
                "exp_month": given.get("exp_month", 12),
                "exp_year": given.get("exp_year", 2034),
                "fingerprint": hashlib.sha256(number.encode()).hexdigest()[:16],
                "funding": "credit",
                "last4": number[-4:],
                "three_d_secure_usage": {"supported": True},
            },
            "created": store().now(),
            "customer": None,
            "livemode": False,
            "metadata": values.get("metadata", {}),
            "type": "card",
            "_number": number,
            "_saved_with_confirmation": False,
            "_used_up": False,
        }
    )


def save_for(method: Object, customer: str, *, confirmed: bool = False) -> Object:
    """Save a payment method for a customer, or refuse the card. `confirmed`: the bank asked the cardholder while saving."""
    store().get("customer", customer, "customer")
    if method["customer"] not in (None, customer):
        raise invalid("The payment method you provided has already been attached to a customer.", code="payment_method_unexpected_state")
    refused = cards.CARDS[method["_number"]].saving
    if refused:
        raise cards.refusal(refused)
    saved = method | {"customer": customer, "_saved_with_confirmation": method["_saved_with_confirmation"] or confirmed}
    emit("payment_method.attached", store().put(saved))
    return saved


def _customer(identity: str, values: dict[str, Any]) -> Object:
    blank = dict.fromkeys(("address", "currency", "default_source", "description", "email", "name", "phone"))
    return {
        "id": identity,
        "object": "customer",
        **blank,
        "balance": 0,
        "delinquent": False,
        "invoice_settings": {"default_payment_method": None},
        "livemode": False,
        "metadata": {},
        "preferred_locales": [],
        **values,
    }
