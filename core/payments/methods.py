"""Saved payment methods: tokens the provider gave us for cards and accounts; no card number ever reaches us."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime

from sqlalchemy import exists, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.db import new_id, transaction
from core.errors import Conflict, NotFound, ProviderUnavailable
from core.identity import queries as identity
from core.identity.models import Organization
from core.payments.collect import rearm
from core.payments.gateways.base import Card
from core.payments.models import LIVE, BillingTransaction, PaymentCustomer, PaymentMethod
from core.payments.provider import STRIPE, gateway
from core.subscriptions.models import Subscription, SubscriptionStatus

log = logging.getLogger(__name__)

RUNNING = (SubscriptionStatus.TRIALING, SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)


def attach(
    organization_id: uuid.UUID, *, provider_token: str, at: datetime, actor: Actor, provider: str = STRIPE, make_default: bool = True
) -> PaymentMethod:
    """Save the payment method a token stands for. Call it outside of a transaction: it opens its own around the provider's calls.

    The first one saved is the default. Invoices waiting for a method are charged then. Declined when the bank refuses the card,
    Invalid for a token that is none, ProviderUnavailable when nobody answers: nothing is kept, try again.
    """
    customer = customer_of(organization_id, provider=provider, at=at)
    card = gateway(provider).attach_payment_method(provider_token, customer=customer, idempotency_key=str(new_id()))
    with transaction() as session:
        return keep(
            session, organization_id, provider=provider, customer=customer, card=card, at=at, actor=actor, make_default=make_default
        )


def customer_of(organization_id: uuid.UUID, *, provider: str, at: datetime) -> str:
    """Who the organization is at the provider; made known there on first use. Call it outside of a transaction."""
    with transaction() as session:
        organization = identity.organization(session, organization_id)
        known = session.get(PaymentCustomer, (organization_id, provider))
        if known is not None:
            return known.provider_customer_id
        name, email = organization.name, organization.billing_email
    made = gateway(provider).create_customer(
        reference=str(organization_id), name=name, email=email, idempotency_key=f"customer-{organization_id}"
    )
    with transaction() as session:
        values = {"organization_id": organization_id, "provider": provider, "provider_customer_id": made, "created_at": at}
        session.execute(insert(PaymentCustomer).values(values).on_conflict_do_nothing())
        return session.get_one(PaymentCustomer, (organization_id, provider), populate_existing=True).provider_customer_id


def keep(
    session: Session,
    organization_id: uuid.UUID,
    *,
    provider: str,
    customer: str,
    card: Card,
    at: datetime,
    actor: Actor,
    make_default: bool = True,
) -> PaymentMethod:
    """Remember a method that the provider has saved; once per provider's id, whoever brings the news first."""
    _lock_methods(session, organization_id)
    known = session.scalars(
        select(PaymentMethod).where(PaymentMethod.provider == provider, PaymentMethod.provider_payment_method_id == card.id)
    ).one_or_none()
    if known is not None:
        if known.organization_id != organization_id:
            raise NotFound("There is no such payment method.")
        return known
    method = PaymentMethod(
        id=new_id(),
        organization_id=organization_id,
        type=card.type,
        provider=provider,
        provider_customer_id=customer,
        provider_payment_method_id=card.id,
        last_four=card.last4 or None,
        brand=card.brand or None,
        exp_month=card.exp_month,
        exp_year=card.exp_year,
        extra={"fingerprint": card.fingerprint} if card.fingerprint else {},
        created_at=at,
    )
    session.add(method)
    session.flush()
    audit.record(session, actor, "payment_method.added", method, at=at, brand=method.brand, last_four=method.last_four)
    has_default = session.scalar(select(exists().where(_usable(organization_id), PaymentMethod.is_default)))
    if make_default or not has_default:
        _make_default(session, method)
    rearm(session, organization_id, at=at)
    return method


