"""Quotes of a plan change: a locked price for fifteen minutes. Confirming one charges exactly what it said, or refuses and says why.

A quote is the same computation as the invoice it leads to: what the timeline would owe with the change, less what is billed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit, config
from core.audit import Actor, plain
from core.catalog.models import PlanVersion
from core.db import new_id
from core.errors import Conflict, NotFound
from core.identity.models import Organization
from core.invoicing import draft, finalize, lines, rating, statements, taxes
from core.invoicing.models import Invoice, InvoiceStatus
from core.invoicing.rating import Subject
from core.invoicing.statement import Statement
from core.invoicing.statements import Labels, Line, Reader, Tax
from core.pricing.tax import totals
from core.subscriptions import plan_change
from core.subscriptions import queries as subscriptions
from core.subscriptions.models import PlanChangeQuote, Subscription

VALID_FOR = timedelta(minutes=15)


class QuoteChanged(Conflict):
    """The quote no longer holds; `total_minor` is what the change would cost now (None when it cannot be said). Make a new quote."""

    code, title = "quote_changed", "The amount has changed"

    def __init__(self, message: str, *, total_minor: int | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.total_minor = total_minor


@dataclass(frozen=True, slots=True)
class _Figure:
    """What the change costs now: lines as JSON values, taxes, sums."""

    content: dict[str, Any]
    net: int
    tax: int
    total: int
    digest: bytes


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
) -> PlanChangeQuote:
    """Price the change `now`, at `period_end` or at an instant, and lock it for VALID_FOR. A later change costs nothing today.

    Errors are those of plan_change.effective_at and proposed_terms, NotFound for a stranger's subscription.
    """
    subscription = subscriptions.subscription(session, organization_id, subscription_id)
    effective = plan_change.effective_at(subscription, when, at=at)
    figure = _figure(session, subscription, to, quantity, effective, at, counted=(InvoiceStatus.VOID,))
    quote = PlanChangeQuote(
        id=new_id(),
        organization_id=organization_id,
        subscription_id=subscription_id,
        plan_version_id=to.id,
        quantity=_quantity(subscription, quantity, effective),
        effective_at=effective,
        when=when if isinstance(when, str) else "date",
        currency=subscription.currency,
        subtotal_minor=figure.net,
        tax_minor=figure.tax,
        total_minor=figure.total,
        content={**figure.content, "plan": to.plan.code, "plan_name": to.plan.name, "version": to.version},
        digest=figure.digest,
        created_at=at,
        expires_at=at + VALID_FOR,
    )
    session.add(quote)
    session.flush()
    audit.record(session, actor, "plan_change.quoted", quote, at=at, plan=to.plan.code, total_minor=figure.total, effective_at=effective)
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
    _finish_draft(session, subscription, at, actor)
    figure = _figure(
        session, subscription, version, quote.quantity, quote.effective_at, at, counted=(InvoiceStatus.DRAFT, InvoiceStatus.VOID)
    )
    if figure.digest != quote.digest:
        raise QuoteChanged("The amount has changed since the quote was made.", total_minor=figure.total)
    plan_change.apply(session, subscription, to=version, quantity=quote.quantity, at=at, effective_at=quote.effective_at, actor=actor)
    invoice = _bill(session, quote, at, actor) if quote.effective_at <= at else None
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
    found = [_line(entry) for entry in quote.content["lines"]]
    tax = [
        Tax(entry["name"], Decimal(entry["rate_percent"]), entry["taxable_minor"], entry["tax_minor"], entry["note"])
        for entry in quote.content["taxes"]
    ]
    reader = Reader(quote.currency, organization.timezone, organization.locale)
    return statements.build(
        found, tax, reader, Labels("The change", total="Due now" if quote.total_minor >= 0 else "Credit to your account")
    )


def _figure(
    session: Session,
    subscription: Subscription,
    to: PlanVersion,
    quantity: Decimal | None,
    effective: datetime,
    at: datetime,
    *,
    counted: Sequence[InvoiceStatus],
) -> _Figure:
    terms = plan_change.proposed_terms(subscription, to, quantity, effective)
    organization = session.get_one(Organization, subscription.organization_id)
    rows: list[dict[str, Any]] = []
    if effective <= at:
        subject = Subject(subscription.id, subscription.organization_id, subscription.currency, terms, effective)
        [rated] = rating.rate(session, [subject], adjustment_days=config.current().adjustment_days, uncounted=counted)
        rows = lines.rows(rated, lines.rule_names(session, {item.key.rule_id for item in rated.items}))
    point = (organization.id, taxes.local_day(at, organization.timezone))
    assessment = taxes.assessments(session, [point])[point]
    sums = totals([(sum(row["amount_minor"] for row in rows), assessment.rate_percent)], subscription.currency)
    kept = [{name: plain(row[name]) for name in _KEPT} | {"detail": row["detail"]()} for row in rows]
    tax = {"name": assessment.name, "rate_percent": str(assessment.rate_percent), "note": assessment.note}
    content = {"lines": kept, "taxes": [{**tax, "taxable_minor": group.net, "tax_minor": group.tax} for group in sums.groups]}
    priced = [[row["code"], row["cycle_start"], row["quantity"], row["amount_minor"]] for row in kept]
    said = [str(subscription.id), str(to.id), effective.isoformat(), priced, sums.total]
    digest = hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).digest()
    return _Figure(content, sums.net, sums.tax, sums.total, digest)


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
    made = draft.bill(session, quote.subscription_id, as_of=quote.effective_at, actor=actor)
    return None if made is None else finalize.finalize_invoice(session, made.id, at=at, actor=actor)


def _invoice_of(session: Session, quote: PlanChangeQuote) -> Invoice | None:
    found = quote.content.get("invoice_id")
    return session.get(Invoice, uuid.UUID(found)) if found else None


def _quantity(subscription: Subscription, quantity: Decimal | None, effective: datetime) -> Decimal:
    if quantity is not None:
        return quantity
    running = [term for term in subscription.terms if term.start_at <= effective]
    return running[-1].quantity if running else Decimal(1)


def _line(entry: dict[str, Any]) -> Line:
    """A line as it was stored in the quote."""
    return Line(
        **{name: entry[name] for name in ("code", "name", "unit", "kind", "amount_minor", "detail")},
        quantity=Decimal(entry["quantity"]),
        window_start=datetime.fromisoformat(entry["window_start"]),
        window_end=datetime.fromisoformat(entry["window_end"]),
        metric_id=uuid.UUID(entry["metric_id"]) if entry["metric_id"] else None,
    )


_KEPT = (
    "code",
    "name",
    "unit",
    "kind",
    "amount_minor",
    "quantity",
    "window_start",
    "window_end",
    "cycle_start",
    "cycle_end",
    "metric_id",
)
