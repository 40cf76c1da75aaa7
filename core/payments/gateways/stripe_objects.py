"""Stripe's JSON objects, read into the values of `base`. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from core.payments.gateways.base import (
    Card,
    ChargeOutcome,
    ChargeStatus,
    InboundEvent,
    RefundOutcome,
    RefundStatus,
    SetupIntent,
    SetupSession,
    SetupStatus,
)
from core.payments.gateways.stripe_amounts import from_provider

Json = Mapping[str, Any]
ATTEMPT_ID = "attempt_id"
REFUND_ID = "refund_id"

_INTENT_STATUS = {
    "succeeded": ChargeStatus.SUCCEEDED,
    "processing": ChargeStatus.PROCESSING,
    "requires_capture": ChargeStatus.PROCESSING,
    "requires_action": ChargeStatus.REQUIRES_ACTION,
    "canceled": ChargeStatus.DECLINED,
}
_REFUND_STATUS = {
    "succeeded": RefundStatus.SUCCEEDED,
    "pending": RefundStatus.PENDING,
    "requires_action": RefundStatus.PENDING,
    "failed": RefundStatus.FAILED,
    "canceled": RefundStatus.FAILED,
}
_SETUP_STATUS = {"succeeded": SetupStatus.COMPLETE, "canceled": SetupStatus.EXPIRED}


def charge_outcome(intent: Json) -> ChargeOutcome:
    """Read a PaymentIntent.

    One that fell back to `requires_payment_method` was declined, or wants the cardholder, as its last error says. One
    that was never tried says nothing.
    """
    error = intent.get("last_payment_error") or {}
    status = _INTENT_STATUS.get(intent["status"], ChargeStatus.UNKNOWN)
    code = error.get("decline_code") or error.get("code")
    if status is ChargeStatus.UNKNOWN and code:
        status = ChargeStatus.REQUIRES_ACTION if code == "authentication_required" else ChargeStatus.DECLINED
    if intent["status"] == "canceled":
        code = code or "canceled"
    currency = intent["currency"].upper()
    redirect = (intent.get("next_action") or {}).get("redirect_to_url") or {}
    final_good = status is ChargeStatus.SUCCEEDED
    charge = intent.get("latest_charge")
    refunded = charge.get("amount_refunded", 0) if isinstance(charge, Mapping) else 0
    return ChargeOutcome(
        status=status,
        provider_id=intent["id"],
        attempt_id=(intent.get("metadata") or {}).get(ATTEMPT_ID),
        customer=_id(intent.get("customer")),
        payment_method=_id(intent.get("payment_method")) or _id(error.get("payment_method")),
        amount_minor=from_provider(intent["amount_received"] if final_good else intent["amount"], currency),
        currency=currency,
        decline_code=None if final_good else code,
        message=None if final_good else error.get("message"),
        next_action_url=redirect.get("url"),
        refunded_minor=from_provider(refunded, currency),
        created=_moment(intent["created"]),
    )


def refund_outcome(refund: Json) -> RefundOutcome:
    """Read a Refund."""
    currency = refund["currency"].upper()
    return RefundOutcome(
        status=_REFUND_STATUS.get(refund["status"], RefundStatus.UNKNOWN),
        provider_id=refund["id"],
        refund_id=(refund.get("metadata") or {}).get(REFUND_ID),
        charge_id=_id(refund.get("payment_intent")),
        amount_minor=from_provider(refund["amount"], currency),
        currency=currency,
        code=refund.get("failure_reason"),
        created=_moment(refund["created"]),
    )


def card(method: Json) -> Card:
    """Read a PaymentMethod of any type."""
    details = method.get(method["type"]) or {}
    return Card(
        id=method["id"],
        type=method["type"],
        brand=details.get("brand") or details.get("bank_name") or "",
        last4=details.get("last4") or "",
        exp_month=details.get("exp_month"),
        exp_year=details.get("exp_year"),
        customer=_id(method.get("customer")),
        fingerprint=details.get("fingerprint"),
    )


def setup_intent(intent: Json) -> SetupIntent:
    """Read a SetupIntent."""
    return SetupIntent(
        id=intent["id"],
        status=_SETUP_STATUS.get(intent["status"], SetupStatus.OPEN),
        client_secret=intent.get("client_secret"),
        customer=_id(intent.get("customer")),
        payment_method=_id(intent.get("payment_method")),
        message=(intent.get("last_setup_error") or {}).get("message"),
    )


def setup_session(session: Json) -> SetupSession:
    """Read a Checkout Session of mode `setup` whose `setup_intent` is expanded."""
    intent = session.get("setup_intent")
    status = SetupStatus(session["status"])
    return SetupSession(
        id=session["id"],
        status=status,
        url=session.get("url"),
        customer=_id(session.get("customer")),
        setup_intent=_id(intent),
        payment_method=_id(intent.get("payment_method")) if status is SetupStatus.COMPLETE and isinstance(intent, Mapping) else None,
    )


def inbound_event(event: Json) -> InboundEvent:
    """Read an Event; raises KeyError or TypeError when it is none."""
    about = event["data"]["object"]
    return InboundEvent(
        id=event["id"],
        type=event["type"],
        object_id=about.get("id") or "",
        object_type=about["object"],
        created=_moment(event["created"]),
        payload=event,
    )


def _id(value: object) -> str | None:
    """The id of a reference, expanded or not."""
    found = value.get("id") if isinstance(value, Mapping) else value
    return None if found is None else str(found)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
