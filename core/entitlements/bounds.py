"""From facts to bounds: every limit that holds for a customer now, with the window it counts over. Pure.

A plan's limits are the keys of its `limits` that are metric codes: a number (per month, refused past it), or an object
{"value": "1000", "period": "daily" | "monthly" | "total", "action": "block" | "allow_overage" | "notify"}.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.entitlements.facts import Facts, Measured, PlanTerms, SetLimit
from core.metering.models import Aggregation, LimitAction, LimitPeriod, LimitSource
from core.money import parse_decimal
from core.periods import Anchor, Interval, Period, calendar_floor, cycle_containing, local_date

PLAN = "plan"
THRESHOLDS = (50, 80, 100)
ADDITIVE = frozenset({Aggregation.SUM, Aggregation.COUNT, Aggregation.UNIQUE_COUNT})
"""Aggregations under which more usage is a sum, so that a part of an allowance can be reserved."""


@dataclass(frozen=True, slots=True)
class Span:
    """The instants a limit counts: from `start` up to, not including, `end` (None: for good)."""

    start: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit with its present window. `value` is a quantity of `metric`, or (metric None) minor units of `currency`.

    `source` is plan, operator or customer.
    """

    subject: str
    organization_id: uuid.UUID
    metric: Measured | None
    value: Decimal
    period: str
    action: LimitAction
    source: str
    thresholds: tuple[int, ...]
    window: Span
    currency: str | None = None
    id: uuid.UUID | None = None

    @property
    def blocks(self) -> bool:
        """Whether usage past it is refused."""
        return self.action is LimitAction.BLOCK

    def reached(self, used: Decimal) -> bool:
        """Whether nothing is left."""
        return used >= self.value

    def after(self, used: Decimal, more: Decimal) -> Decimal:
        """What is used once `more` was counted: added up, or the new level of a maximum or latest value."""
        kind = self.metric.aggregation if self.metric else Aggregation.SUM
        if kind in ADDITIVE:
            return used + more
        return more if kind is Aggregation.LATEST else max(used, more)


def bounds(facts: Facts, *, metric: str | None = None) -> list[Bound]:
    """Every limit on metrics that holds now, or those on the metric with that code.

    An operator's limit takes the place of the plan's on the same metric and period.
    """
    stored = [limit for limit in facts.limits if metric in (None, limit.metric.code)]
    replaced = {(limit.metric.id, limit.period) for limit in stored if limit.source is LimitSource.OPERATOR}
    own = [_own(facts, limit) for limit in stored]
    planned = [bound for bound in _planned(facts, metric) if bound.metric is not None and (bound.metric.id, bound.period) not in replaced]
    return planned + own


def caps(facts: Facts, period: Period) -> list[Bound]:
    """The customer's spend caps over the running billing period."""
    return [
        Bound(
            f"cap:{cap.id}", facts.organization_id, None, Decimal(cap.amount_minor), "billing_period", cap.action, LimitSource.CUSTOMER,
            cap.thresholds, Span(period.start, period.end), facts.currency, cap.id,
        )
        for cap in facts.caps
    ]  # fmt: skip


def window(facts: Facts, period: LimitPeriod, since: datetime) -> Span:
    """The customer's local day, its month (on the day its billing cycles begin, without a plan the calendar's), or all since `since`."""
    if period is LimitPeriod.TOTAL:
        return Span(since, None)
    if period is LimitPeriod.DAILY:
        anchor = Anchor(Interval.DAY, 1, local_date(facts.at, facts.timezone), facts.timezone)
    elif facts.plans:
        anchor = replace(facts.plans[-1].anchor, interval=Interval.MONTH, count=1)
    else:
        anchor = Anchor(Interval.MONTH, 1, calendar_floor(local_date(facts.at, facts.timezone), Interval.MONTH), facts.timezone)
    found = cycle_containing(anchor, facts.at)
    return Span(found.start, found.end)


def features(facts: Facts) -> dict[str, Any]:
    """Features by name: of the running plans, the newest deciding, then what was agreed with this customer."""
    found: dict[str, Any] = {}
    for plan in facts.plans:
        found.update(plan.features)
    return {**found, **facts.overrides}


def static_limits(facts: Facts) -> dict[str, Decimal]:
    """Limits of the plans that are not about a metric: bare numbers such as seats or projects, which the asker counts."""
    found: dict[str, Decimal] = {}
    for plan in facts.plans:
        for name, value in plan.limits.items():
            number = _number(value)
            if name not in plan.metered and number is not None:
                found[name] = number
    return found


def _own(facts: Facts, limit: SetLimit) -> Bound:
    return Bound(
        f"limit:{limit.id}", facts.organization_id, limit.metric, limit.value, limit.period, limit.action, limit.source, limit.thresholds,
        window(facts, limit.period, limit.since), None, limit.id,
    )  # fmt: skip


def _planned(facts: Facts, metric: str | None) -> Iterator[Bound]:
    """The newest plan decides where two of them limit one metric."""
    found: dict[uuid.UUID, Bound] = {}
    for plan in facts.plans:
        for code, measured in plan.metered.items():
            bound = _plan_bound(facts, plan, measured, plan.limits[code]) if metric in (None, code) else None
            if bound is not None:
                found[measured.id] = bound
    yield from found.values()


def _plan_bound(facts: Facts, plan: PlanTerms, metric: Measured, given: Any) -> Bound | None:
    told: Mapping[str, Any] = given if isinstance(given, Mapping) else {"value": given}
    value = _number(told.get("value"))
    period, action = told.get("period", LimitPeriod.MONTHLY), told.get("action", LimitAction.BLOCK)
    if value is None or period not in set(LimitPeriod) or action not in set(LimitAction):
        return None
    span = window(facts, LimitPeriod(period), plan.since)
    return Bound(
        f"plan:{metric.id}", facts.organization_id, metric, value, LimitPeriod(period), LimitAction(action), PLAN, THRESHOLDS, span
    )


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        return parse_decimal(str(value), signed=False)
    except ValueError:
        return None
