"""What another definition of a metric does to usage and money, before it holds: whose usage differs, and what their next invoices settle.

The dry run is the act itself, taken back. Cycles that are closed for good are not rated again, so their invoices stay, whatever the new
definition says of their usage: that usage is counted apart here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from core import config
from core.audit import Actor
from core.invoicing.usage_effect import Change, changes, rated, subjects_of
from core.metering.revisions import settling
from core.metering.revisions.models import MetricRevision

RATED_MAX = 200
"""Accounts whose next invoices are worked out; of more, those whose usage differs most."""
DIFFERENT = text("""WITH old AS (SELECT organization_number, hour, group_key, events, quantity FROM usage_rollups
    WHERE metric_number = :old AND organization_number IN (SELECT number FROM organizations)),
  new AS (SELECT organization_number, hour, group_key, events, quantity FROM usage_rollups
    WHERE metric_number = :new AND organization_number IN (SELECT number FROM organizations)),
  both_ AS (SELECT organization_number, hour, old.events AS was_events, new.events AS is_events, old.quantity AS was, new.quantity AS is_
    FROM old FULL JOIN new USING (organization_number, hour, group_key)
    WHERE old.quantity IS DISTINCT FROM new.quantity OR old.events IS DISTINCT FROM new.events)
  SELECT o.id, o.name, count(DISTINCT hour) FILTER (WHERE hour >= :open_at) AS hours, count(DISTINCT hour) FILTER (WHERE hour < :open_at)
    AS closed_hours, coalesce(sum(was_events), 0) AS events_before, coalesce(sum(is_events), 0) AS events_after
  FROM both_ JOIN organizations o ON o.number = both_.organization_number
  GROUP BY o.id, o.name ORDER BY sum(abs(coalesce(was, 0) - coalesce(is_, 0))) DESC, o.id""")


class _OnlyTried(Exception):
    """A dry run is over."""


@dataclass(frozen=True, slots=True)
class Differs:
    """An account whose usage differs: in how many hours that can still be billed, and in how many of cycles that may be closed."""

    organization_id: uuid.UUID
    name: str
    hours: int
    closed_hours: int
    events_before: int
    events_after: int


@dataclass(frozen=True, slots=True)
class RevisionEffect:
    """`differs`: every account whose usage differs, the most first; `changes`: what the first RATED_MAX of them owe otherwise, by account.

    Usage before `open_at` may lie in cycles that are closed for good; those are not billed again.
    """

    differs: tuple[Differs, ...]
    changes: Mapping[uuid.UUID, tuple[Change, ...]]
    open_at: datetime

    @property
    def unrated(self) -> int:
        """Accounts whose usage differs and whose invoices were not worked out."""
        return max(0, len(self.differs) - RATED_MAX)

    @property
    def closed_hours(self) -> int:
        """Hours, of all accounts, that are told otherwise and not billed again where their cycle is closed."""
        return sum(one.closed_hours for one in self.differs)

    def totals(self) -> dict[str, int]:
        """The difference by currency, minor units."""
        found: dict[str, int] = {}
        for mine in self.changes.values():
            for change in mine:
                found[change.currency] = found.get(change.currency, 0) + change.minor
        return found


def apply(session: Session, revision: MetricRevision, *, actor: Actor, at: datetime, dry_run: bool = False) -> RevisionEffect:
    """As `settling.apply`, with what it changes; with `dry_run` nothing stays changed, and counting goes on. `at` is real time."""
    open_at = at - timedelta(days=config.current().adjustment_days)
    asked = {"old": revision.metric.number, "new": revision.number, "open_at": open_at}
    differs = tuple(Differs(*row) for row in session.execute(DIFFERENT, asked))
    found: dict[uuid.UUID, tuple[Change, ...]] = {}
    with suppress(_OnlyTried), session.begin_nested():
        subjects = subjects_of(session, [one.organization_id for one in differs[:RATED_MAX]], at)
        before = rated(session, subjects) if subjects else []
        settling.apply(session, revision, actor=actor, at=at, trial=dry_run)
        after = rated(session, subjects) if subjects else []
        owners = {subject.subscription_id: subject.organization_id for subject in subjects}
        for change in changes(before, after, at):
            owner = owners[change.subscription_id]
            found[owner] = (*found.get(owner, ()), change)
        if dry_run:
            raise _OnlyTried  # out of the savepoint: all of it is taken back
    session.expire_all()
    return RevisionEffect(differs, found, open_at)
