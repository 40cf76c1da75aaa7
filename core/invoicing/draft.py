"""Drafts: what a subscription owes less what was billed becomes the lines of its one draft invoice.

A draft can be made again at any moment: the same timeline and usage give the same draft, and nothing is owed twice because only issued
lines count as billed. Many subscriptions are billed in one transaction, with a fixed number of statements whatever their number.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import config, jobs
from core.audit import Actor
from core.db import among
from core.errors import Conflict, NotFound
from core.invoicing import claim, contents, lines, rating, run_errors
from core.invoicing.claim import Claimed
from core.invoicing.contents import Content
from core.invoicing.models import Invoice, InvoiceReason, InvoiceStatus
from core.invoicing.rating import Rated, Subject
from core.periods import cycle_containing
from core.pricing.terms import Kind, Term
from core.pricing.timeline import LineItem, LineKind
from core.subscriptions import timeline

AT_ONCE = (InvoiceReason.START, InvoiceReason.CHANGE, InvoiceReason.TERMINATION)
"""Reasons for which the customer waits: these drafts are finalized without the grace that lets late usage in."""
SET_SIZE_MAX = 1_000
JOBS_PER_SET_MAX = 50


@dataclass(frozen=True, slots=True)
class _Billing:
    """Who bills, and for which run."""

    actor: Actor
    run_id: uuid.UUID | None
    keep: bool = False
    """Look at existing drafts again without moving the subscription on."""


def bill_many(
    session: Session, subscription_ids: Collection[uuid.UUID], *, as_of: datetime, actor: Actor, run_id: uuid.UUID | None = None
) -> list[uuid.UUID]:
    """Rate the given subscriptions where something is due by `as_of`, at most SET_SIZE_MAX a call; returns the ids of their drafts.

    Those that somebody else holds, or that are no longer due, are left out. One that cannot be rated is recorded as a RunError and does
    not stop the others. Drafts of a run wait for a person; others are finalized by the sweep at `auto_finalize_at`.
    """
    billing = _Billing(actor, run_id)

    def bill_set(ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
        made: dict[uuid.UUID, None] = {}
        while claimed := claim.lock_due(session, ids, as_of=as_of):
            made |= dict.fromkeys(_bill(session, claimed, billing))
        return list(made)

    return run_errors.isolate(session, list(subscription_ids), bill_set, run_id=run_id, at=as_of)


def bill(session: Session, subscription_id: uuid.UUID, *, as_of: datetime, actor: Actor) -> Invoice | None:
    """Put everything due by `as_of` on the subscription's draft; None when nothing is. NotFound for an unknown subscription."""
    claimed = claim.lock(session, [subscription_id], as_of=as_of)
    if not claimed:
        raise NotFound("There is no such subscription.")
    made = _bill(session, claimed, _Billing(actor, None))
    return session.get_one(Invoice, made[0], populate_existing=True) if made else None


def refresh(session: Session, invoice_id: uuid.UUID, *, as_of: datetime, actor: Actor) -> Invoice | None:
    """Rate a draft again with the usage known now, as of the instant it was made for; None when nothing is left on it.

    NotFound for an unknown invoice, Conflict for one that is finalized. `as_of` stands in for a draft that was never billed.
    """
    invoice = session.get(Invoice, invoice_id)
    if invoice is None:
        raise NotFound("There is no such invoice.")
    if invoice.status != InvoiceStatus.DRAFT:
        raise Conflict(f"The invoice is {invoice.status}: only a draft can be rated again.", code="not_a_draft")
    refresh_many(session, [invoice_id], at=as_of, actor=actor)
    return session.get(Invoice, invoice_id, populate_existing=True)


def refresh_many(session: Session, invoice_ids: Collection[uuid.UUID], *, at: datetime, actor: Actor) -> None:
    """Rate the drafts again, in sets; drafts without a subscription only have their taxes assessed anew."""
    wanted = select(Invoice.subscription_id).where(among(Invoice.id, invoice_ids), Invoice.status == InvoiceStatus.DRAFT)
    subscription_ids = [found for found in session.scalars(wanted) if found is not None]
    if subscription_ids:
        _bill(session, claim.lock_as_billed(session, subscription_ids, at=at), _Billing(actor, None, keep=True))


