"""What a quote is asked for: another plan or quantity, or more, fewer or none of an add-on. What it costs, and doing it.

The figure is the one billing would make; the digest is over everything the customer agrees to.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy.orm import Session

from core.audit import Actor
from core.catalog.models import PlanVersion
from core.invoicing import figure as figures
from core.invoicing.figure import Figure
from core.invoicing.models import InvoiceStatus
from core.pricing.terms import Term
from core.subscriptions import items, plan_change, timeline
from core.subscriptions.models import PlanChangeQuote, QuoteSubject, Subscription

NOT_VOID = (InvoiceStatus.VOID,)


class Settled(StrEnum):
    """Where the quote's lines are charged: on an invoice of its own, on the next one, or later, as they fall due."""

    NOW = "now"
    NEXT_INVOICE = "next_invoice"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class PlanWish:
    """Another plan or other quantities from `effective_at`, priced as of `made_at`; quantities not given stay."""

    to: PlanVersion
    quantity: Decimal | None
    effective_at: datetime
    made_at: datetime
    quantities: Mapping[str, Decimal] = field(default_factory=dict)

    def terms(self, subscription: Subscription) -> tuple[Term, ...]:
        """The timeline it would make; nothing is saved. Errors of plan_change.proposed_terms."""
        return plan_change.proposed_terms(subscription, self.to, self.quantity, self.effective_at, self.quantities, at=self.made_at)

    def carry_out(self, session: Session, subscription: Subscription, *, at: datetime, actor: Actor) -> None:
        """Make it so; errors of plan_change.apply."""
        plan_change.apply(
            session,
            subscription,
            to=self.to,
            quantity=self.quantity,
            quantities=self.quantities,
            at=at,
            effective_at=self.effective_at,
            actor=actor,
        )


@dataclass(frozen=True, slots=True)
class AddOnWish:
    """So many of an add-on (0: none) from `effective_at`, of the one held as `item_id` or of a new one, priced as of `made_at`."""

    to: PlanVersion
    quantity: Decimal
    effective_at: datetime
    made_at: datetime
    item_id: uuid.UUID | None = None

    def terms(self, subscription: Subscription) -> tuple[Term, ...]:
        """The timeline it would make; nothing is saved. Errors of items.arranged."""
        wanted = items.arranged(subscription, version=self.to, quantity=self.quantity, effective_at=self.effective_at, item_id=self.item_id)
        return timeline.terms(replace(span, items=wanted) for span in timeline.spans(subscription))

    def carry_out(self, session: Session, subscription: Subscription, *, at: datetime, actor: Actor) -> None:
        """Make it so; errors of items.hold."""
        items.hold(
            session,
            subscription,
            version=self.to,
            quantity=self.quantity,
            item_id=self.item_id,
            effective_at=self.effective_at,
            at=at,
            actor=actor,
        )


Wish = PlanWish | AddOnWish


def quoted(quote: PlanChangeQuote, version: PlanVersion) -> Wish:
    """The wish a stored quote was made for."""
    if quote.subject == QuoteSubject.ADD_ON:
        return AddOnWish(version, quote.quantity, quote.effective_at, quote.created_at, quote.item_id)
    held = {name: Decimal(quantity) for name, quantity in quote.quantities.items()}
    return PlanWish(version, quote.quantity, quote.effective_at, quote.created_at, held)


def settled(wish: Wish, subscription: Subscription) -> Settled:
    """Where the difference is charged."""
    if wish.effective_at > wish.made_at:
        return Settled.LATER
    left = plan_change.version_at(subscription, wish.effective_at)
    return Settled.NEXT_INVOICE if plan_change.waits(left) else Settled.NOW


def figure(
    session: Session, wish: Wish, subscription: Subscription, *, at: datetime, uncounted: Collection[InvoiceStatus] = NOT_VOID
) -> Figure:
    """What it costs, as of the instant the quote was made, taxed at `at`; a change ahead costs nothing yet."""
    due, terms = wish.effective_at <= wish.made_at, wish.terms(subscription)
    return figures.of_terms(session, subscription, terms, as_of=wish.made_at, at=at, uncounted=uncounted, due=due)


def digest(wish: Wish, subscription: Subscription, found: Figure) -> bytes:
    """Over everything the customer agrees to: two figures with the same digest charge the same."""
    priced = [[row["code"], row["cycle_start"], row["quantity"], row["amount_minor"]] for row in found.lines]
    said = [str(subscription.id), str(wish.to.id), wish.effective_at.isoformat(), priced, found.total]
    return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).digest()
