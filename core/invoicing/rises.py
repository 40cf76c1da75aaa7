"""By how much invoice lines rise over stretches of time: each window cut at the stretches, priced up to every cut. Pure.

Usage of pieces is added up where the metric and the model allow it; else it is read from the window's beginning each time.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from itertools import pairwise

from core.invoicing import measuring
from core.invoicing.measuring import Asked, Reading
from core.metering import answers
from core.metering.models import Metric
from core.metering.reading import Measured
from core.metering.windows import Window
from core.money import EXACT, round_half_up
from core.periods import Period
from core.pricing.charge import nothing
from core.pricing.compound import Capacity, GraduatedProrated, Sum
from core.pricing.models import bare, reads_one
from core.pricing.terms import LineKey, Segment
from core.pricing.timeline import usage_price
from core.pricing.usage import Usage, merged

Lines = Mapping[LineKey, Sequence[Segment]]
Known = Mapping[tuple[datetime, datetime], Decimal]
"""Quantities of the metric that have been read otherwise, by start and end."""
_Piece = tuple[LineKey, datetime, datetime]


@dataclass(frozen=True, slots=True)
class Cuts:
    """The lines of one metric, their windows cut at `edges` up to `end`, and what has to be read for the pieces."""

    lines: Lines
    edges: Sequence[datetime]
    points: Mapping[Period, Sequence[datetime]]
    additive: bool
    readings: Mapping[_Piece, Reading]

    def windows(self, known: Iterable[tuple[datetime, datetime]] = ()) -> frozenset[Window]:
        """What to ask of metering, without the spans whose quantity is known."""
        spans = frozenset(known) if self.additive else frozenset()
        wanted = (
            reading.windows
            for (key, a, b), reading in self.readings.items()
            if (a, b) not in spans or not reads_one(self.lines[key][0].rule.model)
        )
        return frozenset(window for windows in wanted for window in windows)


def cut_lines(metric: Metric, lines: Lines, edges: Sequence[datetime], end: datetime, *, organization_id: uuid.UUID, timezone: str) -> Cuts:
    """Cut the windows of the lines at the edges."""
    points: dict[Period, Sequence[datetime]] = {}
    readings: dict[_Piece, Reading] = {}
    for key, segments in lines.items():
        adds_up = _adds_up(metric, segments[0])
        for segment in (found for found in segments if found.window.start < end):
            until = min(segment.window.end, end)
            cut = [segment.window.start, *(edge for edge in edges if segment.window.start < edge < until), until]
            points[segment.window] = cut
            for a, b in pairwise(cut):
                start = a if adds_up else cut[0]
                asked = Asked(organization_id, Period(start, b), segment.cycle, timezone, segment.measured_from)
                readings[key, start, b] = measuring.reading(segment.rule, asked)
    return Cuts(lines, edges, points, answers.adds_up(metric), readings)


def rises(cuts: Cuts, measured: Measured, known: Known, metric: Metric, currency: str) -> dict[datetime, int]:
    """By edge, how much the lines rose from there to the next one, minor units."""
    found = dict.fromkeys(cuts.edges, 0)
    for key, line in cuts.lines.items():
        none, used = nothing(line[0].rule.model), dict[Period, Usage]()
        before = _rounded(line, used, currency)
        found[_bucket_of(cuts.edges, line[0].window.start)] += before
        for segment in (one for one in line if one.window in cuts.points):
            points, running = cuts.points[segment.window], none
            for at, until in pairwise(points):
                if _adds_up(metric, segment):
                    running = merged([running, _used(cuts, measured, known, (key, at, until))], none)
                else:
                    running = cuts.readings[key, points[0], until].usage(measured)
                used[segment.window] = running
                after = _rounded(line, used, currency)
                found[_bucket_of(cuts.edges, at)] += after - before
                before = after
    return found


def _used(cuts: Cuts, measured: Measured, known: Known, piece: _Piece) -> Usage:
    key, start, end = piece
    if cuts.additive and (start, end) in known and reads_one(cuts.lines[key][0].rule.model):
        return known[start, end]
    return cuts.readings[piece].usage(measured)


def _adds_up(metric: Metric, segment: Segment) -> bool:
    return answers.adds_up(metric) and not isinstance(bare(segment.rule.model), GraduatedProrated | Sum | Capacity)


def _bucket_of(edges: Sequence[datetime], at: datetime) -> datetime:
    """The bucket that holds `at`; what lies before the range belongs to none and is kept under the instant itself."""
    inside = [edge for edge in edges if edge <= at]
    return inside[-1] if inside else edges[-1]


def _rounded(line: Sequence[Segment], used: Mapping[Period, Usage], currency: str) -> int:
    with localcontext(EXACT):
        return round_half_up(usage_price(line, used), currency)
