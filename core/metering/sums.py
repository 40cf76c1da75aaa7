"""Usage of many windows at once: any aggregation, any window, in a handful of statements.

A window becomes spans (one, or one for each bucket of its metric and each part asked for), the spans are counted together, and what was
counted becomes answers. Recurring metrics begin with what stood before the window.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import column, select, table, text
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import identity_key

from core.metering import hours, sets
from core.metering.answers import Shape, Span, answer, carried, shape
from core.metering.hours import NOTHING, States
from core.metering.meters import NO_GROUP, Event, Meter, UnreadableProperty, Usage, add, group_of, meter, number, properties
from core.metering.models import Aggregation, Metric
from core.metering.windows import BEGINNING, Answer, By, Fold, Part, cut
from core.metering.windows import Window as Window  # noqa: PLC0414 - callers name it from here

STANDING = frozenset({Aggregation.LATEST, Aggregation.WEIGHTED_SUM, Aggregation.UNIQUE_COUNT})
"""Aggregations whose value goes on until an event changes it."""
organizations = table("organizations", column("id"), column("number"), column("timezone"), column("slug"))
RESOLVE = text("""SELECT o.id, o.number, o.timezone, (SELECT daily_through FROM usage_state) AS daily_through,
    (SELECT jsonb_object_agg(name, number) FROM usage_event_names WHERE name = ANY(CAST(:names AS text[]))) AS event_numbers
  FROM organizations o WHERE o.id = ANY(CAST(:organizations AS uuid[]))""")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A resolved window."""

    window: Window
    organization: int
    timezone: str
    meter: Meter
    event: int
    shape: Shape

    @property
    def standing_from(self) -> datetime | None:
        """From when on what stands at the window's beginning is counted; None where it begins with nothing."""
        if self.shape.recurring:
            return BEGINNING
        stands = self.shape.aggregation in STANDING and self.shape.bucket_size is None
        return self.window.standing_from if stands else None

    def stretches(self) -> list[Span]:
        """The whole window, then its parts in order of time."""
        by = self.shape.bucket_size or None if self.window.by is By.BUCKET else self.window.by
        whole = (self.window.start, self.window.end)
        if self.window.by is None or self.window.by is By.EVENT:
            return [whole]
        return [whole, *(cut(*whole, by, self.timezone) if by else [whole])]

    def pieces(self, start: datetime, end: datetime) -> list[Span]:
        """The buckets of the metric in a stretch; the stretch itself where it has none."""
        size = self.shape.bucket_size
        return list(cut(start, end, size, self.timezone)) if size else [(start, end)]


