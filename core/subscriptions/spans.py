"""A subscription's terms as plain values, and what each change makes of them. Pure: every function returns a new timeline.

A subscription begins with the local day of its start: that day counts in full, so that the first period of an anniversary is a whole one.
A trial of n days covers n local days, the first one included. A plan change holds from its exact instant.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType

from core.catalog.models import PlanVersion
from core.periods import (
    MONTHS_IN,
    Anchor,
    Interval,
    anniversary_anchor,
    calendar_anchor,
    cycle_containing,
    day_anchor,
    local_date,
    midnight,
)
from core.subscriptions.attached import Attached
from core.subscriptions.models import AnchorMode, Subscription

_TICK = timedelta(microseconds=1)
Hanging = AnchorMode | int
"""Where a term's cycles begin: on anniversaries, on calendar boundaries, or on this day of the month."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` up to `end` (None: open) this version and these quantities hold, `quantities` being those with names of their own.

    `id` is the stored row's, None before it is stored. `items` are all that the subscription has attached, whenever they hold.
    """

    start: datetime
    end: datetime | None
    version: PlanVersion
    quantity: Decimal
    is_trial: bool
    anchor: Anchor
    id: uuid.UUID | None = None
    quantities: Mapping[str, Decimal] = field(default_factory=dict)
    items: tuple[Attached, ...] = ()
    currency: str | None = None
    """Which of the version's prices hold; None: those in the plan's own currency."""

    def contains(self, at: datetime) -> bool:
        """Whether the span holds at the instant."""
        return self.start <= at and (self.end is None or at < self.end)

    @property
    def sold(self) -> tuple[uuid.UUID, Decimal, dict[str, Decimal]]:
        """What a change changes: version and quantities."""
        return self.version.id, self.quantity, {name: held for name, held in self.quantities.items() if held}


def opening(
    version: PlanVersion,
    *,
    start: datetime,
    timezone: str,
    mode: Hanging,
    quantity: Decimal,
    trial_days: int,
    not_before: datetime | None = None,
    quantities: Mapping[str, Decimal] = MappingProxyType({}),
) -> tuple[Span, ...]:
    """The timeline of a new subscription; `not_before` is where an earlier one ended on the same day."""
    day = local_date(start, timezone)
    begin = midnight(day, timezone)
    paid_from = midnight(day + timedelta(days=trial_days), timezone)
    if not_before is not None:
        begin, paid_from = max(begin, not_before), max(paid_from, not_before)
    paid = Span(paid_from, None, version, quantity, False, anchored(version, mode, paid_from, timezone), quantities=quantities)
    return (replace(paid, start=begin, end=paid_from, is_trial=True), paid) if paid_from > begin else (paid,)


def anchored(version: PlanVersion, mode: Hanging, at: datetime, timezone: str) -> Anchor:
    """The cycles of `version` for a term that begins at `at`; a day of the month says nothing of periods in days and weeks."""
    interval, count = Interval(version.billing_period), version.interval_count
    if isinstance(mode, int) and interval in MONTHS_IN:
        return day_anchor(interval, count, at, timezone, mode)
    make = calendar_anchor if mode is AnchorMode.CALENDAR else anniversary_anchor
    return make(interval, count, at, timezone)


def hanging(subscription: Subscription) -> Hanging:
    """How the cycles of this subscription's terms are hung."""
    return subscription.billing_day or AnchorMode(subscription.anchor_mode)


def ended(spans: Sequence[Span], at: datetime) -> tuple[Span, ...]:
    """Nothing holds from `at` on."""
    return tuple(_cut(span, at) for span in spans if span.start < at)


def reopened(spans: Sequence[Span], mode: Hanging) -> tuple[Span, ...]:
    """The end is taken back: the last span goes on, and what follows a trial follows again."""
    last = spans[-1]
    if not last.is_trial:
        return (*spans[:-1], replace(last, end=None))
    return (*spans, _after_trial(last, mode, None))


