"""Rating in sets: the timelines of many subscriptions, what they owe, what was billed, and so the lines that are due.

The one place where pricing meets stored usage. A draft, a quote, a preview and a what-if all ask here; they differ in the terms and in
the instant they ask about.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from core.invoicing import billed, measuring
from core.invoicing.billed import UNBILLED, BilledKeys
from core.invoicing.measuring import Asked, Reading
from core.invoicing.models import InvoiceStatus
from core.metering.reading import Measured, Question, ask
from core.metering.windows import Window
from core.pricing.segments import last_turn
from core.pricing.spend import Settled, following
from core.pricing.terms import ON_SPEND, Kind, LineKey, Segment, Term
from core.pricing.timeline import LineItem, Owed, due, owed, segments
from core.pricing.usage import Usage

Span = tuple[str, datetime, datetime]
"""A window of usage as the kernel names it: the metric, or the rule that reads more than its metric's quantity, start and end."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A timeline to be rated at the instant `as_of`, stored or only proposed."""

    subscription_id: uuid.UUID
    organization_id: uuid.UUID
    currency: str
    terms: tuple[Term, ...]
    as_of: datetime


Piece = tuple[Subject, Sequence[Segment]]
Readings = dict[tuple[uuid.UUID, Span], Reading]


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
    """Rate every subject with one reading of usage and one of what was billed.

    A cycle is closed once billing has looked at it `adjustment_days` after its end, or later. What was taken back since is open again, and
    a discount or commitment as long as a line is that it looks at.
    """
    return ask(session, rates(session, subjects, adjustment_days=adjustment_days, uncounted=uncounted)) if subjects else []


def rates(
    session: Session,
    subjects: Sequence[Subject],
    *,
    adjustment_days: int,
    uncounted: Collection[InvoiceStatus] = UNBILLED,
) -> Question[list[Rated]]:
    """`rate`, to be read together with other questions; what was billed is read with the answer."""
    taken_back = billed.taken_back(session, [subject.subscription_id for subject in subjects])
    open_ = {s.subscription_id: _opened(s, adjustment_days, taken_back[s.subscription_id]) for s in subjects}
    pieces = [(subject, open_[subject.subscription_id].segments(subject)) for subject in subjects]
    readings = _readings(pieces)

    def answer(measured: Measured) -> list[Rated]:
        issued = billed.sums(session, open_.keys(), open_at=_open_at(pieces, open_.values()), uncounted=uncounted)
        left = {s.subscription_id: open_[s.subscription_id].without(_staying(s, issued[s.subscription_id])) for s in subjects}
        settled = {subscription_id: found.settled(issued[subscription_id]) for subscription_id, found in left.items()}
        priced = _priced([(s, left[s.subscription_id].of(cuts)) for s, cuts in pieces], readings, measured, settled)
        return [
            _rated(subject, entry, issued[subject.subscription_id], left[subject.subscription_id])
            for subject, entry in zip(subjects, priced, strict=True)
        ]

    return Question(_windows(readings), answer)


def owe(session: Session, subjects: Sequence[Subject], cut: Callable[[Subject], list[Segment]]) -> list[dict[LineKey, Owed]]:
    """Price the segments that `cut` makes of each subject's terms, in order; usage is read once for all of them."""
    return ask(session, owing(subjects, cut))


def owing(subjects: Sequence[Subject], cut: Callable[[Subject], list[Segment]]) -> Question[list[dict[LineKey, Owed]]]:
    """`owe`, to be read together with other questions."""
    pieces = [(subject, cut(subject)) for subject in subjects]
    readings = _readings(pieces)
    return Question(_windows(readings), lambda measured: _priced(pieces, readings, measured, {}))


def _priced(
    pieces: Sequence[Piece], readings: Readings, measured: Measured, settled: Mapping[uuid.UUID, Mapping[LineKey, Settled]]
) -> list[dict[LineKey, Owed]]:
    usage: dict[uuid.UUID, dict[Span, Usage]] = {}
    for (organization_id, span), reading in readings.items():
        usage.setdefault(organization_id, {})[span] = reading.usage(measured)
    return [
        owed(cuts, usage.get(subject.organization_id, {}), subject.currency, settled.get(subject.subscription_id, {}))
        for subject, cuts in pieces
    ]