def set_default(session: Session, organization_id: uuid.UUID, method_id: uuid.UUID, *, at: datetime, actor: Actor) -> PaymentMethod:
    """Charge this method from now on, invoices that wait for one at once; NotFound for a stranger's or a removed one."""
    method = _locked(session, organization_id, method_id)
    if not method.is_default:
        _make_default(session, method)
        audit.record(session, actor, "payment_method.made_default", method, at=at, brand=method.brand, last_four=method.last_four)
        rearm(session, organization_id, at=at)
    return method


def remove(organization_id: uuid.UUID, method_id: uuid.UUID, *, at: datetime, actor: Actor) -> None:
    """Forget a method, here and at the provider. Call it outside of a transaction.

    Conflict, with the reason, while a payment with it is on its way, and for the last method of an account whose subscription is charged
    automatically: save another one first.
    """
    with transaction() as session:
        method = _locked(session, organization_id, method_id)
        _check_removable(session, method)
        method.removed_at, was_default, method.is_default = at, method.is_default, False
        session.flush()
        if was_default:
            heir = session.scalars(
                select(PaymentMethod).where(_usable(organization_id)).order_by(PaymentMethod.id.desc()).limit(1)
            ).one_or_none()
            if heir is not None:
                _make_default(session, heir)
        instead_of = {"payment_method_id": None}
        session.execute(update(Subscription).where(Subscription.payment_method_id == method_id).values(instead_of))
        audit.record(session, actor, "payment_method.removed", method, at=at, brand=method.brand, last_four=method.last_four)
        provider, token = method.provider, method.provider_payment_method_id
    detach(method_id, provider=provider, token=token)


def detach(method_id: uuid.UUID, *, provider: str, token: str) -> None:
    """Let the provider forget a removed method too; when it does not answer, reconciliation asks again."""
    try:
        gateway(provider).detach_payment_method(token)
    except ProviderUnavailable as error:
        log.warning("payment method %s is removed here, but not yet at %s: %s", method_id, provider, error)
        return
    with transaction() as session:
        method = session.get_one(PaymentMethod, method_id, with_for_update=True, populate_existing=True)
        method.extra = {**method.extra, "detached": True}


def _check_removable(session: Session, method: PaymentMethod) -> None:
    busy = exists().where(BillingTransaction.payment_method_id == method.id, BillingTransaction.status.in_(LIVE))
    if session.scalar(select(busy)):
        raise Conflict("A payment with this method is on its way; remove it when it is settled.", code="payment_in_progress")
    if session.scalar(select(exists().where(_usable(method.organization_id), PaymentMethod.id != method.id))):
        return
    needs = exists().where(
        Subscription.organization_id == method.organization_id,
        Subscription.status.in_(RUNNING),
        Organization.id == Subscription.organization_id,
        Organization.auto_collect,
    )
    if session.scalar(select(needs)):
        raise Conflict(
            "This is the only payment method of an account with a running subscription. Save another one first.", code="last_payment_method"
        )


def _make_default(session: Session, method: PaymentMethod) -> None:
    session.execute(
        update(PaymentMethod)
        .where(PaymentMethod.organization_id == method.organization_id, PaymentMethod.is_default)
        .values(is_default=False)
    )
    method.is_default = True
    session.flush()


def _locked(session: Session, organization_id: uuid.UUID, method_id: uuid.UUID) -> PaymentMethod:
    _lock_methods(session, organization_id)
    method = session.scalars(
        select(PaymentMethod).where(_usable(organization_id), PaymentMethod.id == method_id).execution_options(populate_existing=True)
    ).one_or_none()
    if method is None:
        raise NotFound("There is no such payment method.")
    return method


def _lock_methods(session: Session, organization_id: uuid.UUID) -> None:
    """One change of an organization's methods at a time; rows that refer to the organization may be written meanwhile."""
    session.execute(select(Organization.id).where(Organization.id == organization_id).with_for_update(key_share=True))


def _usable(organization_id: uuid.UUID):  # type: ignore[no-untyped-def]  # SQLAlchemy's own expression type
    return (PaymentMethod.organization_id == organization_id) & PaymentMethod.removed_at.is_(None)
