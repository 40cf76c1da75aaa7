"""What usage cost, bucket by bucket: the rise of its invoice line over each bucket, so that the buckets add up to the line.

Tiers are used up in the order of time: later units of a cycle cost what the tier reached by then says. Each bucket's amount is the
line rounded at its end less the line rounded at its start; within a bucket, groups share the amount by their quantities.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from sqlalchemy.orm import Session

from core.invoicing import billed, wording
from core.invoicing.models import InvoiceLine
from core.invoicing.rating import Subject, owing
from core.invoicing.rises import Cuts, cut_lines, rises
from core.metering.models import Metric
from core.metering.reading import Measured, Question, ask
from core.metering.summary import Bucket, MetricSummary, cut, metrics_named, summarized
from core.money import allocate
from core.periods import Period
from core.pricing.models import Model
from core.pricing.terms import Kind, LineKey, Measure, Rule, Segment, Term, Timing
from core.pricing.timeline import current_cycle, open_segments, segments

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
    cuts = {
        metric.id: cut_lines(
            metric, _lines(timelines, str(metric.id), start, end), edges, end, organization_id=organization_id, timezone=timezone
        )
        for metric in metrics
    }
    # What the buckets have read is not asked again, unless they do not add up.
    windows = frozenset(window for found in cuts.values() for window in found.windows(buckets))

    def answer(measured: Measured) -> list[UsageCost]:
        return [_usage_cost(one, cuts[one.metric.id], measured, start=start, currency=currency) for one in summed.answer(measured)]

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
    key, cuts = _billed_line(line, model)
    start, end = cuts[0].window.start, cuts[-1].window.end
    metric = session.get_one(Metric, line.metric_id)
    summed = summarized([metric], line.organization_id, start=start, end=end, timezone=timezone, granularity=granularity)
    edges = sorted({start, end, *(since for since, _ in cut(start, end, granularity, timezone))})
    pieces = cut_lines(metric, {key: cuts}, edges, end, organization_id=line.organization_id, timezone=timezone)

    def answer(measured: Measured) -> UsageCost:
        return _usage_cost(summed.answer(measured)[0], pieces, measured, start=start, currency=currency)

    return ask(session, Question(summed.windows | pieces.windows(), answer))


def _billed_line(line: InvoiceLine, model: Model) -> tuple[LineKey, list[Segment]]:
    """The windows that a line was billed for, as its own derivation tells them."""
    if line.cycle_start is None:
        raise ValueError(f"line {line.id} has no cycle")
    key, detail = LineKey(str(line.pricing_rule_id), line.cycle_start), line.detail
    measure = Measure(detail.get("measure", Measure.FLOW))
    rule = Rule(key.rule_id, line.code, Kind.USAGE, Timing.IN_ARREARS, model, str(line.metric_id), measure=measure)
    cycle = Period(*map(datetime.fromisoformat, detail["cycle"]))
    measured_from = datetime.fromisoformat(detail["measured_from"]) if "measured_from" in detail else None
    found: list[Segment] = []
    for part in detail["parts"]:
        share = Fraction(part["fraction"] if rule.is_level else part.get("share", 1))
        allowance = Fraction(part.get("included", 0)) * (share if rule.is_level else 1)
        for window in part["windows"]:
            span = Period(*map(datetime.fromisoformat, window))
            seen = measured_from if measured_from is not None and measured_from < span.start else None
            found.append(Segment(key, rule, "", cycle, span, share, Decimal(1), allowance=allowance, measured_from=seen))
            share = allowance = Fraction(0)
    return key, found


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


def _usage_cost(found: MetricSummary, cuts: Cuts, measured: Measured, *, start: datetime, currency: str) -> UsageCost:
    known = {(bucket.start, bucket.end): bucket.quantity for bucket in found.buckets}
    rose = rises(cuts, measured, known, found.metric, currency)
    buckets = tuple(_cost(bucket, rose[bucket.start]) for bucket in found.buckets)
    begins = [min(segment.window.start for segment in windows) for windows in cuts.lines.values()]
    whole = bool(begins) and min(begins) >= start
    return UsageCost(found.metric, currency, found.total, sum(b.minor for b in buckets), buckets, tuple(cuts.lines), whole)


def _cost(bucket: Bucket, minor: int) -> Cost:
    names = [name for name, quantity in bucket.groups.items() if quantity > 0]
    shares = allocate(minor, [bucket.groups[name] for name in names]) if names else []
    amounts = dict(zip(names, shares, strict=True))
    return Cost(bucket.start, bucket.end, bucket.quantity, minor, {name: (q, amounts.get(name, 0)) for name, q in bucket.groups.items()})
