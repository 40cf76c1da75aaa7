"""Refusals on /api/v1/events: problem+json (RFC 9457), with the members that Lago's clients look for beside it."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec

from api.drop_in.translation import Answer
from core.errors import BillingError, RateLimited, Unavailable
from core.metering.accept import Verdict
from core.metering.careful import Refused

DETAILS_MAX = 100
VALIDATION = "validation_errors"


class SomeRefused(BillingError):
    """At least one event of the request was refused, so none was taken."""

    code, title = "no_event_accepted", "No event was accepted"

    def __init__(self, verdict: Verdict, pointer: Callable[[Refused], str], status: int) -> None:
        refused = verdict.refused
        nothing = "Nothing of the request was kept; correct it and send it again."
        first = "" if verdict.single else f"Event {refused[0].index}: "
        super().__init__(f"{len(refused)} of {verdict.events} events refused. {first}{refused[0].detail} {nothing}")
        self.verdict, self.pointer, self.status = verdict, pointer, status

    def pointers(self) -> list[tuple[Refused, str]]:
        """The refused events with their pointers into the request."""
        return [(one, self.pointer(one)) for one in self.verdict.refused[:DETAILS_MAX]]


def answer(error: BillingError, address: str) -> Answer:
    """The refusal as this address tells it."""
    phrase = HTTPStatus(error.status).phrase
    body: dict[str, Any] = {
        "type": f"/api/v1/docs#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "instance": address,
        "code": error.code,
        "error": phrase,
    }
    if isinstance(error, SomeRefused):
        body["errors"] = [{"pointer": pointer, "detail": one.detail, "code": one.code} for one, pointer in error.pointers()]
        body |= {"code": VALIDATION, "error_details": _details(error)}
    headers = [("Content-Type", "application/problem+json")]
    if isinstance(error, (Unavailable, RateLimited)):
        headers.append(("Retry-After", str(error.retry_after_seconds)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", 'Bearer realm="ValueVerse Billing"'))
    return error.status, headers, msgspec.json.encode(body)


def _details(error: SomeRefused) -> dict[str, Any]:
    """Field to reasons, for a batch by the event's index, as Lago tells it."""
    found: dict[str, Any] = {}
    for one, pointer in error.pointers():
        field = pointer.rpartition("/")[2] or "event"
        place = found if error.verdict.single else found.setdefault(str(one.index), {})
        place.setdefault(field, []).append(one.code)
    return found