def changed(
    spans: Sequence[Span],
    *,
    version: PlanVersion,
    quantity: Decimal,
    at: datetime,
    mode: Hanging,
    quantities: Mapping[str, Decimal] | None = None,
) -> tuple[Span, ...]:
    """From `at` on, `version` and `quantity` hold; what was planned for later gives way, the end and a running trial stay.

    `quantities` are those with names that change; the others go on, as does what is attached. The cycles go on as they were when the
    new version has the same billing period, else they begin anew at `at`.
    """
    end, trial_ends = spans[-1].end, trial_end(spans)
    before = ended(spans, at)
    running = next((span for span in spans if span.contains(at)), spans[-1])
    held = {**running.quantities, **(quantities or {})}
    new = replace(running, start=at, end=end, version=version, quantity=quantity, quantities=held, is_trial=False, id=None)
    if trial_ends is not None and at < trial_ends:
        trial = replace(new, end=trial_ends, is_trial=True)
        rest = () if end is not None and end <= trial_ends else (_after_trial(trial, mode, end),)
        return (*before, trial, *rest)
    same_cycles = (running.anchor.interval, running.anchor.count) == (version.billing_period, version.interval_count)
    anchor = running.anchor if same_cycles else anchored(version, mode, at, running.anchor.timezone)
    return (*before, replace(new, anchor=anchor))


def withdrawn(spans: Sequence[Span], since: datetime, at: datetime, mode: Hanging) -> tuple[Span, ...]:
    """What is planned at `at` to begin at `since` or later gives way to what holds until then; what has begun stays."""
    return unscheduled(spans, since - _TICK, mode) if since > at else tuple(spans)


def unscheduled(spans: Sequence[Span], at: datetime, mode: Hanging) -> tuple[Span, ...]:
    """What was planned for after `at` gives way to what holds at `at`; the end and a running trial stay."""
    end = spans[-1].end
    kept = [span for span in spans if span.start <= at] or list(spans[:1])
    last = kept[-1]
    if not last.is_trial:
        return (*kept[:-1], replace(last, end=end))
    trial = replace(last, end=trial_end(spans))
    rest = () if end is not None and trial.end is not None and end <= trial.end else (_after_trial(trial, mode, end),)
    return (*kept[:-1], trial, *rest)


def resumed(spans: Sequence[Span], at: datetime, mode: Hanging) -> tuple[Span, ...]:
    """After a pause: the version, quantity and cycles of before hold again from `at`. What was a trial is one no longer."""
    last = spans[-1]
    start = at if last.end is None else max(at, last.end)
    anchor = anchored(last.version, mode, start, last.anchor.timezone) if last.is_trial else last.anchor
    return (*spans, replace(last, start=start, end=None, is_trial=False, anchor=anchor, id=None))


def reactivated(spans: Sequence[Span], at: datetime, mode: Hanging) -> tuple[Span, ...]:
    """After the end: the last version and quantity hold again. Within the cycle it ended in the cycles go on as they were, later they
    begin anew with the local day of `at`."""
    last = spans[-1]
    ended = at if last.end is None else min(last.end, at)
    if not last.is_trial and at < cycle_containing(last.anchor, ended).end:
        return resumed(spans, at, mode)
    again = opening(
        last.version, start=at, timezone=last.anchor.timezone, mode=mode, quantity=last.quantity, trial_days=0, not_before=ended
    )
    return (*spans, *(replace(span, quantities=last.quantities, items=last.items) for span in again))


def scheduled(spans: Sequence[Span], at: datetime) -> Span | None:
    """The next span after `at` that changes plan version or a quantity, if one is planned."""
    before = None
    for span in spans:
        if span.start > at and before is not None and before.sold != span.sold:
            return span
        before = span
    return None


def trial_end(spans: Sequence[Span]) -> datetime | None:
    """Where the trial ends; None without a trial."""
    ends = [span.end for span in spans if span.is_trial and span.end is not None]
    return max(ends) if ends else None


def _cut(span: Span, at: datetime) -> Span:
    return replace(span, end=at) if span.end is None or span.end > at else span


def _after_trial(trial: Span, mode: Hanging, end: datetime | None) -> Span:
    start = trial.end
    if start is None:
        raise ValueError("a trial has an end")
    anchor = anchored(trial.version, mode, start, trial.anchor.timezone)
    return replace(trial, start=start, end=end, is_trial=False, anchor=anchor, id=None)
