"""What went wrong at Stripe, in the core's own terms."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.errors import Declined, FieldError, Invalid, ProviderUnavailable
from core.payments.gateways.base import ChargeOutcome, ChargeStatus
from core.payments.gateways.stripe_objects import charge_outcome

if TYPE_CHECKING:
    import stripe

NO_ANSWER = "The payment provider did not answer."


@contextmanager
def core_errors() -> Iterator[None]:
    """Turn the library's errors into the core's."""
    import stripe

    try:
        yield
    except stripe.CardError as refusal:
        raise Declined(refusal.user_message or "The card was declined.", code=_code(refusal)) from refusal
    except (stripe.InvalidRequestError, stripe.IdempotencyError) as refusal:
        message = refusal.user_message or "The payment provider refused the request."
        pointer = "/" + (getattr(refusal, "param", None) or "").replace("[", "/").replace("]", "")
        errors = (FieldError(pointer, message),) if pointer != "/" else ()
        raise Invalid(message, code=refusal.code or "idempotency_error", errors=errors) from refusal
    except (stripe.AuthenticationError, stripe.PermissionError) as refusal:
        raise ProviderUnavailable("The payment provider refuses our key; an operator has to correct it.", code="key_refused") from refusal
    except stripe.StripeError as failure:
        raise ProviderUnavailable("The payment provider is not answering. Please try again in a moment.") from failure


def outcome_of(
    ask: "Callable[[], stripe.PaymentIntent]", *, attempt_id: str | None = None, provider_id: str | None = None
) -> ChargeOutcome:
    """Ask for a change of a charge and read what came of it.

    A refusal carries the intent when there is one. Without an intent nothing was charged. Anything else is unknown: an
    answer saved under the key may hide a charge, a conflict means that the first request still runs.
    """
    import stripe

    try:
        return charge_outcome(ask().to_dict())
    except (stripe.CardError, stripe.InvalidRequestError) as refusal:
        body = refusal.json_body if isinstance(refusal.json_body, dict) else {}
        intent = body.get("error", {}).get("payment_intent")
        if intent:
            return charge_outcome(intent)
        status, code, message = ChargeStatus.DECLINED, _code(refusal), refusal.user_message
    except stripe.StripeError as failure:
        status, code, message = ChargeStatus.UNKNOWN, None, failure.user_message if failure.http_status else NO_ANSWER
    return ChargeOutcome(status, attempt_id=attempt_id, provider_id=provider_id, decline_code=code, message=message)


def _code(refusal: "stripe.StripeError") -> str:
    body = refusal.json_body if isinstance(refusal.json_body, dict) else {}
    return body.get("error", {}).get("decline_code") or refusal.code or "invalid_request"