def _bill(session: Session, claimed: Sequence[Claimed], billing: _Billing) -> list[uuid.UUID]:
    """Rate, write the drafts, move the subscriptions on; returns the ids of the drafts that hold something."""
    if not claimed:
        return []
    settings = config.current()
    terms = timeline.load(session, [entry.id for entry in claimed])
    subjects = [Subject(entry.id, entry.organization_id, entry.currency, terms[entry.id], entry.as_of) for entry in claimed]
    rated = rating.rate(session, subjects, adjustment_days=settings.adjustment_days)
    names = lines.rule_names(session, {item.key.rule_id for entry in rated for item in entry.items})
    grace = timedelta(seconds=settings.invoice_grace_seconds)
    wanted = [_content(entry, result, names, grace, billing) for entry, result in zip(claimed, rated, strict=True)]
    written = contents.write(session, wanted, actor=billing.actor)
    if not billing.keep:
        claim.advance(session, [(entry, terms[entry.id]) for entry in claimed])
        run_errors.resolve(session, [entry.id for entry in claimed], at=claimed[0].as_of)
        _ring(session, wanted, written)
    return list(written.values())


def _content(entry: Claimed, rated: Rated, names: dict[str, lines.RuleName], grace: timedelta, billing: _Billing) -> Content:
    why = reason(entry, rated)
    period = lines.service_period(rated.items, rated)
    waits_for_a_person = billing.run_id is not None
    return Content(
        subscription_id=entry.id,
        organization_id=entry.organization_id,
        currency=entry.currency,
        timezone=entry.timezone,
        at=entry.as_of,
        reason=why,
        run_id=billing.run_id,
        period=period,
        auto_finalize_at=None if waits_for_a_person else entry.as_of + (timedelta() if why in AT_ONCE else grace),
        keep_schedule=billing.keep,
        rows=lines.rows(rated, names),
    )


def reason(entry: Claimed, rated: Rated) -> InvoiceReason:
    """Why the invoice exists: the timeline is over, it has just begun, a cycle went by, or it turned inside one."""
    terms = rated.subject.terms
    if terms and terms[-1].end is not None and terms[-1].end <= entry.as_of:
        return InvoiceReason.TERMINATION
    if not rated.billed and all(item.owed and item.owed.cycle.end > entry.as_of for item in rated.items):
        return InvoiceReason.START
    if any(term.start < entry.as_of and _begins_cycle(term, entry.as_of) for term in terms if not term.is_trial):
        return InvoiceReason.PERIOD
    changed = _turned(terms, after=entry.billed_through, by=entry.as_of) or any(_takes_back(item) for item in rated.items)
    return InvoiceReason.CHANGE if changed else InvoiceReason.PERIOD


def _begins_cycle(term: Term, at: datetime) -> bool:
    """Whether the term goes on over the beginning of a cycle at `at`."""
    return (term.end is None or term.end > at) and cycle_containing(term.anchor, at).start == at


def _takes_back(item: LineItem) -> bool:
    """Whether a fee that was billed is another one now: a change that holds from an earlier day."""
    return item.kind is not LineKind.CHARGE and item.rule is not None and item.rule.kind is Kind.RECURRING


def _turned(terms: tuple[Term, ...], *, after: datetime | None, by: datetime) -> bool:
    """Whether a term gave way to another inside a cycle, after the last billing."""
    return any(
        (after is None or after < later.start <= by)
        and not earlier.is_trial
        and cycle_containing(earlier.anchor, later.start).start != later.start
        for earlier, later in pairwise(terms)
        if later.start <= by
    )


def _ring(session: Session, wanted: Sequence[Content], written: Mapping[uuid.UUID, uuid.UUID]) -> None:
    """Ask for the drafts somebody waits for to be finalized; those of a large set the sweep finds by state."""
    awaited = [written[c.subscription_id] for c in wanted if c.reason in AT_ONCE and c.run_id is None and c.subscription_id in written]
    for invoice_id in awaited if len(awaited) <= JOBS_PER_SET_MAX else []:
        jobs.enqueue(session, "finalize_invoice", invoice_id)
