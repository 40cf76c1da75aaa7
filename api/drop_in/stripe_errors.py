"""Refusals in the shape that Stripe's libraries turn into their exceptions. https://docs.stripe.com/api/errors"""

from __future__ import annotations

from typing import Any

from api.drop_in.translation import Answer, encode
from api.drop_in.translation import shown_pointer as pointer_of
from core.errors import BillingError, RateLimited, Unavailable
from core.metering.accept import Verdict

CODES = {
    "unknown_metric": "no_meter",
    "no_metric_matches": "meter_event_invalid_value",
    "invalid_quantity": "meter_event_invalid_value",
    "invalid_property": "meter_event_invalid_value",
    "unknown_organization": "meter_event_customer_not_found",
    "timestamp_too_old": "timestamp_too_far_in_past",
    "timestamp_in_future": "timestamp_in_future",
    "missing_field": "parameter_missing",
}
"""Our codes in the words of Stripe's meter errors."""
POINTERS = {
    "/metric_name": "/event_name",
    "/idempotency_key": "/identifier",
    "/organization_id": "/payload/stripe_customer_id",
    "/quantity": "/payload/value",
    "/properties": "/payload",
}
INVALID, AUTHENTICATION, API, LIMIT = "invalid_request_error", "invalid_request_error", "api_error", "rate_limit_error"


class Refusal(BillingError):
    """A request that Stripe's libraries are to see as an InvalidRequestError; `param` is the field it is about."""

    title = "Invalid request"

    def __init__(self, status: int, code: str, message: str, param: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    @classmethod
    def of(cls, verdict: Verdict) -> Refusal:
        """The refusal of a request because of its first refused event."""
        one = verdict.refused[0]
        steps = pointer_of(one.pointer, POINTERS).split("/")[1:]
        if not verdict.single:
            steps = ["events", str(one.index), *steps]
        param = "".join(f"[{step}]" if place else step for place, step in enumerate(steps))
        detail = one.detail if verdict.single else f"Event {one.index}: {one.detail} None of the {verdict.events} events was taken."
        return cls(400, CODES.get(one.code, "parameter_invalid"), detail, param)


def answer(error: BillingError) -> Answer:
    """The refusal as Stripe's libraries expect it."""
    kind = LIMIT if isinstance(error, RateLimited) else API if error.status >= 500 else INVALID
    inner: dict[str, Any] = {"type": kind, "code": error.code, "message": error.message}
    if isinstance(error, Refusal) and error.param:
        inner["param"] = error.param
    headers = [("Content-Type", "application/json")]
    if isinstance(error, (Unavailable, RateLimited)):
        headers.append(("Retry-After", str(error.retry_after_seconds)))
    status = 400 if error.status in (413, 415, 422) else error.status
    return status, headers, encode({"error": inner})
