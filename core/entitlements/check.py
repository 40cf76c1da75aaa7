"""The decision: may this customer use that much more, or that feature? Answered from the counters invoices are rated from.

A few statements, so that it can be asked before every request of the customer's product.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from core.entitlements import facts as facts_of
from core.entitlements.bounds import PLAN, Bound, Span, bounds, features, static_limits
from core.entitlements.facts import Facts, Stop
from core.errors import NotFound
from core.metering.queries import usage_sums

NOTHING = Decimal(0)
AHEAD = timedelta(days=1)
# An event acknowledged before a reservation expired may still wait to be counted: until that is done the reservation stands.
RESERVED = text("""
SELECT metric_id, sum(quantity) AS quantity FROM usage_reservations
WHERE organization_id = :organization_id AND metric_id = ANY(CAST(:metric_ids AS uuid[])) AND settled_at IS NULL
  AND expires_at > least(CAST(:at AS timestamptz), (SELECT min(received_at) FROM usage_pending)) GROUP BY 1""")


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


def check_feature(session: Session, organization_id: uuid.UUID, *, feature: str, quantity: Decimal, at: datetime) -> Decision:
    """Whether the plan includes `feature`; one whose value is a whole number allows up to that many. `at` is real time. NotFound."""
    found = facts(session, organization_id, at=at)
    if not found.active:
        return Decision(False, "organization_not_active")
    value = features(found).get(feature)
    if isinstance(value, int) and not isinstance(value, bool):
        return _static(Decimal(value), quantity, value)
    return Decision(bool(value), "included" if value else "not_included", value=value)


def check_metric(session: Session, organization_id: uuid.UUID, *, metric: str, quantity: Decimal, at: datetime) -> Decision:
    """Whether `quantity` more of the metric is allowed: by its limits and by the spend caps. `at` is real time. NotFound."""
    found = facts(session, organization_id, at=at)
    holding = bounds(found, metric=metric)
    if not holding and metric in static_limits(found):
        return _static(static_limits(found)[metric], quantity)
    return decide(session, found, holding, quantity, at=at)


def facts(session: Session, organization_id: uuid.UUID, *, at: datetime) -> Facts:
    """One customer's facts; NotFound."""
    found = facts_of.read(session, [organization_id], at=at).get(organization_id)
    if found is None:
        raise NotFound("There is no such account.")
    return found


def decide(session: Session, found: Facts, holding: Sequence[Bound], quantity: Decimal, *, at: datetime) -> Decision:
    """The decision on `quantity` more under these bounds of one metric."""
    if not found.active:
        return Decision(False, "organization_not_active")
    capped = next((stop for stop in found.stops if stop.reason == "spend_cap_reached"), None)
    if not holding:
        return _capped(capped) if capped else Decision(True, "no_limit")
    # Reservations before usage: what is counted in between is seen twice rather than not at all.
    reserved = open_reservations(session, found.organization_id, {bound.metric.id for bound in holding if bound.metric}, at=at)
    usage = used(session, holding, at=found.at)
    decisions = [_decided(bound, usage[bound.organization_id, bound.subject], reserved, quantity) for bound in holding]
    tightest = min(decisions, key=lambda one: (one.allowed, one.reason != "over_limit", one.remaining or NOTHING))
    if capped is not None and tightest.allowed:
        return _capped(capped)
    return tightest


def used(session: Session, holding: Collection[Bound], *, at: datetime) -> dict[tuple[uuid.UUID, str], Decimal]:
    """What is counted in the window of each bound on a metric, by customer and subject; usage dated ahead of `at` is counted too."""
    wanted = {
        (bound.organization_id, bound.subject): (bound.organization_id, bound.metric.id, bound.window.start, bound.window.end or at + AHEAD)
        for bound in holding
        if bound.metric is not None
    }
    sums = usage_sums(session, set(wanted.values())) if wanted else {}
    return {key: sums[asked] for key, asked in wanted.items()}


def open_reservations(
    session: Session, organization_id: uuid.UUID, metric_ids: Collection[uuid.UUID], *, at: datetime
) -> Mapping[uuid.UUID, Decimal]:
    """What is reserved and neither counted nor expired, by metric."""
    rows = session.execute(RESERVED, {"organization_id": organization_id, "metric_ids": list(metric_ids), "at": at})
    return {row.metric_id: row.quantity for row in rows}


def _decided(bound: Bound, counted: Decimal, reserved: Mapping[uuid.UUID, Decimal], quantity: Decimal) -> Decision:
    held = reserved.get(bound.metric.id, NOTHING) if bound.metric else NOTHING
    fits = bound.after(counted + held, quantity) <= bound.value
    reason = "within_limit" if fits else "limit_reached" if bound.blocks else "over_limit"
    return Decision(
        fits or not bound.blocks, reason, bound.value, counted, held, bound.window, bound.period, bound.action.value, bound.source
    )


def _static(limit: Decimal, quantity: Decimal, value: Any = None) -> Decision:
    """A limit on what the asker counts itself: `quantity` is the whole, not an addition."""
    allowed = quantity <= limit
    return Decision(allowed, "within_limit" if allowed else "limit_reached", limit=limit, source=PLAN, value=value)


def _capped(stop: Stop) -> Decision:
    window = Span(stop.start, stop.end)
    return Decision(False, stop.reason, window=window, period="billing_period", action="block", source="customer")
