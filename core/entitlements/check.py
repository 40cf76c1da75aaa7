"""The decision: may this customer use that much more, or that feature? Answered from the counters invoices are rated from.

One short statement, so that it can be asked before every request of the customer's product.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.entitlements import together
from core.entitlements.bounds import PLAN, Bound, Span, features, static_limits
from core.entitlements.counters import Counter
from core.entitlements.facts import Facts, Stop, of_one
from core.reader import Reads

NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed and why. The figures are those of the limit with the least left; None without a limit.

    `reason`: included, within_limit, no_limit, over_limit (a soft limit is passed), limit_reached, spend_cap_reached, not_included,
    unknown_metric, organization_not_active.
    """

    allowed: bool
    reason: str
    limit: Decimal | None = None
    used: Decimal | None = None
    reserved: Decimal | None = None
    window: Span | None = None
    period: str | None = None
    action: str | None = None
    source: str | None = None
    value: Any = None

    @property
    def remaining(self) -> Decimal | None:
        """What is left of the limit, never below 0; None without one."""
        if self.limit is None or self.used is None:
            return None
        return max(NOTHING, self.limit - self.used - (self.reserved or NOTHING))


def check_feature(reads: Reads, organization_id: uuid.UUID, *, feature: str, quantity: Decimal, at: datetime) -> Decision:
    """Whether the plan includes `feature`; one whose value is a whole number allows up to that many. `at` is real time. NotFound."""
    found = of_one(reads, organization_id, at=at)
    if not found.active:
        return Decision(False, "organization_not_active")
    value = features(found).get(feature)
    if isinstance(value, int) and not isinstance(value, bool):
        return _static(Decimal(value), quantity, value)
    return Decision(bool(value), "included" if value else "not_included", value=value)


def check_metric(reads: Reads, organization_id: uuid.UUID, *, metric: str, quantity: Decimal, at: datetime) -> Decision:
    """Whether `quantity` more of the metric is allowed: by its limits and by the spend caps. `at` is real time. NotFound."""
    found, holding, counted = together.read(reads, organization_id, metric, at=at)
    if not holding and metric in static_limits(found):
        return _static(static_limits(found)[metric], quantity)
    return decide(found, holding, counted, quantity)


def decide(found: Facts, holding: Sequence[Bound], counted: Mapping[str, Counter], quantity: Decimal) -> Decision:
    """The decision on `quantity` more under these bounds of one metric, of which that much is counted."""
    if not found.active:
        return Decision(False, "organization_not_active")
    capped = next((stop for stop in found.stops if stop.reason == "spend_cap_reached"), None)
    if not holding:
        return _capped(capped) if capped else Decision(True, "no_limit")
    decisions = [_decided(bound, counted[bound.subject], quantity) for bound in holding]
    tightest = min(decisions, key=lambda one: (one.allowed, one.reason != "over_limit", one.remaining or NOTHING))
    if capped is not None and tightest.allowed:
        return _capped(capped)
    return tightest


def _decided(bound: Bound, counted: Counter, quantity: Decimal) -> Decision:
    used, held = counted
    fits = bound.after(used + held, quantity) <= bound.value
    reason = "within_limit" if fits else "limit_reached" if bound.blocks else "over_limit"
    return Decision(fits or not bound.blocks, reason, bound.value, used, held, bound.window, bound.period, bound.action.value, bound.source)


def _static(limit: Decimal, quantity: Decimal, value: Any = None) -> Decision:
    """A limit on what the asker counts itself: `quantity` is the whole, not an addition."""
    allowed = quantity <= limit
    return Decision(allowed, "within_limit" if allowed else "limit_reached", limit=limit, source=PLAN, value=value)


def _capped(stop: Stop) -> Decision:
    window = Span(stop.start, stop.end)
    return Decision(False, stop.reason, window=window, period="billing_period", action="block", source="customer")