@dataclass(frozen=True, slots=True)
class _ByEvent:
    """The events of a window: folded, or as parts by group."""

    fold: Fold | None = None
    parts: dict[str, list[Part]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The whole of a window or one of its parts, and the places of its pieces in the question."""

    start: datetime
    end: datetime
    pieces: Sequence[Span]
    first: int

    def counted(self, states: States, group: str) -> dict[datetime, Usage]:
        """The state of each piece that has usage of the group."""
        found = {start: states[self.first + n].get(group) for n, (start, _) in enumerate(self.pieces)}
        return {start: usage for start, usage in found.items() if usage is not None}


def measure(session: Session, windows: Sequence[Window]) -> list[dict[str, Answer]]:
    """For each window its usage by group key (only "" unless `by_group`); a window without usage has an empty dict."""
    asked, daily_through = _resolve(session, windows)
    spans: list[hours.Span] = []
    stretches: dict[int, list[_Stretch]] = {}
    carries: dict[int, int] = {}
    for n, one in asked.items():
        stretches[n] = [_stretch(one, start, end, spans) for start, end in one.stretches()]
        if (standing_from := one.standing_from) is not None:
            carries[n] = _add_span(one, standing_from, one.window.start, spans)
    states = _states(session, spans, asked, stretches, carries, daily_through)
    by_event = _by_event(session, [(n, one) for n, one in asked.items() if one.window.by is By.EVENT])
    return [
        _answers(asked[n], stretches[n], states, states[carries[n]] if n in carries else {}, by_event.get(n, _ByEvent()))
        if n in asked
        else {}
        for n in range(len(windows))
    ]


def _resolve(session: Session, windows: Sequence[Window]) -> tuple[dict[int, _Asked], datetime]:
    """The windows by place, without those that cannot have usage; and how far the daily sums go."""
    metrics = _metrics(session, {window.metric_id for window in windows})
    given = {
        "organizations": list({window.organization_id for window in windows}),
        "names": list({metric.event_name for metric in metrics}),
    }
    rows = session.execute(RESOLVE, given).all()
    owners: dict[uuid.UUID, tuple[int, str]] = {row.id: (row.number, row.timezone) for row in rows}
    # Number 0 when no event of the name was ever accepted.
    events = (rows[0].event_numbers if rows else None) or {}
    meters = {metric.id: (meter(metric), events.get(metric.event_name, 0), shape(metric)) for metric in metrics}
    found = {}
    for n, window in enumerate(windows):
        if window.start < window.end and window.organization_id in owners and window.metric_id in meters:
            number, timezone = owners[window.organization_id]
            found[n] = _Asked(window, number, timezone, *meters[window.metric_id])
    return found, rows[0].daily_through if rows else BEGINNING


def _metrics(session: Session, ids: Collection[uuid.UUID]) -> list[Metric]:
    """The metrics with these ids: those the session has loaded, and from the database the others."""
    loaded = [metric for one in ids if (metric := session.identity_map.get(identity_key(Metric, one))) is not None]
    missing = set(ids) - {metric.id for metric in loaded}
    return [*loaded, *session.scalars(select(Metric).where(Metric.id.in_(missing)))] if missing else loaded


def _stretch(one: _Asked, start: datetime, end: datetime, spans: list[hours.Span]) -> _Stretch:
    first, pieces = len(spans), one.pieces(start, end)
    for since, until in pieces:
        _add_span(one, since, until, spans)
    return _Stretch(start, end, pieces, first)


def _add_span(one: _Asked, start: datetime, end: datetime, spans: list[hours.Span]) -> int:
    spans.append(hours.Span(len(spans), one.organization, one.meter, one.event, start, end, one.window.by_group))
    return len(spans) - 1


def _states(
    session: Session,
    spans: Sequence[hours.Span],
    asked: dict[int, _Asked],
    stretches: dict[int, list[_Stretch]],
    carries: dict[int, int],
    daily_through: datetime,
) -> States:
    states, covered, cut_edges = hours.states(session, spans, daily_through=daily_through)
    if any(span.meter.aggregation in hours.SETS for span in spans):
        owners = {s.first + k: n for n, found in stretches.items() for s in found for k in range(len(s.pieces))}
        owners |= {place: n for n, place in carries.items()}
        apart = {span.i for span in cut_edges} | {place for place, n in owners.items() if n in carries}
        shares = {place: share for place, n in owners.items() if (share := asked[n].shape.percentile) is not None}
        sets.add_values(session, states, spans, covered, apart)
        sets.add_counts(session, states, covered, apart, shares)
    return states


def _answers(one: _Asked, stretches: Sequence[_Stretch], states: States, carry: dict[str, Usage], events: _ByEvent) -> dict[str, Answer]:
    groups = set(carry) | {group for s in stretches for n in range(len(s.pieces)) for group in states.get(s.first + n, ())}
    found = {}
    for group in sorted(groups):
        standing = carry.get(group)
        whole = _answer(one, stretches[0], states, group, standing)
        parts = tuple(_parts(one, stretches[1:], states, group, standing)) if len(stretches) > 1 else tuple(events.parts.get(group, ()))
        found[group] = replace(whole, parts=parts, folded=events.fold)
    return found


def _answer(one: _Asked, stretch: _Stretch, states: States, group: str, standing: Usage | None) -> Answer:
    pieces = stretch.counted(states, group)
    if standing is not None:
        before = carried(one.shape, standing, stretch.start)
        mine = pieces.get(stretch.start)
        pieces[stretch.start] = before if mine is None else add(one.shape.aggregation, before, mine)
    return answer(one.shape, stretch.pieces, pieces)


def _parts(one: _Asked, stretches: Sequence[_Stretch], states: States, group: str, standing: Usage | None) -> Iterable[Part]:
    """The parts that have usage; what stood at the end of one is where the next begins."""
    for stretch in stretches:
        found = _answer(one, stretch, states, group, standing)
        if found.pieces:
            yield Part(stretch.start, stretch.end, found.quantity)
        if found.pieces and (one.shape.recurring or one.shape.aggregation is Aggregation.WEIGHTED_SUM):
            standing = found.pieces[stretch.start]


def _by_event(session: Session, asked: Sequence[tuple[int, _Asked]]) -> dict[int, _ByEvent]:
    """The events of windows read by event, in order of time and arrival, by group; or the fold that they were added to."""
    spans = [
        hours.Span(n, one.organization, one.meter, one.event, one.window.start, one.window.end, one.window.by_group) for n, one in asked
    ]
    known = dict(asked)
    found = {n: _ByEvent(one.window.fold.fold() if one.window.fold is not None else None) for n, one in asked}
    for row in hours.rows(session, hours.EVENTS, spans, events=True, stream=True):
        one, mine = known[row.i], found[row.i]
        event = Event(row.timestamp, (row.batch_id, row.position), row.quantity, properties(bytes(row.properties)))
        usage = hours.readable(one.meter, event)
        if usage is None:
            continue
        part = Part(event.timestamp, event.timestamp, usage.quantity, _carried_number(event, one.window.carrying))
        if mine.fold is not None:
            mine.fold.add(part)
        else:
            mine.parts.setdefault(group_of(one.meter, event.properties) if one.window.by_group else NO_GROUP, []).append(part)
    return found


def _carried_number(event: Event, name: str | None) -> Decimal | None:
    if name is None:
        return None
    try:
        given: Any = event.properties.get(name)
        return NOTHING if given is None else number(name, given, signed=True)
    except UnreadableProperty:
        return NOTHING
