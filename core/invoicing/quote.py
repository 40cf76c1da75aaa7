"""Quotes of a plan change: a locked price for fifteen minutes. Confirming one charges exactly what it said, or refuses and says why.

A quote is the same computation as the invoice it leads to: what the timeline would owe with the change, less what is billed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.catalog.models import PlanKind, PlanVersion
from core.db import new_id
from core.errors import Conflict, FieldError, NotFound
from core.identity.models import Organization
from core.invoicing import draft, finalize, wishes
from core.invoicing import figure as figures
from core.invoicing.models import Invoice, InvoiceStatus
from core.invoicing.statement import Statement
from core.invoicing.wishes import AddOnWish, PlanWish, Settled
from core.money import plain
from core.subscriptions import plan_change
from core.subscriptions import queries as subscriptions
from core.subscriptions.models import PlanChangeQuote, QuoteSubject, Subscription
from core.subscriptions.status import Act, require

VALID_FOR = timedelta(minutes=15)


class QuoteChanged(Conflict):
    """The quote no longer holds; `total_minor` is what the change would cost now (None when it cannot be said). Make a new quote.

    `errors` name each line that is another now, with both amounts.
    """

    code, title = "quote_changed", "The amount has changed"

    def __init__(
        self, message: str, *, total_minor: int | None = None, code: str | None = None, errors: tuple[FieldError, ...] = ()
    ) -> None:
        super().__init__(message, code=code, errors=errors)
        self.total_minor = total_minor


def create(
    session: Session,
    organization_id: uuid.UUID,
    subscription_id: uuid.UUID,
    *,
    to: PlanVersion,
    when: str | datetime,
    at: datetime,
    actor: Actor,
    quantity: Decimal | None = None,
    quantities: Mapping[str, Decimal] | None = None,
    backdate: bool = False,
) -> PlanChangeQuote:
    """Price the change `now`, at `period_end` or at an instant, and lock it for VALID_FOR. A later change costs nothing today.

    With `backdate` the instant may lie behind, as far as cycles are open. Where the plan leaves differences to the next invoice, the
    lines are those it will have, and confirming charges nothing today.
    Errors are those of plan_change.effective_at and proposed_terms, NotFound for a stranger's subscription.
    """
    subscription = subscriptions.subscription(session, organization_id, subscription_id)
    effective = plan_change.effective_at(subscription, when, at=at, backdate=backdate)
    wish = PlanWish(to, quantity, effective, made_at=at, quantities=quantities or {})
    quote = _locked_price(session, subscription, wish, when)
    quote.quantity = plan_change.holding(subscription, effective, at=at).quantity if quantity is None else quantity
    quote.quantities = {name: plain(held) for name, held in wish.quantities.items()}
    return _stored(session, quote, actor)


def create_for_add_on(
    session: Session,
    organization_id: uuid.UUID,
    subscription_id: uuid.UUID,
    *,
    version: PlanVersion,
    quantity: Decimal,
    when: str | datetime,
    at: datetime,
    actor: Actor,
    item_id: uuid.UUID | None = None,
) -> PlanChangeQuote:
    """Price holding `quantity` of the add-on `version` from `when` (0: none any more), of the item held or of a new one, and lock it.

    Of a coupon there is one, for whole periods, or none any more once the running period has ended.
    Errors are those of items.arranged; NotFound for a stranger's subscription.
    """
    subscription = subscriptions.subscription(session, organization_id, subscription_id)
    require(subscription, Act.CHANGE_PLAN, at)
    if version.plan.kind == PlanKind.COUPON:
        when, quantity = ("period_end", quantity) if item_id else (when, Decimal(1))
    wish = AddOnWish(version, quantity, plan_change.effective_at(subscription, when, at=at), at, item_id)
    quote = _locked_price(session, subscription, wish, when)
    quote.subject, quote.quantity, quote.item_id = QuoteSubject.ADD_ON, quantity, item_id
    return _stored(session, quote, actor)


def again(session: Session, organization_id: uuid.UUID, quote_id: uuid.UUID, *, at: datetime, actor: Actor) -> PlanChangeQuote:
    """A new quote for what an old one was made for, as of `at`. Errors as `create`."""
    old = get(session, organization_id, quote_id)
    version, when = session.get_one(PlanVersion, old.plan_version_id), old.effective_at if old.when == "date" else old.when
    if old.subject == QuoteSubject.ADD_ON:
        return create_for_add_on(
            session,
            organization_id,
            old.subscription_id,
            version=version,
            quantity=old.quantity,
            when=when,
            at=at,
            actor=actor,
            item_id=old.item_id,
        )
    held = {name: Decimal(quantity) for name, quantity in old.quantities.items()}
    return create(
        session,
        organization_id,
        old.subscription_id,
        to=version,
        when=when,
        at=at,
        actor=actor,
        quantity=old.quantity,
        quantities=held,
    )


def _locked_price(session: Session, subscription: Subscription, wish: wishes.Wish, when: str | datetime) -> PlanChangeQuote:
    figure, to = wishes.figure(session, wish, subscription, at=wish.made_at), wish.to
    return PlanChangeQuote(
        id=new_id(),
        organization_id=subscription.organization_id,
        subscription_id=subscription.id,
        plan_version_id=to.id,
        effective_at=wish.effective_at,
        when=when if isinstance(when, str) else "date",
        currency=subscription.currency,
        subtotal_minor=figure.net,
        tax_minor=figure.tax,
        total_minor=figure.total,
        content={
            "lines": figure.lines,
            "taxes": figure.taxes,
            "plan": to.plan.code,
            "plan_name": to.plan.name,
            "version": to.version,
            "billed": wishes.settled(wish, subscription),
        },
        digest=wishes.digest(wish, subscription, figure),
        created_at=wish.made_at,
        expires_at=wish.made_at + VALID_FOR,
    )


def _stored(session: Session, quote: PlanChangeQuote, actor: Actor) -> PlanChangeQuote:
    session.add(quote)
    session.flush()
    facts: dict[str, Any] = {"plan": quote.content["plan"], "total_minor": quote.total_minor, "effective_at": quote.effective_at}
    audit.record(session, actor, "plan_change.quoted", quote, at=quote.created_at, **facts)
    return quote


def confirm(session: Session, organization_id: uuid.UUID, quote_id: uuid.UUID, *, at: datetime, actor: Actor) -> Invoice | None:
    """Carry the quoted change out; returns the invoice of a change that holds now, None of a later one. Twice is once.

    A draft that waits for the subscription is finalized first. QuoteChanged when the quote expired or the amount is another now:
    then nothing has happened.
    """
    quote = session.scalars(
        select(PlanChangeQuote)
        .where(PlanChangeQuote.organization_id == organization_id, PlanChangeQuote.id == quote_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if quote is None:
        raise NotFound("There is no such quote.")
    if quote.confirmed_at is not None:
        return _invoice_of(session, quote)
    subscription = subscriptions.locked(session, subscriptions.subscription(session, organization_id, quote.subscription_id))
    version = session.get_one(PlanVersion, quote.plan_version_id)
    _check_time(quote, at)
    wish = wishes.quoted(quote, version)
    billed_now = wishes.settled(wish, subscription) is Settled.NOW
    if billed_now:
        _finish_draft(session, subscription, at, actor)
    figure = wishes.figure(session, wish, subscription, at=at, uncounted=(InvoiceStatus.DRAFT, InvoiceStatus.VOID))
    if wishes.digest(wish, subscription, figure) != quote.digest:
        found = figures.differences(quote.content["lines"], figure.lines, quote.currency)
        raise QuoteChanged("The amount has changed since the quote was made.", total_minor=figure.total, errors=found)
    wish.carry_out(session, subscription, at=at, actor=actor)
    invoice = _bill(session, quote, at, actor) if billed_now else None
    if invoice is not None and invoice.total_minor != quote.total_minor:
        raise QuoteChanged("The amount has changed since the quote was made.", total_minor=invoice.total_minor)
    quote.confirmed_at = at
    quote.content = {**quote.content, "invoice_id": str(invoice.id) if invoice else None}
    session.flush()
    audit.record(session, actor, "plan_change.confirmed", quote, at=at, total_minor=quote.total_minor)
    return invoice


def get(session: Session, organization_id: uuid.UUID, quote_id: uuid.UUID) -> PlanChangeQuote:
    """A quote of the organization; NotFound."""
    wanted = select(PlanChangeQuote).where(PlanChangeQuote.organization_id == organization_id, PlanChangeQuote.id == quote_id)
    quote = session.scalars(wanted).one_or_none()
    if quote is None:
        raise NotFound("There is no such quote.")
    return quote


def statement(quote: PlanChangeQuote, organization: Organization) -> Statement:
    """The quote as it was made, as a Statement."""
    return figures.statement(
        quote.content["lines"], quote.content["taxes"], organization, quote.currency, title="The change", total=total_label(quote)
    )


def total_label(quote: PlanChangeQuote) -> str:
    """What the quote's total is for its customer."""
    if quote.content.get("billed") == Settled.NEXT_INVOICE:
        return "On your next invoice"
    return "Due now" if quote.total_minor >= 0 else "Credit to your account"


