"""What a subscription owes: its terms cut into segments, segments priced into owed amounts, owed minus billed is due.

A subscription is a timeline of terms. A trial is a term without rules, a pause is a gap. Renewal, plan change, seats, cancellation,
late usage and a repeated run are no cases of their own: each changes the terms or the usage, and the difference to what was billed is due.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from core.money import EXACT, format_decimal, plain, round_half_up, round_ratio
from core.periods import Anchor, Period, cycle_containing
from core.pricing.price import Explanation, explain, price
from core.pricing.proration import WHOLE, Proration, share
from core.pricing.rules import to_json
from core.pricing.terms import Kind, LineKey, Rule, Segment, Term, Timing

__all__ = [
    "Kind", "LineItem", "LineKey", "LineKind", "Owed", "Part", "Proration", "Rule", "Segment", "Term", "Timing",
    "current_cycle", "due", "next_due", "open_segments", "owed", "segments",
]  # fmt: skip

_ZERO = Decimal(0)


class Part(NamedTuple):
    """A priced piece of a line: `amount` is `price(model, quantity)` times `fraction`, exact."""

    segments: tuple[Segment, ...]
    quantity: Decimal
    fraction: Fraction
    amount: Decimal | Fraction

    def explain(self) -> Explanation:
        """How the price came about, before the fraction is taken."""
        with localcontext(EXACT):
            return explain(self.segments[0].rule.model, self.quantity)

    def detail(self) -> dict[str, object]:
        """The part as JSON values: `price` is the model's amount, `amount` the fraction of it that is owed."""
        explanation = self.explain()
        return {
            "windows": [_span(segment.window) for segment in self.segments],
            "quantity": plain(self.quantity),
            "formula": explanation.formula,
            "steps": [step.detail() for step in explanation.steps],
            "price": plain(explanation.amount),
            "fraction": str(self.fraction),
            "amount": plain(_decimal(self.amount)),
        }


class Owed(NamedTuple):
    """What one rule owes for one cycle: `minor` units of `currency`, rounded once from the exact sum of the parts."""

    key: LineKey
    rule: Rule
    cycle: Period
    currency: str
    minor: int
    amount: Decimal | Fraction
    quantity: Decimal
    parts: tuple[Part, ...]

    @property
    def exact(self) -> Decimal:
        """The amount before rounding, to 12 places where the decimal does not end."""
        return _decimal(self.amount)

    @property
    def credit_unused(self) -> bool:
        """Whether a smaller amount than billed is given back."""
        return all(segment.credit_unused for part in self.parts for segment in part.segments)

    def detail(self) -> dict[str, object]:
        """The whole derivation as JSON values, every amount a decimal string in major units."""
        return {
            "model": to_json(self.rule.model),
            "cycle": _span(self.cycle),
            "parts": [part.detail() for part in self.parts],
            "exact": plain(self.exact),
            "rounded": format_decimal(self.minor, self.currency),
        }


class LineKind(StrEnum):
    """CHARGE: billed for the first time. ADJUSTMENT: more than was billed. CREDIT: less than was billed."""

    CHARGE = "charge"
    ADJUSTMENT = "adjustment"
    CREDIT = "credit"


class LineItem(NamedTuple):
    """A line of the next invoice: `minor` is what is owed less what was billed; `owed` is None when nothing is owed any more."""

    key: LineKey
    kind: LineKind
    minor: int
    billed_before: int
    owed: Owed | None

    @property
    def rule(self) -> Rule | None:
        """The rule, if the timeline still knows it."""
        return self.owed.rule if self.owed else None

    @property
    def quantity(self) -> Decimal:
        """The quantity owed for, 0 when nothing is."""
        return self.owed.quantity if self.owed else _ZERO


