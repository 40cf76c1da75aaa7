"""What usage cost, bucket by bucket: the rise of its invoice line over each bucket, so that the buckets add up to the line.

Tiers are used up in the order of time: later units of a cycle cost what the tier reached by then says. Each bucket's amount is the
line rounded at its end less the line rounded at its start; within a bucket, groups share the amount by their quantities.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

from sqlalchemy.orm import Session

from core.invoicing import billed, wording
from core.invoicing.models import InvoiceLine
from core.invoicing.rating import Subject, owing
from core.metering import queries as metering
from core.metering.models import Aggregation, Metric
from core.metering.reading import Measured, Question, ask, quantity
from core.metering.summary import Bucket, MetricSummary, cut, metrics_named, summarized, summary
from core.metering.sums import Window
from core.money import EXACT, allocate, round_half_up
from core.periods import Period
from core.pricing.price import price
from core.pricing.terms import Kind, LineKey, Rule, Segment, Term, Timing
from core.pricing.timeline import current_cycle, open_segments, segments

ADDITIVE = (Aggregation.SUM, Aggregation.COUNT)
INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Cost:
    """Usage of one bucket and what it added to the line, minor units; `groups` maps a group to (quantity, minor)."""

    start: datetime
    end: datetime
    quantity: Decimal
    minor: int
    groups: Mapping[str, tuple[Decimal, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UsageCost:
    """A metric's usage and cost over a range. `quantity` is the aggregate of the range, `minor` the sum of the buckets.

    `keys` are the lines the range touches; `whole` says whether it begins with a cycle, so that it can be held against them.
    """

    metric: Metric
    currency: str
    quantity: Decimal
    minor: int
    buckets: tuple[Cost, ...]
    keys: tuple[LineKey, ...]
    whole: bool


def usage_costs(
    session: Session,
    organization_id: uuid.UUID,
    timelines: Mapping[uuid.UUID, Sequence[Term]],
    *,
    metric_codes: Sequence[str],
    currency: str,
    start: datetime,
    end: datetime,
    timezone: str,
    granularity: str,
    group_by: str | None = None,
) -> list[UsageCost]:
    """Usage and cost of metrics in [start, end) under the organization's `timelines` (subscription id to terms), in order of code.

    A handful of statements whatever the number of metrics and buckets. Raises Invalid for an unknown metric or too long a range.
    """
    asked = usage_by_bucket(
        metrics_named(session, metric_codes),
        organization_id,
        timelines,
        currency=currency,
        start=start,
        end=end,
        timezone=timezone,
        granularity=granularity,
        group_by=group_by,
    )
    return ask(session, asked)


def usage_by_bucket(
    metrics: Sequence[Metric],
    organization_id: uuid.UUID,
    timelines: Mapping[uuid.UUID, Sequence[Term]],
    *,
    currency: str,
    start: datetime,
    end: datetime,
    timezone: str,
    granularity: str,
    group_by: str | None = None,
) -> Question[list[UsageCost]]:
    """`usage_costs` of loaded metrics, to be read together with other questions. Raises Invalid for too long a range."""
    summed = summarized(metrics, organization_id, start=start, end=end, timezone=timezone, granularity=granularity, group_by=group_by)
    buckets = frozenset(cut(start, end, granularity, timezone))
    edges = sorted({start, end, *(since for since, _ in buckets)})
    lines = {metric.id: _lines(timelines, str(metric.id), start, end) for metric in metrics}
    cuts = {metric.id: _cuts(metric, lines[metric.id], edges, end) for metric in metrics}
    # What the buckets have read is not asked again, unless they do not add up.
    rest = {metric_id: cuts[metric_id].asked - (buckets if cuts[metric_id].additive else frozenset()) for metric_id in cuts}
    windows = {Window(organization_id, metric_id, *span) for metric_id, spans in rest.items() for span in spans}

    def answer(measured: Measured) -> list[UsageCost]:
        costs = []
        for one in summed.answer(measured):
            metric_id = one.metric.id
            known = {(bucket.start, bucket.end): bucket.quantity for bucket in one.buckets}
            known |= {span: quantity(measured, Window(organization_id, metric_id, *span)) for span in rest[metric_id]}
            costs.append(_usage_cost(one, lines[metric_id], cuts[metric_id], known, edges, start=start, currency=currency))
        return costs

    return Question(summed.windows | windows, answer)


def line_keys(timelines: Mapping[uuid.UUID, Sequence[Term]], metric: Metric, *, start: datetime, end: datetime) -> tuple[LineKey, ...]:
    """The lines that usage of the metric in [start, end) belongs to."""
    return tuple(_lines(timelines, str(metric.id), start, end))


def billed_minor(session: Session, subscription_ids: Sequence[uuid.UUID], keys: Sequence[LineKey]) -> int | None:
    """What issued invoices charge for the lines `keys`, minor units; None while none of them has been billed."""
    if not keys:
        return None
    issued = billed.sums(session, subscription_ids, open_at=min(key.cycle_start for key in keys))
    found = [entry.minor for known in issued.values() for key, entry in known.items() if key in keys]
    return sum(found) if found else None


def open_minor(
    organization_id: uuid.UUID,
    timelines: Mapping[uuid.UUID, Sequence[Term]],
    keys: Collection[LineKey] | None,
    *,
    currency: str,
    as_of: datetime,
) -> Question[int]:
    """What the running lines `keys` (None: all, recurring prices too) amount to at `as_of`, minor units."""
    subjects = [Subject(subscription_id, organization_id, currency, tuple(terms), as_of) for subscription_id, terms in timelines.items()]
    owes = owing(subjects, lambda subject: [s for s in open_segments(subject.terms, as_of=as_of) if keys is None or s.key in keys])
    return Question(owes.windows, lambda measured: sum(entry.minor for lines in owes.answer(measured) for entry in lines.values()))


def line_days(session: Session, line: InvoiceLine, *, timezone: str, currency: str, granularity: str = "day") -> UsageCost | None:
    """The usage behind an invoice line, day by day over exactly the billed window, priced as the line was; None for other lines.

    The price is the line's own, frozen with the invoice. Usage counted after the invoice shows as a difference to the line.
    """
    model = wording.model(line.detail)
    if line.metric_id is None or line.cycle_start is None or model is None or not line.detail.get("parts"):
        return None
    key = LineKey(str(line.pricing_rule_id), line.cycle_start)
    spans = [Period(*map(datetime.fromisoformat, window)) for part in line.detail["parts"] for window in part["windows"]]
    rule = Rule(key.rule_id, line.code, Kind.USAGE, Timing.IN_ARREARS, model, str(line.metric_id))
    cycle = Period(line.cycle_start, line.cycle_end or spans[-1].end)
    cuts = [Segment(key, rule, "", cycle, span, Fraction(1), Decimal(1), credit_unused=True) for span in spans]
    start, end = spans[0].start, spans[-1].end
    metric = session.get_one(Metric, line.metric_id)
    found = summary(
        session, line.organization_id, start=start, end=end, timezone=timezone, granularity=granularity, metric_codes=[metric.code]
    )[0]
    edges = sorted({start, end, *(bucket.start for bucket in found.buckets)})
    cut = _cuts(metric, {key: cuts}, edges, end)
    owner = line.organization_id
    usage = metering.usage_sums(session, [(owner, metric.id, *span) for span in cut.asked])
    rises = _rises({key: cuts}, cut, {(a, b): usage[owner, metric.id, a, b] for a, b in cut.asked}, edges, currency)
    buckets = tuple(_cost(bucket, rises[bucket.start]) for bucket in found.buckets)
    return UsageCost(metric, currency, found.total, sum(bucket.minor for bucket in buckets), buckets, (key,), True)


def _lines(timelines: Mapping[uuid.UUID, Sequence[Term]], metric_id: str, start: datetime, end: datetime) -> dict[LineKey, list[Segment]]:
    """The windows of the metric's usage prices that overlap the range, by line."""
    found: dict[LineKey, list[Segment]] = {}
    for terms in timelines.values():
        running = current_cycle(terms, as_of=end - INSTANT)
        for segment in segments(terms, as_of=max(end, running.end) if running else end):
            if segment.rule.kind is Kind.USAGE and segment.rule.metric_id == metric_id and segment.cycle.end > start:
                found.setdefault(segment.key, []).append(segment)
    kept = {key: line for key, line in found.items() if any(s.window.start < end and s.window.end > start for s in line)}
    return {key: sorted(line, key=lambda segment: segment.window.start) for key, line in kept.items()}


