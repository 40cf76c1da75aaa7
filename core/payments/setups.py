"""Saving a payment method on the provider's own page: there, and back. Coming back and the provider's event both finish it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from core.audit import Actor
from core.db import new_id, transaction
from core.errors import Conflict, NotFound
from core.identity import queries as identity
from core.payments.gateways.base import SetupStatus
from core.payments.methods import customer_of, keep
from core.payments.models import PaymentCustomer, PaymentMethod, SetupAttempt
from core.payments.provider import STRIPE, gateway


@dataclass(frozen=True, slots=True)
class Setup:
    """A page of the provider: send the customer to `url`."""

    id: uuid.UUID
    url: str


def start(
    organization_id: uuid.UUID, *, success_url: str, cancel_url: str, at: datetime, provider: str = STRIPE, return_to: str = ""
) -> Setup:
    """Open a page on which the customer saves a method. Call it outside of a transaction.

    `{SESSION_ID}` in `success_url` becomes the provider's session id, which `complete` takes; `return_to` is kept for the way back.
    """
    customer = customer_of(organization_id, provider=provider, at=at)
    with transaction() as session:
        attempt = SetupAttempt(id=new_id(), organization_id=organization_id, provider=provider, return_to=return_to, created_at=at)
        session.add(attempt)
        attempt_id, currency = attempt.id, identity.organization(session, organization_id).currency
    opened = gateway(provider).create_setup_session(
        customer=customer, success_url=success_url, cancel_url=cancel_url, currency=currency, idempotency_key=str(attempt_id)
    )
    if opened.url is None:
        raise Conflict("The payment provider did not open a page; please try again.", code="setup_not_open")
    with transaction() as session:
        session.get_one(SetupAttempt, attempt_id, with_for_update=True).provider_session_id = opened.id
    return Setup(attempt_id, opened.url)


def complete(session_id: str, *, at: datetime, actor: Actor, organization_id: uuid.UUID | None = None) -> PaymentMethod | None:
    """Keep the method the customer has saved on the page; None while they have not. Call it outside of a transaction.

    `organization_id` is who says so, None for the provider. NotFound for a page that is not theirs. Twice keeps one method.
    """
    with transaction() as session:
        attempt = session.scalars(select(SetupAttempt).where(SetupAttempt.provider_session_id == session_id)).one_or_none()
        if attempt is None or organization_id not in (None, attempt.organization_id):
            raise NotFound("There is no such page.")
        owner, provider, attempt_id = attempt.organization_id, attempt.provider, attempt.id
    page = gateway(provider).retrieve_setup_session(session_id)
    if page.status is not SetupStatus.COMPLETE or page.payment_method is None or page.customer is None:
        return None
    card = gateway(provider).retrieve_payment_method(page.payment_method)
    with transaction() as session:
        if session.get_one(PaymentCustomer, (owner, provider)).provider_customer_id != page.customer:
            raise NotFound("There is no such page.")
        method = keep(session, owner, provider=provider, customer=page.customer, card=card, at=at, actor=actor)
        done = session.get_one(SetupAttempt, attempt_id, with_for_update=True, populate_existing=True)
        done.completed_at = done.completed_at or at
    return method


def page_url(organization_id: uuid.UUID, attempt_id: uuid.UUID) -> str | None:
    """Where the customer goes on with a page that was opened for them; None once it is finished or closed. NotFound for a stranger's.

    Call it outside of a transaction.
    """
    with transaction() as session:
        attempt = session.get(SetupAttempt, attempt_id)
        if attempt is None or attempt.organization_id != organization_id or attempt.provider_session_id is None:
            raise NotFound("There is no such page.")
        provider, session_id = attempt.provider, attempt.provider_session_id
    return gateway(provider).retrieve_setup_session(session_id).url


def way_back(organization_id: uuid.UUID, session_id: str) -> str:
    """Where the customer wanted to return to after the page; "" for nowhere in particular."""
    with transaction() as session:
        attempt = session.scalars(
            select(SetupAttempt).where(SetupAttempt.provider_session_id == session_id, SetupAttempt.organization_id == organization_id)
        ).one_or_none()
        return attempt.return_to if attempt else ""
