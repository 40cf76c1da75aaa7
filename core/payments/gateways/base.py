"""What a payment gateway does, in the product's own terms.

Amounts are integer minor units of an upper-case ISO 4217 currency (`core.money`); each gateway turns them into the
provider's own units. A call is made between two transactions, never inside one. An `idempotency_key` comes from a row
that is already committed, so that the same call can be made again after a crash without a second effect.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Protocol

from core.errors import BillingError


class InvalidSignature(BillingError):
    """A webhook that the provider did not sign, or signed too long ago or in the future."""

    status, code, title = 400, "invalid_signature", "The signature is not valid"


class ChargeStatus(StrEnum):
    """How a charge stands. Only succeeded and declined are final."""

    SUCCEEDED = "succeeded"
    PROCESSING = "processing"  # bank debits take days
    REQUIRES_ACTION = "requires_action"  # the bank wants the cardholder to confirm
    DECLINED = "declined"
    UNKNOWN = "unknown"  # asked, and no reliable answer came: money may have moved


class RefundStatus(StrEnum):
    """How a refund stands. Only succeeded and failed are final."""

    SUCCEEDED = "succeeded"
    PENDING = "pending"
    FAILED = "failed"
    UNKNOWN = "unknown"


class SetupStatus(StrEnum):
    """How the saving of a payment method stands. Complete and expired are final."""

    OPEN = "open"
    COMPLETE = "complete"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Card:
    """A saved payment method as shown to its owner; `exp_*`, `brand` are empty for a method that is no card."""

    id: str
    type: str
    brand: str
    last4: str
    exp_month: int | None
    exp_year: int | None
    customer: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class SetupIntent:
    """Permission to save a payment method from the customer's own browser, with the provider's script and `client_secret`."""

    id: str
    status: SetupStatus
    client_secret: str | None
    customer: str | None
    payment_method: str | None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class SetupSession:
    """The same on a page that the provider hosts at `url`; needs no script. `url` is None once it is no longer open."""

    id: str
    status: SetupStatus
    url: str | None
    customer: str | None
    setup_intent: str | None
    payment_method: str | None


@dataclass(frozen=True, slots=True)
class ChargeOutcome:
    """What the provider says about one charge.

    `amount_minor` and `currency` are what the provider will move or has moved; compare them with the attempt.
    `decline_code` is a key of `core.payments.declines`. `next_action_url` is where the cardholder confirms; it is None
    when the charge was made without the cardholder there: `confirm` it again from a page to get one.
    """

    status: ChargeStatus
    provider_id: str | None = None
    attempt_id: str | None = None
    customer: str | None = None
    payment_method: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    decline_code: str | None = None
    message: str | None = None
    next_action_url: str | None = None
    refunded_minor: int = 0
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class RefundOutcome:
    """What the provider says about one refund."""

    status: RefundStatus
    provider_id: str | None = None
    refund_id: str | None = None
    charge_id: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    code: str | None = None
    message: str | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class InboundEvent:
    """One event that the provider tells us of. `object_id` is what it is about: fetch that, the order of events means nothing."""

    id: str
    type: str
    object_id: str
    object_type: str
    created: datetime
    payload: Mapping[str, object] = field(repr=False)


class Gateway(Protocol):
    """One payment provider.

    Errors, all of core.errors: ProviderUnavailable when no reliable answer came (timeout, dropped connection, 5xx, rate
    limit, our key refused), Declined when a card was refused (its code is a key of `core.payments.declines`), Invalid
    when the provider refused the request and always will. `charge`, `confirm` and `refund` raise none of them: what
    they cannot tell is UNKNOWN, for a timeout, a dropped connection and a 5xx are never a decline.
    """

    name: ClassVar[str]
    automatic: ClassVar[bool]
    """True when `charge` itself moves money; False when it records money that was moved elsewhere."""

    def create_customer(
        self, *, reference: str, name: str, email: str | None, idempotency_key: str, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Return the provider's id of a new customer; `reference` is our organization's id."""

    def create_setup_session(
        self, *, customer: str, success_url: str, cancel_url: str, currency: str, idempotency_key: str
    ) -> SetupSession:
        """Open a hosted page that saves a payment method. `{SESSION_ID}` in `success_url` is replaced by the session's id."""

    def retrieve_setup_session(self, session_id: str) -> SetupSession:
        """Ask how a hosted page stands; call it when the customer comes back and when the event arrives."""

    def create_setup_intent(self, *, customer: str, idempotency_key: str) -> SetupIntent:
        """Allow the provider's own form in our page to save a payment method."""

    def retrieve_setup_intent(self, setup_intent_id: str) -> SetupIntent:
        """Ask how such a form stands."""

    def retrieve_payment_method(self, payment_method: str) -> Card:
        """Return brand, last four digits and expiry of a payment method."""

    def list_payment_methods(self, customer: str) -> Sequence[Card]:
        """Return the payment methods saved for a customer."""

    def attach_payment_method(self, payment_method: str, *, customer: str, idempotency_key: str) -> Card:
        """Save a payment method for a customer. Its id may differ from the token that was given: store the answer's."""

    def detach_payment_method(self, payment_method: str) -> None:
        """Forget a payment method. One that is already gone is no error."""

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
        """Move money once per `idempotency_key`.

        With `off_session` the cardholder is not there: a bank that wants them gives REQUIRES_ACTION without a URL.
        Otherwise they are, `return_url` is where they come back to, and REQUIRES_ACTION carries the URL.
        An amount that the provider cannot express is DECLINED with `amount_not_representable`, and nothing is sent.
        """

    def confirm(self, provider_id: str, *, payment_method: str, return_url: str, idempotency_key: str) -> ChargeOutcome:
        """Try an unfinished charge again with the cardholder there."""

    def retrieve_charge(self, provider_id: str) -> ChargeOutcome:
        """Ask how a charge stands, by the provider's id."""

    def find_charge(self, attempt_id: str, *, customer: str, since: datetime | None = None) -> ChargeOutcome | None:
        """Look for the charge of an attempt whose answer was lost; None: the provider has made none so far.

        `since` is the machine's time (not a test clock's) at which the attempt was created. A request that is still on
        its way is not seen, so that None is proof only after the request's timeout.
        """

    def cancel_charge(self, provider_id: str, *, idempotency_key: str) -> ChargeOutcome:
        """Stop a charge that has not succeeded; one that has comes back as SUCCEEDED."""

    def list_charges(self, since: datetime, until: datetime | None = None) -> Iterator[ChargeOutcome]:
        """Return all charges created in [since, until), newest first, for reconciliation."""

    def refund(
        self, *, charge_id: str, amount_minor: int, currency: str, refund_id: str, metadata: Mapping[str, str], idempotency_key: str
    ) -> RefundOutcome:
        """Give money back, once per `idempotency_key`, at most what the charge still holds. `refund_id` is ours."""

    def find_refund(self, refund_id: str, *, charge_id: str) -> RefundOutcome | None:
        """Look for a refund whose answer was lost; None: the provider has made none so far."""

    def list_events(self, since: datetime) -> Iterator[InboundEvent]:
        """Return events created at or after `since`, newest first: those whose delivery was lost."""

    def parse_webhook(self, raw_body: bytes, headers: Mapping[str, str], *, at: datetime) -> InboundEvent:
        """Check the signature over the raw bytes and return the event; `at` is the machine's time, not a test clock's.

        Raises InvalidSignature.
        """
