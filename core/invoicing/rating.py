"""Rating in sets: the timelines of many subscriptions, what they owe, what was billed, and so the lines that are due.

The one place where pricing meets stored usage. A draft, a quote, a preview and a what-if all ask here; they differ in the terms and in
the instant they ask about.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy.orm import Session

from core.invoicing import billed
from core.invoicing.billed import UNBILLED, BilledKeys
from core.invoicing.models import InvoiceStatus
from core.metering import queries as metering
from core.pricing.terms import Kind, LineKey, Segment, Term
from core.pricing.timeline import LineItem, Owed, due, owed, segments

Usage = Mapping[tuple[str, datetime, datetime], Decimal]


@dataclass(frozen=True, slots=True)
class Subject:
    """A timeline to be rated at the instant `as_of`, stored or only proposed."""

    subscription_id: uuid.UUID
    organization_id: uuid.UUID
    currency: str
    terms: tuple[Term, ...]
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Rated:
    """What a subject owes by its instant, what was billed of it, and the lines still due."""

    subject: Subject
    owed: dict[LineKey, Owed]
    billed: BilledKeys
    items: list[LineItem] = field(default_factory=list)


def rate(
    session: Session,
    subjects: Sequence[Subject],
    *,
    adjustment_days: int,
    uncounted: Collection[InvoiceStatus] = UNBILLED,
) -> list[Rated]:
    """Rate every subject with one reading of usage and one of what was billed. Cycles closed for `adjustment_days` stay closed."""
    closed = {subject.subscription_id: subject.as_of - timedelta(days=adjustment_days) for subject in subjects}
    if not closed:
        return []
    owing = owe(session, subjects, lambda subject: segments(subject.terms, as_of=subject.as_of, since=closed[subject.subscription_id]))
    issued = billed.sums(session, closed.keys(), open_at=min(closed.values()), uncounted=uncounted)
    return [
        _rated(subject, owing[at], issued[subject.subscription_id], closed[subject.subscription_id]) for at, subject in enumerate(subjects)
    ]


def owe(session: Session, subjects: Sequence[Subject], cut: Callable[[Subject], list[Segment]]) -> list[dict[LineKey, Owed]]:
    """Price the segments that `cut` makes of each subject's terms, in order; usage is read once for all of them."""
    pieces = [cut(subject) for subject in subjects]
    usage = _usage(
        session, [(subject.organization_id, segment) for subject, cuts in zip(subjects, pieces, strict=True) for segment in cuts]
    )
    return [owed(cuts, usage.get(subject.organization_id, {}), subject.currency) for subject, cuts in zip(subjects, pieces, strict=True)]


def _rated(subject: Subject, owing: dict[LineKey, Owed], issued: BilledKeys, closed: datetime) -> Rated:
    known = {key: entry for key, entry in issued.items() if entry.cycle_end > closed}
    return Rated(subject, owing, known, due(owing, {key: entry.minor for key, entry in known.items()}))


def _usage(session: Session, pieces: Sequence[tuple[uuid.UUID, Segment]]) -> dict[uuid.UUID, dict[tuple[str, datetime, datetime], Decimal]]:
    """The usage of every usage segment, by organization and by the key the kernel asks with."""
    metric_ids: dict[str, uuid.UUID] = {}
    wanted: set[tuple[uuid.UUID, uuid.UUID, datetime, datetime]] = set()
    for organization_id, segment in pieces:
        name = segment.rule.metric_id
        if segment.rule.kind is Kind.USAGE and name is not None:
            metric_id = metric_ids.get(name) or metric_ids.setdefault(name, uuid.UUID(name))
            wanted.add((organization_id, metric_id, segment.window.start, segment.window.end))
    names = {metric_id: name for name, metric_id in metric_ids.items()}
    found: dict[uuid.UUID, dict[tuple[str, datetime, datetime], Decimal]] = {}
    sums = metering.usage_sums(session, wanted) if wanted else {}
    for question in wanted:
        organization_id, metric_id, start, end = question
        found.setdefault(organization_id, {})[names[metric_id], start, end] = sums[question]
    return found
