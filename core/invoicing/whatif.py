"""What other plans would have cost on the usage of the last closed periods: the same rating on terms that never were."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.orm import Session

from core.catalog.models import PlanVersion
from core.db import new_id
from core.identity.models import Organization
from core.invoicing import rating, taxes
from core.invoicing.rating import Subject
from core.money import round_ratio
from core.periods import Interval, Period, anniversary_anchor
from core.pricing.terms import LineKey, Rule, Segment, Term
from core.pricing.timeline import Owed, segments
from core.subscriptions import queries as subscriptions
from core.subscriptions import timeline
from core.tax.assess import TaxAssessment

PERIODS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan would have cost, net minor units: for each period, on average, and against what the present plan cost.

    `with_tax` and `average_with_tax_minor` are the same taxed as an invoice would be today.
    """

    version_id: uuid.UUID | None
    minor: tuple[int, ...]
    average_minor: int
    difference_minor: int
    with_tax: tuple[int, ...]
    average_with_tax_minor: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The periods compared, oldest first; the customer's own cost (`version_id` None) and that of each plan asked for."""

    currency: str
    periods: tuple[Period, ...]
    own: Cost
    plans: tuple[Cost, ...]
    tax: TaxAssessment

    @property
    def cheapest(self) -> Cost | None:
        """The plan with the lowest average; the first of equals."""
        return min(self.plans, key=lambda cost: cost.average_minor, default=None)


def compare(
    session: Session, organization_id: uuid.UUID, subscription_id: uuid.UUID, *, versions: Sequence[PlanVersion], as_of: datetime
) -> Comparison:
    """Rate the usage of the last closed periods (at most PERIODS, fewer for a young subscription) under each version.

    A price billed in advance counts in the period it is for. Usage is read once for all plans. NotFound for a stranger's subscription.
    """
    subscription = subscriptions.subscription(session, organization_id, subscription_id)
    terms = timeline.terms(timeline.spans(subscription))
    periods = closed_periods(terms, as_of)
    priced = [(version, timeline.rules(version, subscription.currency)) for version in versions]
    proposals = [(version.id, under(version, rules, terms, periods)) for version, rules in priced]
    wanted: list[tuple[uuid.UUID | None, tuple[Term, ...]]] = [(None, terms), *proposals]
    subjects = [Subject(subscription_id, organization_id, subscription.currency, proposed, as_of) for _, proposed in wanted]
    owing = rating.owe(session, subjects, lambda subject: within(subject.terms, periods))
    costs = [(version_id, by_period(entries, periods)) for (version_id, _), entries in zip(wanted, owing, strict=True)]
    own = _average(costs[0][1])
    organization = session.get_one(Organization, organization_id)
    tax = taxes.assessment(session, organization, taxes.local_day(as_of, organization.timezone))
    found = []
    for version_id, minor in costs:
        gross = tuple(taxes.taxed(net, tax, subscription.currency).totals.total for net in minor)
        found.append(Cost(version_id, minor, _average(minor), _average(minor) - own, gross, _average(gross)))
    return Comparison(subscription.currency, periods, found[0], tuple(found[1:]), tax)


def closed_periods(terms: Sequence[Term], as_of: datetime, count: int = PERIODS) -> tuple[Period, ...]:
    """The last `count` whole cycles that ended by `as_of`, without the trial, oldest first; fewer for a young subscription."""
    held = [term for term in terms if not term.is_trial and term.start <= as_of]
    if not held:
        return ()
    anchor, number = held[-1].anchor, held[-1].anchor.index(as_of)
    cycles = (anchor.cycle(number - back) for back in range(count, 0, -1))
    return tuple(cycle for cycle in cycles if cycle.start >= held[0].start)


def under(version: PlanVersion, rules: tuple[Rule, ...], terms: Sequence[Term], periods: Sequence[Period]) -> tuple[Term, ...]:
    """The timeline as it would have been with the version's `rules`: quantities, trials, pauses, add-ons and time zone as they were.

    Where the version is billed in other intervals than the subscription was, each period is a term of its own.
    """
    if not periods:
        return ()
    interval, first, last = (Interval(version.billing_period), version.interval_count), periods[0].start, periods[-1].end
    held = [term for term in terms if term.start < last and (term.end is None or term.end > first)]
    if any((term.anchor.interval, term.anchor.count) != interval for term in held):
        return tuple(_term(interval, rules, terms, period) for period in periods)
    return tuple(term if term.is_trial else replace(term, rules=rules + _attached(term)) for term in terms)


def _term(interval: tuple[Interval, int], rules: tuple[Rule, ...], terms: Sequence[Term], period: Period) -> Term:
    """The rules held for exactly this period, with quantities, add-ons and time zone of the term that held last in it."""
    held = [term for term in terms if term.start < period.end][-1]
    anchor = anniversary_anchor(*interval, period.start, held.anchor.timezone)
    return Term(str(new_id()), period.start, period.end, rules + _attached(held), held.quantity, anchor, quantities=held.quantities)


def _attached(term: Term) -> tuple[Rule, ...]:
    """The prices of add-ons and coupons: they hold beside the plan's, for a time of their own."""
    return tuple(rule for rule in term.rules if rule.during is not None)


def within(terms: Sequence[Term], periods: Sequence[Period]) -> list[Segment]:
    """The segments of the periods, usage and prices; nothing else is priced."""
    if not periods or not terms:
        return []
    last = periods[-1].end
    found = segments(terms, as_of=last, since=periods[0].start)
    return [segment for segment in found if any(period.contains(segment.window.start) for period in periods)]


def by_period(owed: Mapping[LineKey, Owed], periods: Sequence[Period]) -> tuple[int, ...]:
    """What is owed for each period, net minor units; a price billed in advance counts in the period it is for."""
    return tuple(
        sum(entry.minor for entry in owed.values() if period.contains(entry.parts[0].segments[0].window.start)) for period in periods
    )


def _average(minor: Sequence[int]) -> int:
    return round_ratio(sum(minor), len(minor)) if minor else 0
