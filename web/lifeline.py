"""A subscription's timeline as a drawing: what held, holds and will hold, from when to when, with pauses, add-ons and the contract.

Percentages across and pixels down, as in web.charts; colours come from the stylesheet. The tables under it say the same in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from zoneinfo import ZoneInfo

from markupsafe import Markup

from core import rendering
from core.catalog.models import PlanKind
from core.periods import midnight
from core.subscriptions.models import Subscription, SubscriptionStatus, SubscriptionTerm
from web.licensed import label

BACK, AHEAD = timedelta(days=400), timedelta(days=45)
CONTRACT_AHEAD = timedelta(days=800)
LANE_PX, BAR_PX, HEAD_PX, AXIS_PX = 44, 20, 18, 24
TICKS_MAX = 6
STEPS = (1, 2, 3, 6, 12, 24)
HATCHED = Markup(' fill="url(#lifeline-hatch)"')
LABEL_UP_TO = 92
WEEKS_UP_TO = timedelta(days=62)


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that holds from `start` up to `end` (None: open); `kind` is past, now, ahead, trial, pause or bound."""

    start: datetime
    end: datetime | None
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Lane:
    """Bars of one kind of thing, one after the other."""

    name: str
    bars: tuple[Bar, ...]


def lanes(subscription: Subscription, *, at: datetime, bound_until: datetime | None = None) -> list[Lane]:
    """The plan with its trial and pauses, each quantity, each add-on and coupon, and until when the contract binds."""
    terms = list(subscription.terms)
    still = subscription.status == SubscriptionStatus.PAUSED
    found = [Lane("Plan", _with_pauses(_merged(terms, _plan_words, at), still))] if terms else []
    names = dict.fromkeys(name for term in terms for name in term.quantities)
    if any(term.quantity != 1 for term in terms):
        found.append(Lane("Quantity", _merged(terms, lambda term: rendering.quantity(term.quantity), at)))
    found += [Lane(label(name), _merged(terms, partial(_held, name), at)) for name in names]
    attached: dict[str, list[Bar]] = {}
    for item in subscription.items:
        coupon = item.plan_version.plan.kind == PlanKind.COUPON
        text = "Coupon" if coupon else rendering.quantity(item.quantity)
        attached.setdefault(item.plan_version.plan.name, []).append(
            Bar(item.start_at, item.end_at, text, _kind(item.start_at, item.end_at, at))
        )
    found += [Lane(name, tuple(bars)) for name, bars in attached.items()]
    if bound_until is not None and terms:
        found.append(Lane("Contract", (Bar(terms[0].start_at, bound_until, "binds", "bound"),)))
    return found


