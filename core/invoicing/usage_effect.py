"""What a correction of usage does to money: what the timelines owe after it less what they owed before, by line and cycle.

The same rating as an invoice's. A cycle that is over becomes an adjustment on the next invoice; one that is closed for good is not
recomputed, so usage in it is not corrected either: the act is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import config
from core.audit import Actor
from core.errors import Conflict
from core.invoicing import rating
from core.invoicing.rating import Rated, Subject
from core.metering.corrections import events
from core.metering.corrections.events import Amendment, Correction
from core.periods import Period
from core.pricing.terms import Kind, Rule
from core.pricing.timeline import Owed, next_due
from core.subscriptions import timeline
from core.subscriptions.models import Subscription

T = TypeVar("T")


class _OnlyTried(Exception):
    """A dry run is over."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a line of one cycle owes before and after, net minor units. `adjusts`: the cycle is over, the next invoice settles it."""

    subscription_id: uuid.UUID
    code: str
    cycle: Period
    currency: str
    before_minor: int
    after_minor: int
    adjusts: bool

    @property
    def minor(self) -> int:
        """By how much more, or less, is owed."""
        return self.after_minor - self.before_minor


@dataclass(frozen=True, slots=True)
class Effect:
    """The lines that change; none where no price depends on the usage."""

    changes: tuple[Change, ...]

    def totals(self) -> dict[str, int]:
        """The difference by currency, in minor units."""
        found: dict[str, int] = {}
        for change in self.changes:
            found[change.currency] = found.get(change.currency, 0) + change.minor
        return found


def void(
    session: Session, organization_id: uuid.UUID, key: str, *, reason: str, actor: Actor, at: datetime, dry_run: bool = False
) -> tuple[Correction, Effect]:
    """As `events.void`, with its effect; with `dry_run` nothing stays changed. Conflict where the event's cycle is closed for good."""
    return measured(
        session,
        organization_id,
        lambda: events.void(session, organization_id, key, reason=reason, actor=actor, at=at),
        instants,
        at=at,
        dry_run=dry_run,
    )


def amend(
    session: Session,
    organization_id: uuid.UUID,
    key: str,
    amendment: Amendment,
    *,
    reason: str,
    actor: Actor,
    at: datetime,
    dry_run: bool = False,
) -> tuple[Correction, Effect]:
    """As `events.amend`; see `void`."""
    return measured(
        session,
        organization_id,
        lambda: events.amend(session, organization_id, key, amendment, reason=reason, actor=actor, at=at),
        instants,
        at=at,
        dry_run=dry_run,
    )


def instants(made: Correction) -> list[datetime]:
    """When the usage was that a correction touches."""
    return [made.old.timestamp] + ([made.new.timestamp] if made.new else [])


def measured(
    session: Session,
    organization_id: uuid.UUID,
    act: Callable[[], T],
    touched: Callable[[T], Iterable[datetime]],
    *,
    at: datetime,
    dry_run: bool = False,
) -> tuple[T, Effect]:
    """Carry out `act` and say what it changes; `touched` names instants of usage, each of which must still be billable."""
    with suppress(_OnlyTried), session.begin_nested():
        subjects = subjects_of(session, [organization_id], at)
        before = rated(session, subjects)
        done = act()
        after = rated(session, subjects)
        late = next((moment for moment in touched(done) if not all(_is_open(entry, moment) for entry in after)), None)
        if late is not None:
            raise Conflict(
                f"The billing period of {late:%Y-%m-%d} is closed for good: it ended more than {config.current().adjustment_days} days "
                "ago, or its metric ignores late usage. Settle the difference by a credit or a line written by hand.",
                code="period_closed",
            )
        if dry_run:
            raise _OnlyTried  # out of the savepoint: all of it is taken back
    return done, Effect(tuple(changes(before, after, at)))


def subjects_of(session: Session, organization_ids: Collection[uuid.UUID], at: datetime) -> list[Subject]:
    """Every subscription of the organizations, with what its next invoice looks at."""
    s = Subscription
    rows = session.execute(select(s.id, s.organization_id, s.currency).where(s.organization_id.in_(organization_ids)).order_by(s.id)).all()
    terms = timeline.load(session, [row.id for row in rows])
    return [Subject(row.id, row.organization_id, row.currency, terms[row.id], next_due(terms[row.id], after=at) or at) for row in rows]


def rated(session: Session, subjects: Sequence[Subject]) -> list[Rated]:
    """What the subjects owe now."""
    return rating.rate(session, subjects, adjustment_days=config.current().adjustment_days)


def _is_open(entry: Rated, moment: datetime) -> bool:
    """Whether usage of that instant can still reach an invoice, or never could: no price charged for usage then."""
    held = [term for term in entry.subject.terms if term.start <= moment and (term.end is None or moment < term.end)]
    if not any(_is_usage(rule) for term in held for rule in term.rules):
        return True
    return any(_is_usage(owed.rule) and owed.cycle.contains(moment) for owed in entry.owed.values())


def _is_usage(rule: Rule) -> bool:
    return rule.kind is Kind.USAGE


def changes(before: Sequence[Rated], after: Sequence[Rated], at: datetime) -> Iterable[Change]:
    """The lines that owe something else after than before, of the same subjects."""
    for was, now in zip(before, after, strict=True):
        for key in sorted(was.owed.keys() | now.owed.keys(), key=lambda key: (key.cycle_start, key.rule_id)):
            old, new = was.owed.get(key), now.owed.get(key)
            known = new or old
            if known is not None and _minor(old) != _minor(new):
                yield Change(
                    now.subject.subscription_id,
                    known.rule.code,
                    known.cycle,
                    known.currency,
                    _minor(old),
                    _minor(new),
                    known.cycle.end <= at,
                )


def _minor(owed: Owed | None) -> int:
    return owed.minor if owed is not None else 0