def segments(terms: Sequence[Term], *, as_of: datetime, since: datetime | None = None) -> list[Segment]:
    """Everything owed by `as_of`, in order of cycle: terms are sorted and do not overlap.

    In-advance prices are owed once their cycle, or the term inside it, has begun; the others once their window has ended.
    Cycles that ended by `since` are closed and left out.
    """
    return [segment for segment in _walk(terms, as_of, since) if segment.due_at <= as_of]


def open_segments(terms: Sequence[Term], *, as_of: datetime) -> list[Segment]:
    """The cycles running at `as_of` as if they ended now: usage windows stop at `as_of`, recurring prices count in full."""
    running = [segment for segment in _walk(terms, as_of, since=as_of) if segment.cycle.contains(as_of)]
    return [_clip(segment, as_of) if segment.rule.kind is Kind.USAGE else segment for segment in running]


def next_due(terms: Sequence[Term], *, after: datetime) -> datetime | None:
    """The first instant later than `after` at which something may fall due: a cycle or a term begins or ends. None: never again."""
    for term in terms:
        if term.start > after:
            return term.start
        if term.end is not None and term.end <= after:
            continue
        if term.end is not None and not term.rules:
            return term.end
        cycle_end = cycle_containing(term.anchor, after).end
        return cycle_end if term.end is None else min(cycle_end, term.end)
    return None


def current_cycle(terms: Sequence[Term], *, as_of: datetime) -> Period | None:
    """The billing cycle at `as_of`; a trial is one period. None in a gap, before the first term and after the last."""
    for term in terms:
        if term.start <= as_of and (term.end is None or as_of < term.end):
            if term.end is not None and not term.rules:
                return Period(term.start, term.end)
            return cycle_containing(term.anchor, as_of)
    return None


def owed(segments: Sequence[Segment], usage: Mapping[tuple[str, datetime, datetime], Decimal], currency: str) -> dict[LineKey, Owed]:
    """Price the segments, by key. `usage` maps (metric id, window start, window end) to a quantity; a window it lacks had none.

    Usage windows of one key are added up before they are priced, so that tiers see the whole cycle. A negative total is billed as 0.
    """
    by_key: dict[LineKey, list[Segment]] = {}
    for segment in segments:
        by_key.setdefault(segment.key, []).append(segment)
    with localcontext(EXACT):
        return {key: _owed(key, group, usage, currency) for key, group in by_key.items()}


def due(
    owed: Mapping[LineKey, Owed],
    billed: Mapping[LineKey, int],
    *,
    no_credit: Collection[str] = (),
    since: datetime | None = None,
) -> list[LineItem]:
    """The lines of the next invoice: owed less billed, by key. Billing them and asking again gives none.

    A line billed for the first time is kept at 0, unless it is for no time at all; later only differences are. What was billed and is
    no longer owed is given back, unless its cycle began before `since` (closed). A rule in `no_credit`, or a term without
    `credit_unused`, never gives back.
    """
    items = [_item(key, entry, billed.get(key)) for key, entry in owed.items()]
    items += [
        LineItem(key, LineKind.CREDIT, -minor, minor, None)
        for key, minor in sorted(billed.items())
        if key not in owed and (since is None or key.cycle_start >= since)
    ]
    return [item for item in items if _is_due(item, no_credit)]


def _walk(terms: Sequence[Term], as_of: datetime, since: datetime | None) -> list[Segment]:
    """All segments of cycles that have begun by `as_of` and not ended by `since`."""
    found: list[Segment] = []
    last: dict[LineKey, int] = {}
    for term in terms:
        if term.start > as_of or not term.rules:
            continue
        end = term.end
        until = as_of if end is None else min(as_of, end)
        for cycle in _begun(term, until, since):
            window = Period(max(cycle.start, term.start), cycle.end if end is None else min(cycle.end, end))
            if window.start >= window.end:
                continue
            for rule in term.rules:
                _add(found, last, _segment(rule, term, cycle, window))
    return found


def _begun(term: Term, until: datetime, since: datetime | None) -> tuple[Period, ...]:
    """The term's cycles that have begun by `until` and not ended by `since`, also when the term itself ended before."""
    return _cycles(term.anchor, term.start if since is None else max(term.start, since), until)


