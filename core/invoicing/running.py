"""What the running billing periods of many customers come to by now: the lines of each next invoice, without those of earlier periods."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from core import config
from core.invoicing import rating
from core.invoicing.preview import ISSUED_OR_DRAFTED
from core.invoicing.rating import Subject
from core.periods import Period
from core.pricing.terms import Term
from core.pricing.timeline import current_cycle, next_due


def running_periods(timelines: Mapping[uuid.UUID, Sequence[Term]], as_of: datetime) -> dict[uuid.UUID, Period]:
    """The billing period in which each subscription is at `as_of`; one that does not run then is missing."""
    found = {subscription_id: current_cycle(terms, as_of=as_of) for subscription_id, terms in timelines.items()}
    return {subscription_id: period for subscription_id, period in found.items() if period is not None}


def net_so_far(session: Session, running: Sequence[tuple[Subject, Period]]) -> dict[uuid.UUID, int]:
    """Net spend in the period of each subject at its instant, minor units before tax, by subscription: rated as "spend so far" is.

    Corrections of earlier periods are left out: they are not spent now, though the next invoice holds them.
    """
    subjects = [
        Subject(one.subscription_id, one.organization_id, one.currency, one.terms, next_due(one.terms, after=one.as_of) or one.as_of)
        for one, _ in running
    ]
    rated = rating.rate(session, subjects, adjustment_days=config.current().adjustment_days, uncounted=ISSUED_OR_DRAFTED)
    return {
        found.subject.subscription_id: sum(item.minor for item in found.items if item.key.cycle_start >= period.start)
        for found, (_, period) in zip(rated, running, strict=True)
    }