def _check_time(quote: PlanChangeQuote, at: datetime) -> None:
    if at > quote.expires_at:
        raise QuoteChanged("The quote has expired; make a new one.", code="quote_expired")


def _finish_draft(session: Session, subscription: Subscription, at: datetime, actor: Actor) -> None:
    """What was rated before the change is invoiced before it, so that the change's invoice holds the change alone."""
    waiting = session.scalars(
        select(Invoice).where(Invoice.subscription_id == subscription.id, Invoice.status == InvoiceStatus.DRAFT).with_for_update()
    ).one_or_none()
    if waiting is None:
        return
    if waiting.held_reason is not None:
        raise Conflict("An invoice of this subscription is being reviewed; the plan can change when it is issued.", code="draft_held")
    finalize.finalize_many(session, [waiting.id], at=at, actor=actor)


def _bill(session: Session, quote: PlanChangeQuote, at: datetime, actor: Actor) -> Invoice | None:
    made = draft.bill(session, quote.subscription_id, as_of=quote.created_at, actor=actor)
    return None if made is None else finalize.finalize_invoice(session, made.id, at=at, actor=actor)


def _invoice_of(session: Session, quote: PlanChangeQuote) -> Invoice | None:
    found = quote.content.get("invoice_id")
    return session.get(Invoice, uuid.UUID(found)) if found else None
