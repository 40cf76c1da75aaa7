"""Charges, refunds and the provider's balance: what really happened."""

from typing import Any

from flask import Blueprint, g

from tests.fakes.provider import cards
from tests.fakes.provider.context import emit, parameters, reply, store
from tests.fakes.provider.errors import invalid, missing
from tests.fakes.provider.parameters import LIST, integer, one_of, strings, text
from tests.fakes.provider.store import Object

bp = Blueprint("charges", __name__, url_prefix="/v1")
REASONS = ("duplicate", "fraudulent", "requested_by_customer")
REFUND = {"payment_intent": text, "charge": text, "amount": integer, "reason": one_of(*REASONS), "metadata": strings}


@bp.get("/charges")
def list_charges() -> Object:
    """List, all, of a customer or of a payment intent."""
    values = parameters(LIST | {"customer": text, "payment_intent": text})
    matching = {name: values.get(name) for name in ("customer", "payment_intent")}
    return reply(store().page("charge", "/v1/charges", values, **matching))


@bp.get("/charges/<identity>")
def retrieve_charge(identity: str) -> Object:
    """Retrieve a charge."""
    parameters({})
    return reply(store().get("charge", identity))


@bp.get("/balance_transactions")
def list_balance_transactions() -> Object:
    """List what moved the balance."""
    values = parameters(LIST | {"type": text, "source": text, "currency": text})
    matching = {name: values.get(name) for name in ("type", "source", "currency")}
    return reply(store().page("balance_transaction", "/v1/balance_transactions", values, **matching))


@bp.get("/balance_transactions/<identity>")
def retrieve_balance_transaction(identity: str) -> Object:
    """Retrieve one movement of the balance."""
    parameters({})
    return reply(store().get("balance_transaction", identity))


@bp.get("/events")
def list_events() -> Object:
    """List events of the last 30 days, all or of a type."""
    values = parameters(LIST | {"type": text})
    oldest = store().now() - 30 * 86_400
    bounds = values.get("created", {})
    values["created"] = bounds | {"gte": max(oldest, bounds.get("gte", 0))}
    return reply(store().page("event", "/v1/events", values, type=values.get("type")))


@bp.get("/events/<identity>")
def retrieve_event(identity: str) -> Object:
    """Retrieve an event."""
    parameters({})
    return reply(store().get("event", identity))