@dataclass(frozen=True, slots=True)
class _Open:
    """What is still rated: cycles that end after `closed` but for the keys that are `staying` as billed, and the `reopened` keys,
    whenever their cycles ended.
    """

    closed: datetime
    reopened: frozenset[LineKey]
    staying: frozenset[LineKey] = frozenset()

    @property
    def since(self) -> datetime:
        """Cycles that end by then are none of them."""
        return min((self.closed, *(key.cycle_start for key in self.reopened)))

    def holds(self, key: LineKey, cycle_end: datetime) -> bool:
        return (cycle_end > self.closed and key not in self.staying) or key in self.reopened

    def without(self, staying: frozenset[LineKey]) -> _Open:
        return replace(self, staying=staying) if staying else self

    def of(self, cuts: Sequence[Segment]) -> Sequence[Segment]:
        return [cut for cut in cuts if self.holds(cut.key, cut.cycle.end)] if self.staying else cuts

    def segments(self, subject: Subject) -> list[Segment]:
        cuts = segments(subject.terms, as_of=subject.as_of, since=self.since)
        return [cut for cut in cuts if self.holds(cut.key, cut.cycle.end)] if self.reopened else cuts

    def settled(self, issued: BilledKeys) -> dict[LineKey, Settled]:
        """What was billed in closed cycles."""
        return {
            key: Settled(entry.minor, entry.window, entry.in_advance)
            for key, entry in issued.items()
            if not self.holds(key, entry.cycle_end)
        }


def _staying(subject: Subject, issued: BilledKeys) -> frozenset[LineKey]:
    """Keys of cycles that are over and billed, whose metric ignores what comes late."""
    return frozenset(key for key, entry in issued.items() if entry.stays and entry.cycle_end <= subject.as_of)


def _opened(subject: Subject, adjustment_days: int, taken_back: Mapping[LineKey, datetime]) -> _Open:
    """Cycles are closed counted from the last look, so that what came late in between is billed by this one. Open again are what was
    taken back, and what looks at a line that is still open.
    """
    closed = last_turn(subject.terms, before=subject.as_of) - timedelta(days=adjustment_days)
    opened = _Open(closed, frozenset(key for key, cycle_end in taken_back.items() if cycle_end <= closed))
    return replace(opened, reopened=opened.reopened | _following(subject, opened))


def _following(subject: Subject, opened: _Open) -> frozenset[LineKey]:
    """Discounts and commitments of closed cycles that look at an open line of a longer one."""
    rules = [(term, rule) for term in subject.terms for rule in term.rules]
    if all(rule.kind not in ON_SPEND for _, rule in rules) or len({term.anchor_of(rule) for term, rule in rules}) == 1:
        return frozenset()
    lines = _by_key(cut for cut in opened.segments(subject) if cut.rule.kind not in ON_SPEND)
    begun = min((cuts[0].window.start for cuts in lines.values()), default=opened.closed)
    cuts = segments(subject.terms, as_of=subject.as_of, since=begun)
    closed = _by_key(cut for cut in cuts if cut.rule.kind in ON_SPEND and not opened.holds(cut.key, cut.cycle.end))
    return following(closed, lines) if closed else frozenset()


def _by_key(cuts: Iterable[Segment]) -> dict[LineKey, list[Segment]]:
    found: dict[LineKey, list[Segment]] = {}
    for cut in cuts:
        found.setdefault(cut.key, []).append(cut)
    return found


def _open_at(pieces: Sequence[Piece], opened: Collection[_Open]) -> datetime:
    """From when on what was billed is read: since the cycles that are open, and those that a price on spend still looks back on."""
    looked_at = (segment.cycle.start for _, cuts in pieces for segment in cuts if segment.rule.kind in ON_SPEND)
    return min((*(found.since for found in opened), *looked_at))


def _windows(readings: Readings) -> frozenset[Window]:
    return frozenset(window for reading in readings.values() for window in reading.windows)


def _rated(subject: Subject, owing: dict[LineKey, Owed], issued: BilledKeys, opened: _Open) -> Rated:
    known = {key: entry for key, entry in issued.items() if opened.holds(key, entry.cycle_end)}
    return Rated(subject, owing, known, due(owing, {key: entry.minor for key, entry in known.items()}))


def _readings(pieces: Sequence[Piece]) -> Readings:
    """What the usage segments read, by organization and by the name the kernel keeps usage under."""
    wanted: Readings = {}
    for subject, cuts in pieces:
        timezones = {term.id: term.anchor.timezone for term in subject.terms}
        for segment in cuts:
            if segment.rule.kind is not Kind.USAGE:
                continue
            key = subject.organization_id, (segment.rule.reads, segment.window.start, segment.window.end)
            if key not in wanted:
                asked = Asked(subject.organization_id, segment.window, segment.cycle, timezones[segment.term_id], segment.measured_from)
                wanted[key] = measuring.reading(segment.rule, asked)
    return wanted
