"""Webhooks of the payment provider: verified over the raw bytes, stored, answered; the work is done later by what is stored."""

from __future__ import annotations

from flask import Blueprint, Response, request

from api.reading import TooLarge
from core import clock
from core.db import transaction
from core.payments import inbound

PROVIDER = "stripe"


def mount(blueprint: Blueprint) -> None:
    """Serve the address that is given to the provider; its signature is the credential, so no key is needed."""
    blueprint.add_url_rule("/webhooks/stripe", "receive_stripe_webhook", receive, methods=["POST"])


def receive() -> Response:
    """Store the event and answer at once; one that is there already is answered the same."""
    request.max_content_length = inbound.PAYLOAD_BYTES_MAX
    if (request.content_length or 0) > inbound.PAYLOAD_BYTES_MAX:
        raise TooLarge("The event is larger than any of the provider's.")
    with transaction() as session:
        inbound.store(session, PROVIDER, request.get_data(), dict(request.headers), at=clock.now())
    return Response(status=200)