@bp.post("/refunds")
def create_refund() -> Object:
    """Give back a part of a charge, or the rest of it; never more than it still holds."""
    values = parameters(REFUND)
    charge = _charge_of(values)
    left = charge["amount"] - charge["amount_refunded"]
    if left == 0:
        raise invalid(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    amount = values.get("amount", left)
    if amount < 1:
        raise invalid("This value must be greater than or equal to 1.", param="amount", code="parameter_invalid_integer")
    if amount > left:
        raise invalid(f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", param="amount")
    identity = store().new_id("re")
    refund = store().put(
        {
            "id": identity,
            "object": "refund",
            "amount": amount,
            "balance_transaction": _move(identity, "refund", -amount, 0, charge["currency"])["id"],
            "charge": charge["id"],
            "created": store().now(),
            "currency": charge["currency"],
            "metadata": values.get("metadata", {}),
            "payment_intent": charge["payment_intent"],
            "reason": values.get("reason"),
            "status": "succeeded",
        }
    )
    changed = charge | {"amount_refunded": charge["amount_refunded"] + amount, "refunded": amount == left}
    store().put(changed)
    store().append(
        "refunded",
        refund=identity,
        charge=charge["id"],
        amount=amount,
        currency=charge["currency"],
        at=store().now(),
        idempotency_key=g.get("idempotency_key"),
    )
    emit("refund.created", refund)
    emit("charge.refunded", changed)
    return reply(refund)


@bp.get("/refunds")
def list_refunds() -> Object:
    """List, all, of a charge or of a payment intent."""
    values = parameters(LIST | {"charge": text, "payment_intent": text})
    matching = {name: values.get(name) for name in ("charge", "payment_intent")}
    return reply(store().page("refund", "/v1/refunds", values, **matching))


@bp.get("/refunds/<identity>")
def retrieve_refund(identity: str) -> Object:
    """Retrieve a refund."""
    parameters({})
    return reply(store().get("refund", identity))


def charge_succeeded(intent: Object, method: Object) -> Object:
    """Move the money: a charge, a row in the record, the balance, the intent."""
    identity = store().new_id("ch")
    fee = (intent["amount"] * 29 + 500) // 1000 + 30
    charge = _charge(identity, intent, method, paid=True)
    charge["balance_transaction"] = _move(identity, "charge", intent["amount"], fee, intent["currency"])["id"]
    store().put(charge)
    store().append(
        "charged",
        charge=identity,
        payment_intent=intent["id"],
        attempt=intent["metadata"].get("attempt_id"),
        customer=intent["customer"],
        payment_method=method["id"],
        amount=intent["amount"],
        currency=intent["currency"],
        at=store().now(),
        idempotency_key=g.get("idempotency_key"),
    )
    if method["customer"] is None:
        store().put(method | {"_used_up": True})
    done = store().put(
        intent
        | {
            "status": "succeeded",
            "latest_charge": identity,
            "amount_received": intent["amount"],
            "last_payment_error": None,
            "next_action": None,
        }
    )
    emit("charge.succeeded", charge)
    emit("payment_intent.succeeded", done)
    return done


def charge_failed(intent: Object, method: Object, decline_code: str, message: str | None = None) -> Object:
    """Nothing moves; the intent waits for another payment method and says why."""
    identity = store().new_id("ch")
    error = dict(cards.refusal(decline_code).body["error"]) | {"charge": identity, "payment_method": method}
    if message:
        error = {"type": "card_error", "code": decline_code, "message": message, "payment_method": method}
    charge = _charge(identity, intent, method, paid=False) | {"failure_code": error["code"], "failure_message": error["message"]}
    store().put(charge)
    failed = store().put(
        intent
        | {
            "status": "requires_payment_method",
            "payment_method": None,
            "latest_charge": identity,
            "last_payment_error": error,
            "next_action": None,
        }
    )
    emit("charge.failed", charge)
    emit("payment_intent.payment_failed", failed)
    return failed


def _charge(identity: str, intent: Object, method: Object, *, paid: bool) -> Object:
    return {
        "id": identity,
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"] if paid else 0,
        "amount_refunded": 0,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "captured": paid,
        "created": store().now(),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_code": None,
        "failure_message": None,
        "livemode": False,
        "metadata": intent["metadata"],
        "paid": paid,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {"card": {name: method["card"][name] for name in ("brand", "last4")}, "type": "card"},
        "receipt_email": intent["receipt_email"],
        "refunded": False,
        "status": "succeeded" if paid else "failed",
    }


def _charge_of(values: dict[str, Any]) -> Object:
    if ("charge" in values) == ("payment_intent" in values):
        raise invalid("One of the following params should be provided for this request: payment_intent or charge.")
    if "charge" in values:
        charge = store().get("charge", values["charge"], "charge")
    else:
        intent = store().get("payment_intent", values["payment_intent"], "payment_intent")
        if intent["status"] != "succeeded":
            raise invalid("This PaymentIntent does not have a successful charge to refund.", param="payment_intent")
        charge = store().get("charge", intent["latest_charge"])
    if not charge["paid"]:
        raise missing("charge", charge["id"], "charge")
    return charge


def _move(source: str, kind: str, amount: int, fee: int, currency: str) -> Object:
    """One movement of the balance. The fee is 2.9 % and 30 minor units."""
    return store().put(
        {
            "id": store().new_id("txn"),
            "object": "balance_transaction",
            "amount": amount,
            "available_on": store().now() + 2 * 86_400,
            "created": store().now(),
            "currency": currency,
            "fee": fee,
            "net": amount - fee,
            "source": source,
            "status": "pending",
            "type": kind,
        }
    )
