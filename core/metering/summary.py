"""Usage for people: per metric, per bucket of local time and per group, from the same rollups an invoice reads."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import FieldError, Invalid
from core.metering.answers import merged, shape
from core.metering.models import Metric
from core.metering.reading import Measured, Question, ask, group
from core.metering.windows import Answer, Window
from core.metering.windows import cut as cut  # noqa: PLC0414 - callers name it from here

GRANULARITIES = ("hour", "day", "week", "month")
"""What pages offer; the API also knows minutes."""
BUCKETS_MAX = 2_500
RANGE_MAX = timedelta(days=400)
IN_USE = select(Metric).where(Metric.archived_at.is_(None)).order_by(Metric.code)
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Usage of one metric in [start, end); `groups` by value of the chosen dimension ("" where an event had none)."""

    start: datetime
    end: datetime
    quantity: Decimal
    events: int
    groups: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """One metric over the whole range and bucket by bucket. The total is the aggregate of the range, not a sum of buckets."""

    metric: Metric
    total: Decimal
    events: int
    groups: Mapping[str, Decimal]
    buckets: tuple[Bucket, ...]


def summary(
    session: Session,
    organization_id: uuid.UUID,
    *,
    start: datetime,
    end: datetime,
    timezone: str = "UTC",
    granularity: str | None = None,
    metric_codes: Sequence[str] | None = None,
    group_by: str | None = None,
    filters: Mapping[str, Sequence[str]] | None = None,
) -> list[MetricSummary]:
    """Usage of every metric (or those named) between two instants, in order of code.

    `granularity` minute, hour, day, week or month cuts the range at local times of `timezone`; None gives totals only. `group_by` and the
    names in `filters` must be dimensions of the metric (its group_by); metrics without them are left out. Raises Invalid.
    """
    metrics = metrics_named(session, metric_codes)
    return ask(
        session,
        summarized(
            metrics,
            organization_id,
            start=start,
            end=end,
            timezone=timezone,
            granularity=granularity,
            group_by=group_by,
            filters=filters,
        ),
    )


def metrics_named(session: Session, metric_codes: Sequence[str] | None) -> list[Metric]:
    """The metrics with these codes (None: all that are in use), in order of code. Raises Invalid for an unknown one."""
    metrics = list(session.scalars(IN_USE.where(Metric.code.in_(metric_codes)) if metric_codes is not None else IN_USE))
    missing = sorted(set(metric_codes or ()) - {metric.code for metric in metrics})
    if missing:
        raise Invalid("There is no such metric.", errors=tuple(FieldError("/metric_name", f"Unknown metric {code}.") for code in missing))
    return metrics


def summarized(
    metrics: Sequence[Metric],
    organization_id: uuid.UUID,
    *,
    start: datetime,
    end: datetime,
    timezone: str = "UTC",
    granularity: str | None = None,
    group_by: str | None = None,
    filters: Mapping[str, Sequence[str]] | None = None,
) -> Question[list[MetricSummary]]:
    """`summary` of loaded metrics, to be read together with other questions. Raises Invalid."""
    _check(start, end, granularity)
    dimensions = {*(filters or {}), *([group_by] if group_by else [])}
    metrics = [metric for metric in metrics if dimensions <= set(metric.group_by)]
    pieces = islice(cut(start, end, granularity, timezone), BUCKETS_MAX) if granularity else ()
    spans = [(start, end), *pieces]
    if len(spans) * max(1, len(metrics)) > BUCKETS_MAX * 4 or len(spans) > BUCKETS_MAX:
        raise Invalid("The range has too many buckets.", errors=(FieldError("/granularity", "Choose a coarser granularity."),))
    by = bool(dimensions)
    asked = {metric.id: [Window(organization_id, metric.id, since, until, by) for since, until in spans] for metric in metrics}

    def answer(measured: Measured) -> list[MetricSummary]:
        return [
            _one(metric, spans, [measured[window] for window in asked[metric.id]], timezone, group_by, filters or {}) for metric in metrics
        ]

    return Question(frozenset(window for windows in asked.values() for window in windows), answer)


def _check(start: datetime, end: datetime, granularity: str | None) -> None:
    errors = []
    if start >= end:
        errors.append(FieldError("/end_date", "The end must be after the start."))
    elif end - start > RANGE_MAX:
        errors.append(FieldError("/end_date", f"Ask for at most {RANGE_MAX.days} days at once."))
    if granularity is not None and granularity not in ("minute", *GRANULARITIES):
        errors.append(FieldError("/granularity", f"Choose one of minute, {', '.join(GRANULARITIES)}."))
    if errors:
        raise Invalid("The range is not usable.", errors=tuple(errors))


def _one(
    metric: Metric,
    spans: Sequence[Span],
    answers: Sequence[Mapping[str, Answer]],
    timezone: str,
    group_by: str | None,
    filters: Mapping[str, Sequence[str]],
) -> MetricSummary:
    buckets = [_bucket(metric, span, answer, timezone, group_by, filters) for span, answer in zip(spans, answers, strict=True)]
    total = buckets[0]
    return MetricSummary(metric, total.quantity, total.events, total.groups, tuple(buckets[1:]))


def _bucket(
    metric: Metric,
    span: Span,
    answers: Mapping[str, Answer],
    timezone: str,
    group_by: str | None,
    filters: Mapping[str, Sequence[str]],
) -> Bucket:
    """One piece of the range from the answers of its groups."""
    places = {name: i for i, name in enumerate(metric.group_by)}
    kept: dict[str, list[Answer]] = {}
    for key, answer in sorted(answers.items()):
        values = group(key)
        if all((values[places[name]] or "") in wanted for name, wanted in filters.items()):
            kept.setdefault((values[places[group_by]] or "") if group_by else "", []).append(answer)
    pieces = list(cut(*span, metric.bucket_size, timezone)) if metric.bucket_size else [span]
    groups = {name: _together(metric, pieces, found) for name, found in kept.items()}
    whole = _together(metric, pieces, [answer for found in kept.values() for answer in found])
    return Bucket(*span, whole.quantity, whole.events, {name: groups[name].quantity for name in sorted(groups)} if group_by else {})


def _together(metric: Metric, pieces: Sequence[Span], answers: Sequence[Answer]) -> Answer:
    return answers[0] if len(answers) == 1 else merged(shape(metric), pieces, answers)
