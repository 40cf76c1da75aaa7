"""Prices of what other prices come to: discounts take from the spend of a cycle, commitments add what is missing to it.

Both are rules like any other and owed by cycle, so that what is owed less what was billed settles them too: a discount follows its lines
down when they are credited, a true-up shrinks when late usage fills it, and a commitment paid in advance is drawn down as usage is billed.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from core.money import format_decimal, plain, round_half_up, to_decimal
from core.pricing.charge import charge
from core.pricing.proration import WHOLE, Proration
from core.pricing.rules import Flat
from core.pricing.terms import ON_SPEND, Kind, LineKey, Rule, Segment

_ZERO = Decimal(0)


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


def spent(group: Sequence[Segment], owed: Mapping[LineKey, int], settled: Mapping[LineKey, int]) -> int:
    """Minor units that the covered rules come to in the cycle: what they owe, and what was billed in cycles that are closed."""
    cycle = group[0].cycle
    covers = frozenset().union(*(segment.covers for segment in group))
    lines = {**settled, **owed}
    return sum(minor for key, minor in lines.items() if key.rule_id in covers and cycle.contains(key.cycle_start))


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
