"""Prices of what other prices come to: discounts take from the spend of a cycle, commitments add what is missing to it.

Both are rules like any other and owed by cycle, so that what is owed less what was billed settles them too: a discount follows its lines
down when they are credited, a true-up shrinks when late usage fills it, and a commitment paid in advance is drawn down as usage is billed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from core.money import format_decimal, plain, round_half_up, to_decimal
from core.periods import Period
from core.pricing.charge import charge
from core.pricing.proration import WHOLE, Proration
from core.pricing.rules import Flat
from core.pricing.terms import ON_SPEND, Kind, LineKey, Rule, Segment

_ZERO = Decimal(0)
_TICK = timedelta(microseconds=1)


class SpendPart(NamedTuple):
    """How a rule on spend came to its amount: `quantity` is the spend it looked at, in major units."""

    segments: tuple[Segment, ...]
    quantity: Decimal
    fraction: Fraction
    amount: Decimal
    price: Decimal
    formula: str

    def detail(self) -> dict[str, object]:
        """The part as JSON values, in the form of a timeline.Part."""
        return {
            "windows": [[segment.window.start.isoformat(), segment.window.end.isoformat()] for segment in self.segments],
            "quantity": plain(self.quantity),
            "formula": self.formula,
            "steps": [],
            "price": plain(self.price),
            "fraction": str(self.fraction),
            "amount": plain(self.amount),
        }


class Settled(NamedTuple):
    """A line of a closed cycle: the minor units that were billed, and the time they were billed for at last."""

    minor: int
    window: Period
    in_advance: bool

    @property
    def billed_for(self) -> datetime:
        """The first instant of a line in advance, the last one of a line in arrears."""
        return self.window.start if self.in_advance else _last(self.window)


def covered(rule: Rule, rules: Sequence[Rule]) -> frozenset[str]:
    """Ids of the rules of a term whose lines `rule` looks at.

    A discount looks at the prices and at the discounts before it, so that each takes from what is left; a commitment at prices and
    all discounts: what the customer pays counts towards it.
    """
    before = True
    found: set[str] = set()
    for other in rules:
        before = before and other != rule
        counts = other.kind not in ON_SPEND or (other.kind is Kind.DISCOUNT and other != rule and (before or rule.kind is Kind.COMMITMENT))
        if counts and (rule.covers is None or other.code in rule.covers):
            found.add(other.id)
    return frozenset(found)


def in_turn(by_key: Mapping[LineKey, Sequence[Segment]], kind: Kind) -> Iterator[tuple[LineKey, Sequence[Segment]]]:
    """The lines of one kind of price on spend, each behind those it looks at.

    A coupon may be met before a discount it comes after: it goes on over a change of plan, and the new plan has a discount of its own.
    """
    waiting = {key: group for key, group in by_key.items() if group[0].rule.kind is kind}
    while waiting:
        ready = [key for key, group in waiting.items() if not any(_looks_at(group, *other) for other in waiting.items() if other[0] != key)]
        for key in ready or list(waiting):
            yield key, waiting.pop(key)


def spent(
    group: Sequence[Segment], by_key: Mapping[LineKey, Sequence[Segment]], owed: Mapping[LineKey, int], settled: Mapping[LineKey, Settled]
) -> int:
    """Minor units that the lines it looks at come to: what they owe, and what was billed in cycles that are closed."""
    cycle, covers = group[0].cycle, _covers(group)
    still_open = sum(minor for key, minor in owed.items() if _looks_at(group, key, by_key[key]))
    return still_open + sum(
        line.minor
        for key, line in settled.items()
        if key not in owed and key.rule_id in covers and cycle.contains(line.billed_for) and _meet(map(_window, group), [line.window])
    )


def following(closed: Mapping[LineKey, Sequence[Segment]], lines: Mapping[LineKey, Sequence[Segment]]) -> frozenset[LineKey]:
    """Keys of prices on spend in `closed` cycles that look at one of the `lines`, or at another that does.

    A price in advance of longer cycles than theirs may still change. What it comes to then is discounted, or given back, as it was billed.
    """
    waiting, found = dict(closed), dict(lines)
    while more := {key for key, group in waiting.items() if any(_looks_at(group, *line) for line in found.items())}:
        found |= {key: waiting.pop(key) for key in more}
    return frozenset(found.keys() - lines.keys())


def _looks_at(group: Sequence[Segment], key: LineKey, line: Sequence[Segment]) -> bool:
    """Whether a line counts: it is covered, falls due for time in this cycle, and is for time in which the group holds.

    A line of longer cycles so counts once, where it is billed. Where a plan is left and taken again with cycles that begin anew, one
    cycle of it lies inside another: each has its own lines.
    """
    if key.rule_id not in _covers(group) or not group[0].cycle.contains(_billed_for(line)):
        return False
    return _meet(map(_window, group), [segment.window for segment in line])


def _meet(windows: Iterable[Period], others: Sequence[Period]) -> bool:
    return any(a.start <= b.start < a.end or b.start <= a.start < b.end for a in windows for b in others)


def _billed_for(line: Sequence[Segment]) -> datetime:
    """The first instant of a line in advance, the last one of a line in arrears."""
    first, last = line[0].window, line[-1].window
    return first.start if line[0].due_at == first.start else _last(last)


def _last(window: Period) -> datetime:
    return max(window.start, window.end - _TICK)


def _covers(group: Sequence[Segment]) -> frozenset[str]:
    return group[0].covers if len(group) == 1 else frozenset().union(*(segment.covers for segment in group))


def _window(segment: Segment) -> Period:
    return segment.window


def spend_part(group: Sequence[Segment], spend_minor: int, currency: str) -> SpendPart:
    """What the rule owes of a spend, exact: negative for a discount.

    A spend is never below nothing: a discount may count here whose lines, of a plan that ended within the cycle, do not.
    """
    rule, spend = group[0].rule, to_decimal(max(spend_minor, 0), currency)
    if rule.kind is Kind.DISCOUNT:
        return _discount(tuple(group), spend, currency)
    return _commitment(tuple(group), spend, currency)


def _discount(group: tuple[Segment, ...], spend: Decimal, currency: str) -> SpendPart:
    rule = group[0].rule
    full = _full(rule, spend)
    fraction = _share(group) if isinstance(rule.model, Flat) else WHOLE
    wanted = full if fraction == WHOLE else to_decimal(round_half_up(Fraction(full) * fraction, currency), currency)
    taken = max(min(wanted, spend), _ZERO)
    formula = f"{_amount(taken, currency)} off {_amount(spend, currency)}"
    return SpendPart(group, spend, fraction, -taken, full, formula)


def _commitment(group: tuple[Segment, ...], spend: Decimal, currency: str) -> SpendPart:
    rule, fraction = group[0].rule, _share(group)
    full = _full(rule, _ZERO)
    target = to_decimal(round_half_up(Fraction(full) * fraction, currency), currency)
    short, over = max(target - spend, _ZERO), max(spend - target, _ZERO)
    committed, reached = _amount(target, currency), _amount(spend, currency)
    surcharge = over * (rule.overage_factor - 1)
    if over and rule.overage_factor != 1:
        formula = f"{reached} spent, {_amount(over, currency)} above the commitment of {committed}, times {plain(rule.overage_factor)}"
    else:
        formula = f"commitment of {committed} less {reached} spent"
    return SpendPart(group, spend, fraction, short + surcharge, full, formula)


def _full(rule: Rule, spend: Decimal) -> Decimal:
    amount = charge(rule.model, spend)
    if not isinstance(amount, Decimal):
        raise TypeError("discounts and commitments are flat amounts or percentages")
    return amount


def _share(group: Sequence[Segment]) -> Fraction:
    if group[0].rule.prorate is Proration.NONE:
        return WHOLE
    return sum((segment.fraction for segment in group), Fraction(0))


def _amount(amount: Decimal, currency: str) -> str:
    return format_decimal(round_half_up(amount, currency), currency)
