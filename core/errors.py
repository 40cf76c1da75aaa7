"""The errors the core raises; the edges turn them into pages, fragments or problem+json."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one input. `pointer` is a JSON pointer (RFC 6901) into the request, "" for the whole."""

    pointer: str
    detail: str


class BillingError(Exception):
    """Base of every expected failure. `code` is stable and machine-readable, the message is for a person."""

    status = 400
    code = "billing_error"
    title = "The request could not be carried out"

    def __init__(self, message: str, *, code: str | None = None, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.errors = errors


class NotFound(BillingError):
    """The thing does not exist, or belongs to somebody else: the caller cannot tell which."""

    status, code, title = 404, "not_found", "Not found"


class Invalid(BillingError):
    """The input breaks a rule; `errors` point at each field."""

    status, code, title = 422, "invalid", "The request has invalid fields"


class Conflict(BillingError):
    """The request collides with what is stored (a taken code, a reused idempotency key, a stale quote)."""

    status, code, title = 409, "conflict", "The request conflicts with the current state"


class InvalidTransition(Conflict):
    """The status machine has no such move."""

    code, title = "invalid_transition", "This is not possible in the current state"


class Unauthenticated(BillingError):
    """Nobody is signed in, or the API key is unknown, expired or revoked."""

    status, code, title = 401, "unauthenticated", "Authentication is needed"


class Forbidden(BillingError):
    """The actor is known but may not do this."""

    status, code, title = 403, "forbidden", "Not allowed"


class Declined(BillingError):
    """The payment provider refused the charge; nothing was charged."""

    status, code, title = 402, "payment_declined", "The payment was declined"


class ProviderUnavailable(BillingError):
    """The payment provider did not answer; the outcome is unknown until it is looked up. Workers retry this one."""

    status, code, title = 503, "provider_unavailable", "The payment provider is not answering"


class Unavailable(BillingError):
    """The service cannot take this now; nothing was kept, repeat the request after `retry_after_seconds`."""

    status, code, title = 503, "unavailable", "Temporarily unavailable"

    def __init__(self, message: str, *, retry_after_seconds: int = 1, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class RateLimited(Unavailable):
    """Too many requests for this key."""

    status, code, title = 429, "rate_limited", "Too many requests"