@lru_cache(maxsize=4096)
def _cycles(anchor: Anchor, first: datetime, last: datetime) -> tuple[Period, ...]:
    """From the cycle that holds `first` to the one that holds `last`. Cached: an invoice run asks the same of thousands of customers."""
    bounds = [anchor.boundary(n) for n in range(anchor.index(first), anchor.index(last) + 2)]
    return tuple(Period(start, end) for start, end in pairwise(bounds))


def _segment(rule: Rule, term: Term, cycle: Period, window: Period) -> Segment:
    part = WHOLE if rule.kind is Kind.USAGE else share(window, cycle, rule.prorate, term.anchor.timezone)
    return Segment(LineKey(rule.id, cycle.start), rule, term.id, cycle, window, part, term.quantity, term.credit_unused)


def _add(found: list[Segment], last: dict[LineKey, int], segment: Segment) -> None:
    """Append the segment. Usage, and what is never prorated, is not cut by a change of seats: it continues the adjoining segment."""
    if segment.rule.kind is Kind.USAGE or segment.rule.prorate is Proration.NONE:
        at = last.get(segment.key)
        if at is not None and found[at].window.end == segment.window.start:
            found[at] = found[at]._replace(window=Period(found[at].window.start, segment.window.end))
            return
        last[segment.key] = len(found)
    found.append(segment)


def _clip(segment: Segment, as_of: datetime) -> Segment:
    start = segment.window.start
    return segment._replace(window=Period(start, max(start, min(segment.window.end, as_of))))


def _owed(key: LineKey, group: list[Segment], usage: Mapping[tuple[str, datetime, datetime], Decimal], currency: str) -> Owed:
    rule = group[0].rule
    if rule.kind is Kind.USAGE:
        measured = sum((usage.get((rule.metric_id or "", s.window.start, s.window.end), _ZERO) for s in group), _ZERO)
        quantity = max(measured, _ZERO)
        parts: tuple[Part, ...] = (Part(tuple(group), quantity, WHOLE, price(rule.model, quantity)),)
    else:
        if rule.prorate is Proration.NONE:
            group = group[:1]  # one whole price a cycle, also when a pause cuts it
        quantity = group[-1].quantity
        parts = tuple(Part((s,), s.quantity, s.fraction, _shared(price(rule.model, s.quantity), s.fraction)) for s in group)
    amount = parts[0].amount
    if len(parts) > 1:
        amount = sum((Fraction(part.amount) for part in parts), Fraction(0))
    return Owed(key, rule, group[0].cycle, currency, round_half_up(amount, currency), amount, quantity, parts)


def _shared(amount: Decimal, part: Fraction) -> Decimal | Fraction:
    return amount if part is WHOLE else Fraction(amount) * part


def _item(key: LineKey, entry: Owed, billed: int | None) -> LineItem:
    if billed is None:
        return LineItem(key, LineKind.CHARGE, entry.minor, 0, entry)
    minor = entry.minor - billed
    return LineItem(key, LineKind.CREDIT if minor < 0 else LineKind.ADJUSTMENT, minor, billed, entry)


def _is_due(item: LineItem, no_credit: Collection[str]) -> bool:
    if item.kind is LineKind.CHARGE:
        return item.minor != 0 or item.owed is None or any(part.fraction for part in item.owed.parts)
    if item.minor >= 0:
        return item.minor > 0
    return item.key.rule_id not in no_credit and (item.owed is None or item.owed.credit_unused)


def _span(period: Period) -> list[str]:
    return [period.start.isoformat(), period.end.isoformat()]


def _decimal(amount: Decimal | Fraction) -> Decimal:
    if isinstance(amount, Decimal):
        return amount
    return Decimal(round_ratio(amount.numerator * 10**12, amount.denominator)).scaleb(-12, EXACT).normalize(EXACT)