def drawing(found: Sequence[Lane], *, at: datetime, zone: str, sentence: str) -> Markup:
    """The lanes on a common scale, with the months below and a line at `at`."""
    left, right = _reach(found, at)
    scale = _Scale(left, right)
    height = HEAD_PX + LANE_PX * len(found) + AXIS_PX
    parts = [
        Markup(
            '<defs><pattern id="lifeline-hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
            '<rect width="6" height="6" class="ground"/><line y2="6" class="hatch"/></pattern></defs>'
        )
    ]
    for day, text in _ticks(left, right, zone):
        x = scale.x(day)
        if Decimal(x) > LABEL_UP_TO:
            continue
        parts.append(Markup('<line class="grid" x1="{0}%" x2="{0}%" y1="{1}" y2="{2}"/>').format(x, HEAD_PX, height - AXIS_PX))
        parts.append(Markup('<text class="tick" x="{}%" y="{}" dx="3">{}</text>').format(x, height - 6, text))
    for number, lane in enumerate(found):
        top = HEAD_PX + number * LANE_PX
        parts.append(Markup('<text class="lane" y="{}">{}</text>').format(top + 13, lane.name))
        parts += [_bar(bar, scale, top + 18) for bar in lane.bars if (bar.end or right) > left and bar.start < right]
    x = scale.x(at)
    anchor = "end" if Decimal(x) > 85 else "start"
    parts.append(Markup('<line class="today" x1="{0}%" x2="{0}%" y1="4" y2="{1}"/>').format(x, height - AXIS_PX))
    parts.append(
        Markup('<text class="today" x="{}%" y="13" dx="{}" text-anchor="{}">Today</text>').format(x, -4 if anchor == "end" else 4, anchor)
    )
    return Markup('<svg class="lifeline" width="100%" height="{}" role="img" aria-label="{}">{}</svg>').format(
        height, sentence, Markup("").join(parts)
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    left: datetime
    right: datetime

    def x(self, at: datetime) -> str:
        """Where an instant is, in per cent of the width; what is outside lies on the edge."""
        inside = min(max(at, self.left), self.right)
        share = Decimal((inside - self.left) // timedelta(seconds=1)) / Decimal((self.right - self.left) // timedelta(seconds=1))
        return f"{share * 100:.2f}"


def _bar(bar: Bar, scale: _Scale, top: int) -> Markup:
    x, end = Decimal(scale.x(bar.start)), Decimal(scale.x(bar.end or scale.right))
    width = max(end - x, Decimal("0.4"))
    words = Markup('<text x="6" y="14">{}</text>').format(bar.text)
    return Markup(
        '<svg class="{}" x="{}%" y="{}" width="{}%" height="{}"><title>{}</title><rect width="100%" height="100%" rx="3"{}/>{}</svg>'
    ).format(bar.kind, x, top, width, BAR_PX, bar.text, HATCHED if bar.kind == "pause" else "", words)


def _reach(found: Sequence[Lane], at: datetime) -> tuple[datetime, datetime]:
    bars = [bar for lane in found for bar in lane.bars]
    first = min((bar.start for bar in found[0].bars), default=at) if found else at
    bounds = [bound for bar in bars for bound in (bar.start, bar.end) if bound is not None and bound <= at + CONTRACT_AHEAD]
    left, last = max(min(first, at), at - BACK), max([*bounds, at])
    return left, max(last + (last - left) / 8, at + AHEAD)


def _ticks(left: datetime, right: datetime, zone: str) -> Iterator[tuple[datetime, str]]:
    first = left.astimezone(ZoneInfo(zone)).date()
    if right - left <= WEEKS_UP_TO:
        day = first + timedelta(days=(7 - first.weekday()) % 7)
        while midnight(day, zone) < right:
            yield midnight(day, zone), rendering.day_month(midnight(day, zone), zone)
            day += timedelta(days=7)
        return
    months = (right - left).days // 30
    step = next((step for step in STEPS if months / step <= TICKS_MAX), STEPS[-1])
    number, shown_year = first.year * 12 + first.month - 1, None
    for month in range(number, number + months + 3):
        begins = midnight(date(month // 12, month % 12 + 1, 1), zone)
        if month % step or not left <= begins < right:
            continue
        year = month // 12
        yield begins, f"{date(year, month % 12 + 1, 1):%b}" + (f" {year}" if year != shown_year else "")
        shown_year = year


def _merged(terms: Sequence[SubscriptionTerm], words: Callable[[SubscriptionTerm], str], at: datetime) -> tuple[Bar, ...]:
    """A bar for each run of terms that say the same."""
    bars: list[Bar] = []
    for term in terms:
        text = words(term)
        last = bars[-1] if bars else None
        if last is not None and last.text == text and last.end == term.start_at:
            bars.pop()
            bars.append(Bar(last.start, term.end_at, text, _kind(last.start, term.end_at, at)))
        else:
            bars.append(Bar(term.start_at, term.end_at, text, "trial" if term.is_trial else _kind(term.start_at, term.end_at, at)))
    return tuple(bars)


def _with_pauses(bars: tuple[Bar, ...], still: bool) -> tuple[Bar, ...]:
    """Between two bars nothing was owed: a pause, or the time between an end and the return; `still`: after the last one too."""
    gaps = [Bar(bars[-1].end, None, "Paused", "pause")] if still and bars[-1].end is not None else []
    gaps += [Bar(one.end, other.start, "Paused", "pause") for one, other in pairwise(bars) if one.end and one.end < other.start]
    return tuple(sorted((*bars, *gaps), key=lambda bar: bar.start))


def _plan_words(term: SubscriptionTerm) -> str:
    version = term.plan_version
    agreed = " (agreed)" if version.organization_id is not None else ""
    return f"{version.plan.name}, version {version.version}{agreed}{', trial' if term.is_trial else ''}"


def _held(name: str, term: SubscriptionTerm) -> str:
    return rendering.quantity(Decimal(term.quantities.get(name, "0")))


def _kind(start: datetime, end: datetime | None, at: datetime) -> str:
    return "ahead" if start > at else "past" if end is not None and end <= at else "now"
