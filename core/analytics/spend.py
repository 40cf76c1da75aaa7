"""Where the running period's spend will end: fixed charges exactly, usage by forecast, both priced as an invoice would."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.analytics.forecast import WINDOW_DAYS, Estimate, estimate
from core.metering import queries as metering
from core.metering.models import Aggregation, Metric
from core.periods import Period, local_date, midnight
from core.pricing.terms import Kind, Segment, Term
from core.pricing.timeline import current_cycle, open_segments, owed
from core.subscriptions import queries as subscriptions
from core.subscriptions import timeline

ADDITIVE = (Aggregation.SUM, Aggregation.COUNT)
BACK_TESTED_PERIODS = 3
Usage = dict[tuple[str, datetime, datetime], Decimal]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Net spend of the running `period` at its end, minor units: expected and likely range. `early`: under a week of data."""

    period: Period
    currency: str
    expected_minor: int
    low_minor: int
    high_minor: int
    early: bool


def forecast(session: Session, organization_id: uuid.UUID, subscription_id: uuid.UUID, *, as_of: datetime) -> Forecast | None:
    """Forecast the running cycle; None where nothing runs or the running term (a trial) charges nothing. NotFound for a stranger.

    Maxima, latest values and distinct counts are kept at what they are now: the days do not add up to them.
    """
    subscription = subscriptions.subscription(session, organization_id, subscription_id)
    terms = timeline.load(session, [subscription_id])[subscription_id]
    period = current_cycle(terms, as_of=as_of)
    segments = open_segments(terms, as_of=as_of)
    if period is None or not segments:
        return None
    used = [segment for segment in segments if segment.rule.kind is Kind.USAGE and segment.rule.metric_id is not None]
    zone = next(term.anchor.timezone for term in terms if term.id == segments[0].term_id)
    closed = _closed(terms, period, zone)
    estimates = _estimates(session, organization_id, used, period, closed, zone, as_of)
    closed_parts = _closed_parts(session, organization_id, used, as_of)
    amounts = [
        sum(entry.minor for entry in owed(segments, usage, subscription.currency).values())
        for usage in (_usage(used, estimates, closed_parts, pick) for pick in ("expected", "low", "high"))
    ]
    early = any(entry.early for entry in estimates.values())
    return Forecast(period, subscription.currency, amounts[0], min(amounts), max(amounts), early)


def _estimates(
    session: Session,
    organization_id: uuid.UUID,
    used: Sequence[Segment],
    period: Period,
    closed: Sequence[tuple[date, date]],
    zone: str,
    as_of: datetime,
) -> dict[str, Estimate]:
    """The quantity of each metric at the end of the period, by metric id; usage is read once."""
    metric_ids = {uuid.UUID(segment.rule.metric_id) for segment in used if segment.rule.metric_id}
    aggregations = dict(session.execute(select(Metric.id, Metric.aggregation).where(Metric.id.in_(metric_ids))).all())
    today, first = local_date(as_of, zone), local_date(period.start, zone)
    last = local_date(period.end - timedelta(microseconds=1), zone)
    begin = min([first, today - timedelta(days=WINDOW_DAYS), *(start - timedelta(days=WINDOW_DAYS) for start, _ in closed)])
    days = [begin + timedelta(days=offset) for offset in range((today - begin).days + 1)]
    spans = {day: (midnight(day, zone), min(midnight(day + timedelta(days=1), zone), as_of)) for day in days}
    asked = {(organization_id, metric_id, *span) for metric_id in metric_ids for span in spans.values() if span[0] < span[1]}
    asked |= {(organization_id, metric_id, period.start, as_of) for metric_id in metric_ids}
    sums = metering.usage_sums(session, asked)
    found = {}
    for metric_id in metric_ids:
        now = sums[organization_id, metric_id, period.start, as_of]
        if aggregations.get(metric_id) in ADDITIVE:
            daily = {day: sums.get((organization_id, metric_id, *span), Decimal(0)) for day, span in spans.items()}
            found[str(metric_id)] = estimate(daily, first=first, last=last, today=today, closed=closed)
        else:
            found[str(metric_id)] = Estimate(now, now, now, early=False)
    return found


def _closed_parts(session: Session, organization_id: uuid.UUID, used: Sequence[Segment], as_of: datetime) -> Usage:
    """Usage of the windows of this cycle that a change of plan has closed: it is known."""
    parts = [segment for segment in used if segment.window.end < as_of]
    asked = {(organization_id, uuid.UUID(s.rule.metric_id), s.window.start, s.window.end) for s in parts if s.rule.metric_id}
    sums = metering.usage_sums(session, asked) if asked else {}
    return {(str(metric_id), start, end): sums[organization, metric_id, start, end] for organization, metric_id, start, end in asked}


def _usage(used: Sequence[Segment], estimates: dict[str, Estimate], closed_parts: Usage, pick: str) -> Usage:
    """The forecast as the kernel asks for usage: what is closed as it was, the rest of the estimate in the window that runs."""
    usage = dict(closed_parts)
    for segment in used:
        metric_id = segment.rule.metric_id or ""
        key = (metric_id, segment.window.start, segment.window.end)
        if key not in closed_parts:
            before = sum((quantity for (metric, _, _), quantity in closed_parts.items() if metric == metric_id), Decimal(0))
            usage[key] = max(Decimal(0), getattr(estimates[metric_id], pick) - before)
    return usage


def _closed(terms: Sequence[Term], period: Period, zone: str) -> list[tuple[date, date]]:
    """First and last local day of the cycles before this one that a term covered."""
    running = next(term for term in terms if term.rules and (term.end is None or term.end > period.start))
    number = running.anchor.index(period.start)
    cycles = [running.anchor.cycle(number - back) for back in range(BACK_TESTED_PERIODS, 0, -1)]
    began = min(term.start for term in terms)
    return [
        (local_date(cycle.start, zone), local_date(cycle.end - timedelta(microseconds=1), zone)) for cycle in cycles if cycle.start >= began
    ]
