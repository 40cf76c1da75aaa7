"""Actors of delivery: print invoices, turn facts into notifications, send mail."""

from __future__ import annotations

import uuid

import dramatiq

from core import clock, config
from core.db import transaction
from core.errors import Conflict, NotFound
from core.invoicing import documents, queries
from core.notifications import dispatch, email, smtp


@dramatiq.actor(throws=(NotFound, Conflict))
def render_invoice_pdf(invoice_id: str) -> None:
    """Print the invoice once and store it."""
    with transaction() as session:
        at = clock.now(queries.owner(session, uuid.UUID(invoice_id)))
        documents.render(session, uuid.UUID(invoice_id), at=at)


@dramatiq.actor
def dispatch_outbox() -> None:
    """Turn every waiting fact into the notifications it calls for."""
    dispatched = 1
    while dispatched:
        with transaction() as session:
            dispatched = dispatch.dispatch_outbox(session, now=clock.now())


@dramatiq.actor(time_limit=float("inf"))
def send_notifications() -> None:
    """Send what is due. `sending` is committed before the server is spoken to, the outcome after; nothing is sent twice."""
    settings = config.current()
    while True:
        with transaction() as session:
            outgoing = email.claim(session, now=clock.now(), settings=settings)
        for message in outgoing:
            answer = smtp.send(message.message, smtp_url=settings.smtp_url)
            with transaction() as session:
                email.record(session, message, answer, now=clock.now())
        if not outgoing:
            return
