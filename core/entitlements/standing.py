"""How customers stand against their limits now: every bound with what is used of it, for many customers in a handful of statements."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy.orm import Session

from core.entitlements import facts as facts_of
from core.entitlements.bounds import Bound, bounds, caps
from core.entitlements.counters import used
from core.entitlements.facts import Facts
from core.invoicing.rating import Subject
from core.invoicing.running import net_so_far, running_periods
from core.periods import Period
from core.subscriptions import timeline


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit and what is used of it: a quantity, or minor units spent before tax."""

    bound: Bound
    used: Decimal

    @property
    def reached(self) -> bool:
        """Whether nothing is left."""
        return self.bound.reached(self.used)

    @property
    def overshoot(self) -> Decimal:
        """How much was counted past the limit."""
        return max(Decimal(0), self.used - self.bound.value)

    @property
    def fraction(self) -> Decimal:
        """The used part of the limit, 1 for a limit of nothing."""
        return self.used / self.bound.value if self.bound.value else Decimal(1)

    def passed(self) -> list[int]:
        """The thresholds (percentages of the limit) that are passed, lowest first."""
        return [threshold for threshold in sorted(self.bound.thresholds) if self.used * 100 >= self.bound.value * threshold]


def standings(session: Session, organization_ids: Collection[uuid.UUID], *, at: datetime) -> list[tuple[Facts, list[Standing]]]:
    """Each customer's facts and standing in real time `at`, in order of id: first limits on metrics, then spend caps."""
    found = facts_of.read(session, organization_ids, at=at)
    everyone = [found[key] for key in sorted(found)]
    held = {facts.organization_id: bounds(facts) for facts in everyone}
    counted: dict[tuple[uuid.UUID, str], Decimal] = {}
    for instant in sorted({facts.at for facts in everyone}):  # one real time, and that of each test clock
        counted |= used(session, [bound for facts in everyone if facts.at == instant for bound in held[facts.organization_id]], at=instant)
    spent = _spent(session, [facts for facts in everyone if facts.caps and facts.plans])
    return [(facts, [*_metered(held[facts.organization_id], counted), *_capped(facts, spent)]) for facts in everyone]


def _metered(holding: Sequence[Bound], counted: Mapping[tuple[uuid.UUID, str], Decimal]) -> list[Standing]:
    return [Standing(bound, counted[bound.organization_id, bound.subject]) for bound in holding]


Spent = dict[uuid.UUID, tuple[Period, int]]


def _capped(facts: Facts, spent: Spent) -> list[Standing]:
    if facts.organization_id not in spent:
        return []
    period, minor = spent[facts.organization_id]
    return [Standing(bound, Decimal(minor)) for bound in caps(facts, period)]


def _spent(session: Session, everyone: Sequence[Facts]) -> Spent:
    """The running billing period of the newest subscription, and net spend of all that run, minor units."""
    ids = {plan.subscription_id: facts for facts in everyone for plan in facts.plans}
    timelines = timeline.load(session, ids) if ids else {}
    running: list[tuple[Subject, Period]] = []
    periods: dict[uuid.UUID, Period] = {}
    for facts in everyone:
        mine = {plan.subscription_id: timelines[plan.subscription_id] for plan in facts.plans}
        for subscription_id, period in running_periods(mine, facts.at).items():
            subject = Subject(subscription_id, facts.organization_id, facts.currency, mine[subscription_id], facts.at)
            running.append((subject, period))
            periods[facts.organization_id] = period
    net = net_so_far(session, running) if running else {}
    found: Spent = {}
    for subject, _ in running:
        before = found.get(subject.organization_id)
        minor = net[subject.subscription_id] + (before[1] if before else 0)
        found[subject.organization_id] = (periods[subject.organization_id], minor)
    return found