def _usage_cost(
    found: MetricSummary,
    lines: Mapping[LineKey, Sequence[Segment]],
    cuts: _Cuts,
    usage: Mapping[tuple[datetime, datetime], Decimal],
    edges: Sequence[datetime],
    *,
    start: datetime,
    currency: str,
) -> UsageCost:
    rises = _rises(lines, cuts, usage, edges, currency)
    buckets = tuple(_cost(bucket, rises[bucket.start]) for bucket in found.buckets)
    begins = [min(segment.window.start for segment in windows) for windows in lines.values()]
    whole = bool(begins) and min(begins) >= start
    return UsageCost(found.metric, currency, found.total, sum(b.minor for b in buckets), buckets, tuple(lines), whole)


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Where each window is cut by the buckets, and the spans asked for: the pieces where they add up, else from the start."""

    additive: bool
    points: Mapping[Period, Sequence[datetime]]
    asked: frozenset[tuple[datetime, datetime]]


def _cuts(metric: Metric, lines: Mapping[LineKey, Sequence[Segment]], edges: Sequence[datetime], end: datetime) -> _Cuts:
    windows = [segment.window for line in lines.values() for segment in line if segment.window.start < end]
    points = {}
    for window in windows:
        until = min(window.end, end)
        points[window] = [window.start, *(edge for edge in edges if window.start < edge < until), until]
    additive = metric.aggregation in ADDITIVE
    asked = {(a if additive else cut[0], b) for cut in points.values() for a, b in pairwise(cut)}
    return _Cuts(additive, points, frozenset(asked))


def _rises(
    lines: Mapping[LineKey, Sequence[Segment]],
    cut: _Cuts,
    usage: Mapping[tuple[datetime, datetime], Decimal],
    edges: Sequence[datetime],
    currency: str,
) -> dict[datetime, int]:
    """By bucket start, how much the lines rose in the bucket, minor units."""
    rises = dict.fromkeys(edges, 0)
    for line in lines.values():
        earlier, before = Decimal(0), _rounded(line[0], Decimal(0), currency)
        rises[_bucket_of(edges, line[0].window.start)] += before
        for segment in (found for found in line if found.window in cut.points):
            points, running = cut.points[segment.window], Decimal(0)
            for at, until in pairwise(points):
                running = running + usage[at, until] if cut.additive else usage[points[0], until]
                after = _rounded(segment, earlier + running, currency)
                rises[_bucket_of(edges, at)] += after - before
                before = after
            earlier += running
    return rises


def _bucket_of(edges: Sequence[datetime], at: datetime) -> datetime:
    """The bucket that holds `at`; what lies before the range belongs to none and is kept under the instant itself."""
    inside = [edge for edge in edges if edge <= at]
    return inside[-1] if inside else edges[-1]


def _rounded(segment: Segment, quantity: Decimal, currency: str) -> int:
    with localcontext(EXACT):
        return round_half_up(price(segment.rule.model, max(quantity, Decimal(0))), currency)


def _cost(bucket: Bucket, minor: int) -> Cost:
    names = [name for name, quantity in bucket.groups.items() if quantity > 0]
    shares = allocate(minor, [bucket.groups[name] for name in names]) if names else []
    amounts = dict(zip(names, shares, strict=True))
    return Cost(bucket.start, bucket.end, bucket.quantity, minor, {name: (q, amounts.get(name, 0)) for name, q in bucket.groups.items()})
