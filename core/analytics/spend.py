"""Where the running period's spend will end: fixed charges exactly, usage by forecast, both priced as an invoice would."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from sqlalchemy.orm import Session

from core.analytics.forecast import WINDOW_DAYS, Estimate, estimate
from core.invoicing import measuring
from core.invoicing.measuring import Asked, Reading
from core.metering.answers import adds_up
from core.metering.models import Metric
from core.metering.reading import Measured, Question, ask, quantity
from core.metering.sums import Window
from core.money import round_ratio
from core.periods import Period, local_date, midnight
from core.pricing.models import reads_one
from core.pricing.terms import Kind, Segment, Term
from core.pricing.timeline import Owed, current_cycle, open_segments, owed
from core.subscriptions import queries as subscriptions
from core.subscriptions import timeline
from core.subscriptions.models import Subscription

BACK_TESTED_PERIODS = 3
Usage = dict[tuple[str, datetime, datetime], Decimal]
Span = tuple[datetime, datetime]


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
    return ask(session, question(session, organization_id, subscription_id, as_of=as_of))


def question(session: Session, organization_id: uuid.UUID, subscription_id: uuid.UUID, *, as_of: datetime) -> Question[Forecast | None]:
    """`forecast`, to be read together with other questions."""
    subscription = subscriptions.subscription(session, organization_id, subscription_id)
    terms = timeline.terms(timeline.spans(subscription))
    period = current_cycle(terms, as_of=as_of)
    segments = open_segments(terms, as_of=as_of)
    if period is None or not segments:
        return Question(frozenset(), lambda _: None)
    used = [segment for segment in segments if segment.rule.kind is Kind.USAGE and segment.rule.metric_id is not None]
    zone = next(term.anchor.timezone for term in terms if term.id == segments[0].term_id)
    metrics = _metrics(subscription, used)
    days = _Days.of(period, _closed(terms, period, zone), zone, as_of)
    ended = _ended(organization_id, used, as_of)
    windows = {Window(organization_id, metric_id, *span) for metric_id in metrics for span in days.asked}
    readings = _readings(organization_id, used, zone)

    def answer(measured: Measured) -> Forecast:
        estimates = {
            str(metric.id): days.estimate(
                metric, {span: quantity(measured, Window(organization_id, metric.id, *span)) for span in days.asked}
            )
            for metric in metrics.values()
        }
        several = {span: reading.usage(measured) for span, reading in readings.items()}
        closed_parts = {(str(window.metric_id), window.start, window.end): quantity(measured, window) for window in ended}
        so_far = {str(metric_id): quantity(measured, Window(organization_id, metric_id, *days.so_far)) for metric_id in metrics}
        amounts = []
        for pick in ("expected", "low", "high"):
            lines = owed(segments, {**_usage(used, estimates, closed_parts, pick), **several}, subscription.currency)
            amounts.append(sum(_grown(line, estimates, so_far, pick) for line in lines.values()))
        early = any(entry.early for entry in estimates.values())
        return Forecast(period, subscription.currency, amounts[0], min(amounts), max(amounts), early)

    return Question(frozenset(windows | ended).union(*(reading.windows for reading in readings.values())), answer)


def _readings(organization_id: uuid.UUID, used: Sequence[Segment], zone: str) -> dict[tuple[str, datetime, datetime], Reading]:
    """What prices of several quantities read of their windows so far."""
    return {
        (segment.rule.reads, segment.window.start, segment.window.end): measuring.reading(
            segment.rule, Asked(organization_id, segment.window, segment.cycle, zone, segment.measured_from)
        )
        for segment in used
        if segment.rule.reads != segment.rule.metric_id
    }


def _grown(line: Owed, estimates: Mapping[str, Estimate], so_far: Mapping[str, Decimal], pick: str) -> int:
    """The line at the end of the period, minor units. One of several quantities, priced as they are now, grows as its metric does."""
    metric_id = line.rule.metric_id or ""
    if line.rule.kind is not Kind.USAGE or reads_one(line.rule.model) or not so_far[metric_id]:
        return line.minor
    grown = Fraction(line.minor) * Fraction(getattr(estimates[metric_id], pick)) / Fraction(so_far[metric_id])
    return round_ratio(grown.numerator, grown.denominator)


def _metrics(subscription: Subscription, used: Sequence[Segment]) -> dict[uuid.UUID, Metric]:
    """The metrics of the segments, by id."""
    wanted = {segment.rule.metric_id for segment in used}
    versions = [term.plan_version for term in subscription.terms] + [item.plan_version for item in subscription.items]
    known = (rule.metric for version in versions for rule in version.rules)
    return {metric.id: metric for metric in known if metric is not None and str(metric.id) in wanted}


@dataclass(frozen=True, slots=True)
class _Days:
    """The local days a forecast looks at, each with its span until now, and the span of the running period so far."""

    first: date
    last: date
    today: date
    closed: Sequence[tuple[date, date]]
    spans: Mapping[date, Span]
    so_far: Span

    @classmethod
    def of(cls, period: Period, closed: Sequence[tuple[date, date]], zone: str, as_of: datetime) -> _Days:
        today, first = local_date(as_of, zone), local_date(period.start, zone)
        last = local_date(period.end - timedelta(microseconds=1), zone)
        begin = min([first, today - timedelta(days=WINDOW_DAYS), *(start - timedelta(days=WINDOW_DAYS) for start, _ in closed)])
        days = [begin + timedelta(days=offset) for offset in range((today - begin).days + 1)]
        spans = {day: (midnight(day, zone), min(midnight(day + timedelta(days=1), zone), as_of)) for day in days}
        return cls(first, last, today, closed, spans, (period.start, as_of))

    @property
    def asked(self) -> set[Span]:
        """The spans to read of each metric."""
        return {self.so_far, *(span for span in self.spans.values() if span[0] < span[1])}

    def estimate(self, metric: Metric, usage: Mapping[Span, Decimal]) -> Estimate:
        """The quantity of a metric at the end of the period."""
        if not adds_up(metric):
            now = usage[self.so_far]
            return Estimate(now, now, now, early=False)
        daily = {day: usage.get(span, Decimal(0)) for day, span in self.spans.items()}
        return estimate(daily, first=self.first, last=self.last, today=self.today, closed=self.closed)


def _ended(organization_id: uuid.UUID, used: Sequence[Segment], as_of: datetime) -> set[Window]:
    """The windows of this cycle that a change of plan has closed: their usage is known."""
    parts = [segment for segment in used if segment.window.end < as_of]
    return {Window(organization_id, uuid.UUID(s.rule.metric_id), s.window.start, s.window.end) for s in parts if s.rule.metric_id}


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
