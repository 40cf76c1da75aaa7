"""A timeline cut into segments: for each term, rule and cycle the part of the cycle they share, and when it falls due."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from core.periods import Anchor, Period, cycle_containing
from core.pricing.proration import Proration
from core.pricing.spend import covered
from core.pricing.terms import ON_SPEND, Kind, LineKey, Measure, Rule, Segment, Term

_NONE = Fraction(0)
_TICK = timedelta(microseconds=1)


def segments(terms: Sequence[Term], *, as_of: datetime, since: datetime | None = None) -> list[Segment]:
    """Everything owed by `as_of`, each rule's in order of cycle: terms are sorted and do not overlap.

    In-advance prices are owed once their cycle, or the term inside it, has begun; the others once their window has ended.
    Cycles that ended by `since` are closed and left out.
    """
    return [segment for segment in _walk(terms, as_of, since) if segment.due_at <= as_of]


def open_segments(terms: Sequence[Term], *, as_of: datetime) -> list[Segment]:
    """The cycles running at `as_of` as if they ended now: usage windows stop at `as_of`, recurring prices count in full.

    Commitments over cycles of their own are left out: what counts towards them lies in cycles that have ended.
    """
    running = [segment for segment in _walk(terms, as_of, since=as_of) if segment.cycle.contains(as_of) and not _spans_cycles(segment.rule)]
    return [_clip(segment, as_of) if segment.rule.kind is Kind.USAGE else segment for segment in running]


def next_due(terms: Sequence[Term], *, after: datetime) -> datetime | None:
    """The first instant later than `after` at which something may fall due: a cycle, a rule or a term begins or ends. None: never again."""
    for term in terms:
        if term.start > after:
            return term.start
        if term.end is not None and term.end <= after:
            continue
        if term.end is not None and term.is_trial:
            return term.end
        return min(_bounds(term, after))
    return None


def late_look(terms: Sequence[Term], *, after: datetime, waits: Sequence[timedelta]) -> datetime | None:
    """The first instant later than `after` that is one of `waits` after the last end of usage: what came late is looked for then."""
    ended: list[datetime] = []
    for term in terms:
        rules = [rule for rule in term.rules if rule.kind is Kind.USAGE]
        if not rules or term.start >= after:
            continue
        if term.end is not None and term.end <= after:
            ended.append(term.end)
        else:
            begun = (cycle_containing(term.anchor_of(rule), after).start for rule in rules)
            ended += [start for start in begun if start > term.start]
    if not ended:
        return None
    return min((max(ended) + wait for wait in waits if max(ended) + wait > after), default=None)


def last_turn(terms: Sequence[Term], *, before: datetime) -> datetime:
    """The last instant earlier than `before` at which a term or one of its cycles began or ended; `before` itself when there is none.

    Whatever fell due then has been looked at: what a cycle owes may still have grown since, if it ended shortly before.
    """
    turns = []
    for term in terms:
        if term.start < before:
            runs = term.end is None or term.end >= before
            turns.append(max(term.start, cycle_containing(term.anchor, before - _TICK).start) if runs else term.end or term.start)
    return max(turns, default=before)


def current_cycle(terms: Sequence[Term], *, as_of: datetime) -> Period | None:
    """The billing cycle at `as_of`; a trial is one period. None in a gap, before the first term and after the last."""
    for term in terms:
        if term.start <= as_of and (term.end is None or as_of < term.end):
            if term.end is not None and term.is_trial:
                return Period(term.start, term.end)
            return cycle_containing(term.anchor, as_of)
    return None


def _bounds(term: Term, after: datetime) -> Iterator[datetime]:
    """Where the running cycles of the term, its rules and the term itself begin or end after the instant."""
    yield cycle_containing(term.anchor, after).end
    if term.end is not None:
        yield term.end
    for rule in term.rules:
        if rule.cycle is not None:
            yield cycle_containing(term.anchor_of(rule), after).end
        if rule.during is not None:
            yield from (edge for edge in (rule.during.start, rule.during.end) if edge > after)


def _walk(terms: Sequence[Term], as_of: datetime, since: datetime | None) -> list[Segment]:
    """All segments of cycles that have begun by `as_of` and not ended by `since`."""
    found: list[Segment] = []
    last: dict[LineKey, int] = {}
    for term in terms:
        if term.start > as_of or not term.rules:
            continue
        until = as_of if term.end is None else min(as_of, term.end)
        for anchor, rules in _by_anchor(term):
            for cycle in _begun(anchor, term.start, until, since):
                window = _within(cycle, term.start, term.end)
                if window.start < window.end:
                    _cut(found, last, term, rules, cycle, window, as_of)
    return _measured(found)


def _measured(found: list[Segment]) -> list[Segment]:
    """The same; segments of what does not add up know since when their cycle has measured it, under whatever rule."""
    first: dict[tuple[str | None, Period], datetime] = {}
    for n, segment in enumerate(found):
        if segment.rule.measure is not Measure.FLOW:
            begun = first.setdefault((segment.rule.metric_id, segment.cycle), segment.window.start)
            if begun < segment.window.start:
                found[n] = segment._replace(measured_from=begun)
    return found


def _by_anchor(term: Term) -> list[tuple[Anchor, list[Rule]]]:
    """The rules of the term by the cycles they are billed in."""
    grouped: dict[Anchor, list[Rule]] = {}
    for rule in term.rules:
        grouped.setdefault(term.anchor_of(rule), []).append(rule)
    return list(grouped.items())


def _begun(anchor: Anchor, start: datetime, until: datetime, since: datetime | None) -> tuple[Period, ...]:
    """The cycles that have begun by `until` and not ended by `since`, also when the term itself ended before."""
    return _cycles(anchor, start if since is None else max(start, since), until)


@lru_cache(maxsize=4096)
def _cycles(anchor: Anchor, first: datetime, last: datetime) -> tuple[Period, ...]:
    """From the cycle that holds `first` to the one that holds `last`. Cached: an invoice run asks the same of thousands of customers."""
    bounds = [anchor.boundary(n) for n in range(anchor.index(first), anchor.index(last) + 2)]
    return tuple(Period(start, end) for start, end in pairwise(bounds))


def _within(cycle: Period, start: datetime, end: datetime | None) -> Period:
    return Period(max(cycle.start, start), cycle.end if end is None else min(cycle.end, end))


def _cut(
    found: list[Segment], last: dict[LineKey, int], term: Term, rules: Sequence[Rule], cycle: Period, window: Period, as_of: datetime
) -> None:
    """The segments of one cycle under one term, rule by rule."""
    for rule in rules:
        held = window if rule.during is None else window.overlap(rule.during)
        if held is not None and held.start <= as_of:
            _add(found, last, _segment(rule, term, cycle, held), term.anchor.timezone)


def _segment(rule: Rule, term: Term, cycle: Period, window: Period) -> Segment:
    key, quantity = LineKey(rule.id, cycle.start), term.held(rule)
    part = rule.share(window, cycle, term.anchor.timezone)
    if rule.kind is Kind.USAGE:
        return Segment(key, rule, term.id, cycle, window, part, quantity, term.credit_unused, _allowance(rule, term, part))
    covers = covered(rule, term.rules) if rule.kind in ON_SPEND else frozenset()
    return Segment(key, rule, term.id, cycle, window, part, quantity, term.credit_unused, _NONE, covers)


def _allowance(rule: Rule, term: Term, part: Fraction) -> Fraction:
    if not rule.included:
        return _NONE
    units = Fraction(rule.included) * (1 if rule.licensed is None else Fraction(term.held(rule)))
    return units * part


def _add(found: list[Segment], last: dict[LineKey, int], segment: Segment, timezone: str) -> None:
    """Append the segment; one whose rule stays whole continues the adjoining segment of the same cycle."""
    if segment.rule.is_whole:
        at = last.get(segment.key)
        if at is not None and found[at].window.end == segment.window.start:
            found[at] = _joined(found[at], segment, timezone)
            return
        last[segment.key] = len(found)
    found.append(segment)


def _joined(before: Segment, after: Segment, timezone: str) -> Segment:
    """One segment of both windows; included units add up, save where any part has the whole of them."""
    rule, window = before.rule, Period(before.window.start, after.window.end)
    whole = rule.prorate is Proration.NONE or (rule.is_level and rule.owes_whole)
    return before._replace(
        window=window,
        fraction=rule.share(window, before.cycle, timezone),
        allowance=before.allowance if whole else before.allowance + after.allowance,
        covers=before.covers | after.covers,
    )


def _spans_cycles(rule: Rule) -> bool:
    return rule.kind is Kind.COMMITMENT and rule.cycle is not None


def _clip(segment: Segment, as_of: datetime) -> Segment:
    start = segment.window.start
    return segment._replace(window=Period(start, max(start, min(segment.window.end, as_of))))
