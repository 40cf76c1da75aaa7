"""Stripe, through its official library.

A charge is a PaymentIntent, created and confirmed in one call, found again by its `attempt_id` in the metadata. The
library's own retries are off: we retry by state, with the same idempotency key. Stripe keeps keys for 24 hours and
replays answers, errors 500 included, so that a lost answer is looked up before anything is charged anew.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Invalid
from core.payments.gateways import stripe_objects as read
from core.payments.gateways.base import (
    Card,
    ChargeOutcome,
    ChargeStatus,
    InboundEvent,
    InvalidSignature,
    RefundOutcome,
    RefundStatus,
    SetupIntent,
    SetupSession,
)
from core.payments.gateways.stripe_amounts import AmountNotRepresentable, to_provider
from core.payments.gateways.stripe_errors import NO_ANSWER, core_errors, outcome_of

if TYPE_CHECKING:
    import stripe

CONNECT_SECONDS = 5
ANSWER_SECONDS = 30
SIGNATURE_TOLERANCE_SECONDS = 300
CLOCK_SKEW_SECONDS = 300
PAGE = 100


class StripeGateway:
    """Charges through one Stripe account. `webhook_secrets` are all that are valid now: two while one is being replaced."""

    name: ClassVar[str] = "stripe"
    automatic: ClassVar[bool] = True

    def __init__(
        self,
        api_key: str,
        *,
        api_base: str = "https://api.stripe.com",
        webhook_secrets: Sequence[str] = (),
        connect_seconds: float = CONNECT_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._api_key = api_key
        self._api_base = api_base
        self._webhook_secrets = tuple(webhook_secrets)
        self._timeout = (connect_seconds, answer_seconds)

    @cached_property
    def _api(self) -> "stripe._v1_services.V1Services":
        import stripe

        client = stripe.StripeClient(
            self._api_key,
            base_addresses={"api": self._api_base},
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=self._timeout),
        )
        return client.v1

    def create_customer(
        self, *, reference: str, name: str, email: str | None, idempotency_key: str, metadata: Mapping[str, str] | None = None
    ) -> str:
        """See Gateway."""
        params: Any = {"name": name, "metadata": {"organization_id": reference, **(metadata or {})}}
        if email:
            params["email"] = email
        with core_errors():
            return self._api.customers.create(params, {"idempotency_key": idempotency_key}).id

    def create_setup_session(
        self, *, customer: str, success_url: str, cancel_url: str, currency: str, idempotency_key: str
    ) -> SetupSession:
        """See Gateway."""
        params: Any = {
            "mode": "setup",
            "customer": customer,
            "currency": currency.lower(),
            "success_url": success_url.replace("{SESSION_ID}", "{CHECKOUT_SESSION_ID}"),
            "cancel_url": cancel_url,
            "expand": ["setup_intent"],
        }
        with core_errors():
            return read.setup_session(self._api.checkout.sessions.create(params, {"idempotency_key": idempotency_key}).to_dict())

    def retrieve_setup_session(self, session_id: str) -> SetupSession:
        """See Gateway."""
        with core_errors():
            return read.setup_session(self._api.checkout.sessions.retrieve(session_id, {"expand": ["setup_intent"]}).to_dict())

    def create_setup_intent(self, *, customer: str, idempotency_key: str) -> SetupIntent:
        """See Gateway."""
        params: Any = {"customer": customer, "usage": "off_session", "automatic_payment_methods": {"enabled": True}}
        with core_errors():
            return read.setup_intent(self._api.setup_intents.create(params, {"idempotency_key": idempotency_key}).to_dict())

    def retrieve_setup_intent(self, setup_intent_id: str) -> SetupIntent:
        """See Gateway."""
        with core_errors():
            return read.setup_intent(self._api.setup_intents.retrieve(setup_intent_id).to_dict())

    def retrieve_payment_method(self, payment_method: str) -> Card:
        """See Gateway."""
        with core_errors():
            return read.card(self._api.payment_methods.retrieve(payment_method).to_dict())

    def list_payment_methods(self, customer: str) -> Sequence[Card]:
        """See Gateway."""
        with core_errors():
            found = self._api.customers.payment_methods.list(customer, {"limit": PAGE})
            return [read.card(method.to_dict()) for method in found.auto_paging_iter()]

    def attach_payment_method(self, payment_method: str, *, customer: str, idempotency_key: str) -> Card:
        """See Gateway."""
        with core_errors():
            options: Any = {"idempotency_key": idempotency_key}
            return read.card(self._api.payment_methods.attach(payment_method, {"customer": customer}, options).to_dict())

    def detach_payment_method(self, payment_method: str) -> None:
        """See Gateway."""
        try:
            with core_errors():
                self._api.payment_methods.detach(payment_method)
        except Invalid as refusal:
            if refusal.code != "resource_missing" and self.retrieve_payment_method(payment_method).customer is not None:
                raise

    def charge(
        self,
        *,
        customer: str,
        payment_method: str,
        amount_minor: int,
        currency: str,
        attempt_id: str,
        description: str,
        metadata: Mapping[str, str],
        idempotency_key: str,
        payment_method_type: str = "card",
        off_session: bool = True,
        return_url: str | None = None,
    ) -> ChargeOutcome:
        """See Gateway."""
        try:
            amount = to_provider(amount_minor, currency)
        except AmountNotRepresentable as refusal:
            return ChargeOutcome(
                ChargeStatus.DECLINED, attempt_id=attempt_id, decline_code="amount_not_representable", message=str(refusal)
            )
        params: Any = {
            "amount": amount,
            "currency": currency.lower(),
            "customer": customer,
            "payment_method": payment_method,
            "payment_method_types": [payment_method_type],
            "confirm": True,
            "description": description,
            "metadata": {**metadata, read.ATTEMPT_ID: attempt_id},
        }
        params |= {"off_session": True} if off_session else {"return_url": return_url} if return_url else {}
        return outcome_of(lambda: self._api.payment_intents.create(params, {"idempotency_key": idempotency_key}), attempt_id=attempt_id)

    def confirm(self, provider_id: str, *, payment_method: str, return_url: str, idempotency_key: str) -> ChargeOutcome:
        """See Gateway."""
        params: Any = {"payment_method": payment_method, "return_url": return_url}
        options: Any = {"idempotency_key": idempotency_key}
        return outcome_of(lambda: self._api.payment_intents.confirm(provider_id, params, options), provider_id=provider_id)

    def cancel_charge(self, provider_id: str, *, idempotency_key: str) -> ChargeOutcome:
        """See Gateway."""
        params: Any = {"cancellation_reason": "abandoned"}
        options: Any = {"idempotency_key": idempotency_key}
        return outcome_of(lambda: self._api.payment_intents.cancel(provider_id, params, options), provider_id=provider_id)

    def retrieve_charge(self, provider_id: str) -> ChargeOutcome:
        """See Gateway."""
        with core_errors():
            return read.charge_outcome(self._api.payment_intents.retrieve(provider_id, {"expand": ["latest_charge"]}).to_dict())

    def find_charge(self, attempt_id: str, *, customer: str, since: datetime | None = None) -> ChargeOutcome | None:
        """See Gateway. Lists the customer's charges: Stripe's search index lags behind, its lists do not."""
        params: Any = {"customer": customer, "limit": PAGE, "expand": ["data.latest_charge"]}
        if since is not None:
            params["created"] = {"gte": int(since.timestamp()) - CLOCK_SKEW_SECONDS}
        with core_errors():
            for intent in self._api.payment_intents.list(params).auto_paging_iter():
                if (intent.metadata.to_dict() if intent.metadata else {}).get(read.ATTEMPT_ID) == attempt_id:
                    return read.charge_outcome(intent.to_dict())
        return None

    def list_charges(self, since: datetime, until: datetime | None = None) -> Iterator[ChargeOutcome]:
        """See Gateway."""
        created = {"gte": int(since.timestamp())} | ({"lt": int(until.timestamp())} if until else {})
        params: Any = {"created": created, "limit": PAGE, "expand": ["data.latest_charge"]}
        with core_errors():
            for intent in self._api.payment_intents.list(params).auto_paging_iter():
                yield read.charge_outcome(intent.to_dict())

    def refund(
        self, *, charge_id: str, amount_minor: int, currency: str, refund_id: str, metadata: Mapping[str, str], idempotency_key: str
    ) -> RefundOutcome:
        """See Gateway."""
        import stripe

        told = RefundOutcome(RefundStatus.FAILED, refund_id=refund_id, charge_id=charge_id, amount_minor=amount_minor, currency=currency)
        try:
            params: Any = {
                "payment_intent": charge_id,
                "amount": to_provider(amount_minor, currency),
                "metadata": {**metadata, read.REFUND_ID: refund_id},
            }
            return read.refund_outcome(self._api.refunds.create(params, {"idempotency_key": idempotency_key}).to_dict())
        except AmountNotRepresentable as refusal:
            return replace(told, code="amount_not_representable", message=str(refusal))
        except stripe.InvalidRequestError as refusal:
            return replace(told, code=refusal.code or "invalid_request", message=refusal.user_message)
        except stripe.StripeError as failure:
            return replace(
                told, status=RefundStatus.UNKNOWN, code=failure.code, message=failure.user_message if failure.http_status else NO_ANSWER
            )

    def find_refund(self, refund_id: str, *, charge_id: str) -> RefundOutcome | None:
        """See Gateway."""
        with core_errors():
            for refund in self._api.refunds.list({"payment_intent": charge_id, "limit": PAGE}).auto_paging_iter():
                found = read.refund_outcome(refund.to_dict())
                if found.refund_id == refund_id:
                    return found
        return None

    def list_events(self, since: datetime) -> Iterator[InboundEvent]:
        """See Gateway. Stripe keeps events for 30 days."""
        params: Any = {"created": {"gte": int(since.timestamp())}, "limit": PAGE}
        with core_errors():
            for event in self._api.events.list(params).auto_paging_iter():
                yield read.inbound_event(event.to_dict())

    def parse_webhook(self, raw_body: bytes, headers: Mapping[str, str], *, at: datetime) -> InboundEvent:
        """See Gateway. The library checks only for age; a signature from the future is refused here."""
        header = next((value for name, value in headers.items() if name.lower() == "stripe-signature"), "")
        if not any(_signed(raw_body, header, secret) for secret in self._webhook_secrets):
            raise InvalidSignature("The signature does not belong to this body.")
        signed_at = int(dict(part.partition("=")[::2] for part in reversed(header.split(",")))["t"])
        if abs(signed_at - int(at.timestamp())) > SIGNATURE_TOLERANCE_SECONDS:
            raise InvalidSignature(f"The signature is more than {SIGNATURE_TOLERANCE_SECONDS} seconds away from now.")
        try:
            return read.inbound_event(json.loads(raw_body))
        except (ValueError, KeyError, TypeError) as error:
            raise Invalid("The signed body is not an event.") from error


def _signed(raw_body: bytes, header: str, secret: str) -> bool:
    import stripe

    try:
        return bool(stripe.WebhookSignature.verify_header(raw_body, header, secret, tolerance=None))
    except (stripe.SignatureVerificationError, UnicodeError, TypeError):
        return False  # the library raises the last two for a body that is no UTF-8 and a header that is no ASCII
