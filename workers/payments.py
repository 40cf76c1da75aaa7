"""Actors of payments. Each finds its work by state, so that a message lost or delivered twice changes nothing."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta

import dramatiq

from core import clock
from core.db import transaction
from core.errors import NotFound
from core.invoicing import queries as invoicing
from core.payments import inbound, methods, queries, reconcile, refund, resolve, standing
from core.payments.collect import collect
from core.payments.provider import STRIPE

log = logging.getLogger(__name__)

NO_LIMIT = float("inf")
"""A time limit raises anywhere in the code, also between a charge and its record; the gateway's own timeouts end these actors."""

EVENTS_BACK = timedelta(days=3)
"""A provider gives up delivering an event after about three days; older ones were compared before."""
CHARGES_BACK = timedelta(days=2)
SETTLING = timedelta(minutes=10)
"""Charges this young may still be on their way into the books."""

__all__ = ["collect", "collect_invoice", "process_inbound", "reconcile_provider", "resolve_transaction", "review_standing"]


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


@dramatiq.actor
def review_standing(subscription_id: str) -> None:
    """Suspend a subscription nobody pays for, or let one recover that is paid."""
    with transaction() as session:
        at = clock.now(invoicing.subscriber(session, uuid.UUID(subscription_id)))
        standing.review(session, uuid.UUID(subscription_id), at=at)


@dramatiq.actor(time_limit=NO_LIMIT)
def reconcile_provider() -> None:
    """Fetch events that never arrived, let the provider forget removed methods, and report every charge the two sides see differently."""
    now = clock.now()
    inbound.backfill(provider=STRIPE, since=now - EVENTS_BACK)
    for method_id, token in reconcile.undetached():
        methods.detach(uuid.UUID(str(method_id)), provider=STRIPE, token=token)
    for difference in reconcile.differences(since=now - CHARGES_BACK, until=now - SETTLING):
        log.error("the provider and the books differ: %s", difference)
