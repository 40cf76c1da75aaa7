"""Money that moves outside of any API: a bank transfer, a cheque, a set-off. The gateway records what a person saw happen.

Nothing is ever charged on its own (`automatic` is False). `charge` is called for a receipt that somebody with the right
to do so has entered; the same attempt gives the same answer, so that entering it twice changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, NoReturn

from core.errors import Invalid
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

CHARGE = "manual_"
REFUND = "manual_refund_"


class ManualGateway:
    """Records money that was moved elsewhere."""

    name: ClassVar[str] = "manual"
    automatic: ClassVar[bool] = False

    def create_customer(
        self, *, reference: str, name: str, email: str | None, idempotency_key: str, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Return our own reference: there is nobody to tell."""
        del name, email, idempotency_key, metadata
        return reference

    def create_setup_session(
        self, *, customer: str, success_url: str, cancel_url: str, currency: str, idempotency_key: str
    ) -> SetupSession:
        """There is nothing to save."""
        _unsupported(customer, success_url, cancel_url, currency, idempotency_key)

    def retrieve_setup_session(self, session_id: str) -> SetupSession:
        """There is nothing to save."""
        _unsupported(session_id)

    def create_setup_intent(self, *, customer: str, idempotency_key: str) -> SetupIntent:
        """There is nothing to save."""
        _unsupported(customer, idempotency_key)

    def retrieve_setup_intent(self, setup_intent_id: str) -> SetupIntent:
        """There is nothing to save."""
        _unsupported(setup_intent_id)

    def retrieve_payment_method(self, payment_method: str) -> Card:
        """Return the bank transfer as a method of its own."""
        return Card(id=payment_method, type="manual", brand="Bank transfer", last4="", exp_month=None, exp_year=None)

    def list_payment_methods(self, customer: str) -> Sequence[Card]:
        """Nothing is saved."""
        del customer
        return ()

    def attach_payment_method(self, payment_method: str, *, customer: str, idempotency_key: str) -> Card:
        """There is nothing to save."""
        _unsupported(payment_method, customer, idempotency_key)

    def detach_payment_method(self, payment_method: str) -> None:
        """Nothing was saved, so nothing is left to forget."""
        del payment_method

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
        """Record that the money of an attempt has arrived."""
        del description, metadata, idempotency_key, payment_method_type, off_session, return_url
        return ChargeOutcome(
            status=ChargeStatus.SUCCEEDED,
            provider_id=CHARGE + attempt_id,
            attempt_id=attempt_id,
            customer=customer,
            payment_method=payment_method,
            amount_minor=amount_minor,
            currency=currency,
        )

    def confirm(self, provider_id: str, *, payment_method: str, return_url: str, idempotency_key: str) -> ChargeOutcome:
        """No bank asks anybody."""
        _unsupported(provider_id, payment_method, return_url, idempotency_key)

    def retrieve_charge(self, provider_id: str) -> ChargeOutcome:
        """What was recorded is final."""
        return ChargeOutcome(ChargeStatus.SUCCEEDED, provider_id=provider_id, attempt_id=provider_id.removeprefix(CHARGE))

    def find_charge(self, attempt_id: str, *, customer: str, since: datetime | None = None) -> ChargeOutcome | None:
        """Nobody else knows of it: record it again, which changes nothing."""
        del attempt_id, customer, since
        return None

    def cancel_charge(self, provider_id: str, *, idempotency_key: str) -> ChargeOutcome:
        """What was recorded is final; money goes back by a refund."""
        del idempotency_key
        return self.retrieve_charge(provider_id)

    def list_charges(self, since: datetime, until: datetime | None = None) -> Iterator[ChargeOutcome]:
        """Nobody else keeps a list; the bank's statement is matched elsewhere."""
        del since, until
        return iter(())

    def refund(
        self, *, charge_id: str, amount_minor: int, currency: str, refund_id: str, metadata: Mapping[str, str], idempotency_key: str
    ) -> RefundOutcome:
        """Record that money was sent back."""
        del metadata, idempotency_key
        return RefundOutcome(
            status=RefundStatus.SUCCEEDED,
            provider_id=REFUND + refund_id,
            refund_id=refund_id,
            charge_id=charge_id,
            amount_minor=amount_minor,
            currency=currency,
        )

    def find_refund(self, refund_id: str, *, charge_id: str) -> RefundOutcome | None:
        """Nobody else knows of it: record it again, which changes nothing."""
        del refund_id, charge_id
        return None

    def list_events(self, since: datetime) -> Iterator[InboundEvent]:
        """Nobody sends events."""
        del since
        return iter(())

    def parse_webhook(self, raw_body: bytes, headers: Mapping[str, str], *, at: datetime) -> InboundEvent:
        """Nobody sends events, so nothing can be genuine."""
        del raw_body, headers, at
        raise InvalidSignature("No provider sends events for manual payments.")


def _unsupported(*arguments: str) -> NoReturn:
    del arguments
    raise Invalid("A manual payment is entered by hand; no payment method is saved for it.", code="manual_payment_only")
