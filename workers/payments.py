"""Actors of payments. Each finds its work by state, so that a message lost or delivered twice changes nothing."""

from __future__ import annotations

import uuid

import dramatiq

from core import clock
from core.db import transaction
from core.errors import NotFound
from core.payments import inbound, queries, refund, resolve
from core.payments.collect import collect

NO_LIMIT = float("inf")
"""A time limit raises anywhere in the code, also between a charge and its record; the gateway's own timeouts end these actors."""

__all__ = ["collect", "collect_invoice", "process_inbound", "resolve_transaction"]


@dramatiq.actor(time_limit=NO_LIMIT, throws=(NotFound,))
def collect_invoice(invoice_id: str) -> None:
    """Charge what is due on an invoice, if its time has come."""
    with transaction() as session:
        at = clock.now(queries.organization_of_invoice(session, uuid.UUID(invoice_id)))
    collect(uuid.UUID(invoice_id), at=at)


@dramatiq.actor(time_limit=NO_LIMIT)
def resolve_transaction(transaction_id: str) -> None:
    """Find out what became of a charge or refund whose answer was lost."""
    resolve.resolve(uuid.UUID(transaction_id), now=clock.now())
    refund.resolve(uuid.UUID(transaction_id), now=clock.now())


@dramatiq.actor(time_limit=NO_LIMIT)
def process_inbound(number: str) -> None:
    """Handle one stored event of the provider."""
    inbound.process(int(number), now=clock.now())
