"""What a subscription owes: its terms cut into segments, segments priced into owed amounts, owed minus billed is due.

A subscription is a timeline of terms. A trial is a term without rules, a pause is a gap. Renewal, plan change, seats, cancellation,
late usage and a repeated run are no cases of their own: each changes the terms or the usage, and the difference to what was billed is due.
Seats, add-ons, coupons and commitments are rules of the terms.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple

from core.money import EXACT, format_decimal, plain, round_half_up, round_ratio
from core.periods import Period
from core.pricing.charge import Charged, charge, explain_charge, nothing
from core.pricing.models import Model, to_json
from core.pricing.modifiers import Modified
from core.pricing.price import Explanation
from core.pricing.proration import WHOLE, Proration
from core.pricing.segments import current_cycle, next_due, open_segments, segments
from core.pricing.spend import SpendPart, spend_part, spent
from core.pricing.terms import ON_SPEND, Kind, LineKey, Rule, Segment, Term, Timing
from core.pricing.usage import Usage, merged, total

__all__ = [
    "Kind", "LineItem", "LineKey", "LineKind", "Owed", "Part", "Proration", "Rule", "Segment", "Term", "Timing",
    "current_cycle", "due", "next_due", "open_segments", "owed", "segments", "usage_price",
]  # fmt: skip

_ZERO = Decimal(0)
_NOTHING_SETTLED: Mapping[LineKey, int] = MappingProxyType({})


class Part(NamedTuple):
    """A priced piece of a line: `amount` is `charge(model, usage)` times `fraction`, exact.

    `usage` is the quantity, or what a model of several quantities reads. `included` of what was measured cost nothing and is not in it.
    """

    segments: tuple[Segment, ...]
    usage: Usage
    fraction: Fraction
    amount: Decimal | Fraction
    included: Decimal = _ZERO

    @property
    def quantity(self) -> Decimal:
        """The quantity that the line shows."""
        return total(self.usage)

    def explain(self) -> Charged | Explanation:
        """How the price came about, before the fraction is taken."""
        with localcontext(EXACT):
            return explain_charge(_model(self.segments), self.usage)

    def detail(self) -> dict[str, object]:
        """The part as JSON values: `price` is the model's amount, `amount` the fraction of it that is owed."""
        explanation = self.explain()
        return {
            "windows": [_span(segment.window) for segment in self.segments],
            "quantity": plain(self.quantity),
            **({"included": plain(self.included)} if self.included else {}),
            **({"share": str(_part_of_cycle(self.segments))} if _is_held(self.segments) else {}),
            "formula": explanation.formula,
            "steps": [step.detail() for step in explanation.steps],
            "price": plain(_decimal(explanation.amount)),
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
    parts: tuple[Part | SpendPart, ...]

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
            "kind": self.rule.kind.value,
            "model": to_json(self.rule.model),
            "cycle": _span(self.cycle),
            "parts": [part.detail() for part in self.parts],
            "exact": plain(self.exact),
            "rounded": format_decimal(self.minor, self.currency),
        }


class LineKind(StrEnum):
    """CHARGE: billed for the first time (a discount: given). ADJUSTMENT: more than was billed. CREDIT: less than was billed."""

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


def owed(
    segments: Sequence[Segment],
    usage: Mapping[tuple[str, datetime, datetime], Usage],
    currency: str,
    settled: Mapping[LineKey, int] = _NOTHING_SETTLED,
) -> dict[LineKey, Owed]:
    """Price the segments, by key. `usage` maps (metric id, window start, window end) to a quantity, or (rule id, start, end) to what a
    model of several quantities reads; a window it lacks had none.

    Usage windows of one key are added up before they are priced, so that tiers see the whole cycle. A negative total is billed as 0.
    `settled` is what was billed in closed cycles, minor units: it counts towards a commitment that is longer than they are.
    """
    by_key: dict[LineKey, list[Segment]] = {}
    for segment in segments:
        by_key.setdefault(segment.key, []).append(segment)
    with localcontext(EXACT):
        found = {key: _owed(key, group, usage, currency) for key, group in by_key.items() if group[0].rule.kind not in ON_SPEND}
        if len(found) < len(by_key):
            _add_spend(found, by_key, settled, currency)
        return found


def usage_price(group: Sequence[Segment], measured: Usage) -> Decimal | Fraction:
    """What was `measured` in the windows of one line costs, exact and in major units: units included in the price are free."""
    return charge(_model(group), _billable(group, measured)[0])


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


def _owed(key: LineKey, group: list[Segment], usage: Mapping[tuple[str, datetime, datetime], Usage], currency: str) -> Owed:
    rule = group[0].rule
    if rule.kind is Kind.USAGE:
        found = (usage.get((rule.reads, s.window.start, s.window.end)) for s in group)
        billable, included = _billable(group, merged((used for used in found if used is not None), nothing(rule.model)))
        parts: tuple[Part, ...] = (Part(tuple(group), billable, WHOLE, charge(_model(group), billable), included),)
        quantity = parts[0].quantity + included
    else:
        if rule.prorate is Proration.NONE:
            group = group[:1]  # one whole price a cycle, also when a pause cuts it
        quantity = group[-1].quantity
        parts = tuple(Part((s,), s.quantity, s.fraction, _shared(charge(rule.model, s.quantity), s.fraction)) for s in group)
    amount = parts[0].amount
    if len(parts) > 1:
        amount = sum((Fraction(part.amount) for part in parts), Fraction(0))
    return Owed(key, rule, group[0].cycle, currency, round_half_up(amount, currency), amount, quantity, parts)


def _model(group: Sequence[Segment]) -> Model:
    """The price of the windows of one line: minimum, maximum and the like for the share of the cycle they are."""
    model = group[0].rule.model
    return model.part(_part_of_cycle(group)) if isinstance(model, Modified) and _is_held(group) else model


def _is_held(group: Sequence[Segment]) -> bool:
    """Whether the price is of usage and knows bounds that belong to a whole cycle."""
    return group[0].rule.kind is Kind.USAGE and isinstance(group[0].rule.model, Modified)


def _part_of_cycle(group: Sequence[Segment]) -> Fraction:
    """The share of the cycle that the windows of a usage line cover; any part is the whole where nothing is prorated."""
    return group[0].fraction if group[0].rule.prorate is Proration.NONE else sum((segment.fraction for segment in group), Fraction(0))


def _billable(group: Sequence[Segment], measured: Usage) -> tuple[Usage, Decimal]:
    """(usage to be priced, units of the measured ones that are included)."""
    if not isinstance(measured, Decimal):
        return measured, _ZERO
    quantity, rule = max(measured, _ZERO), group[0].rule
    if not rule.included:
        return quantity, _ZERO
    windows = group[:1] if rule.prorate is Proration.NONE else group
    allowance = _decimal(sum((segment.allowance for segment in windows), Fraction(0)))
    included = min(quantity, allowance)
    return quantity - included, included


def _add_spend(found: dict[LineKey, Owed], by_key: Mapping[LineKey, list[Segment]], settled: Mapping[LineKey, int], currency: str) -> None:
    """Add what looks at other lines: discounts in order, each on what the ones before it left, then commitments."""
    minor = {key: entry.minor for key, entry in found.items()}
    for kind in ON_SPEND:
        for key, group in by_key.items():
            rule = group[0].rule
            if rule.kind is kind:
                part = spend_part(group, spent(group, minor, settled), currency)
                minor[key] = round_half_up(part.amount, currency)
                found[key] = Owed(key, rule, group[0].cycle, currency, minor[key], part.amount, Decimal(1), (part,))


def _shared(amount: Decimal | Fraction, part: Fraction) -> Decimal | Fraction:
    return amount if part is WHOLE else Fraction(amount) * part


def _item(key: LineKey, entry: Owed, billed: int | None) -> LineItem:
    if billed is None:
        return LineItem(key, LineKind.CHARGE, entry.minor, 0, entry)
    minor = entry.minor - billed
    return LineItem(key, LineKind.CREDIT if minor < 0 else LineKind.ADJUSTMENT, minor, billed, entry)


def _is_due(item: LineItem, no_credit: Collection[str]) -> bool:
    if item.owed is not None and item.owed.rule.kind in ON_SPEND:
        return item.minor != 0 and not _keeps_discount(item)
    if item.kind is LineKind.CHARGE:
        return item.minor != 0 or item.owed is None or any(part.fraction for part in item.owed.parts)
    if item.minor >= 0:
        return item.minor > 0
    return item.key.rule_id not in no_credit and (item.owed is None or item.owed.credit_unused)


def _keeps_discount(item: LineItem) -> bool:
    """Where unused time is not credited, the discount on it is not taken back either."""
    given_back = item.owed is not None and item.owed.rule.kind is Kind.DISCOUNT and item.minor > 0
    return given_back and item.owed is not None and not item.owed.credit_unused and item.kind is not LineKind.CHARGE


def _span(period: Period) -> list[str]:
    return [period.start.isoformat(), period.end.isoformat()]


def _decimal(amount: Decimal | Fraction) -> Decimal:
    if isinstance(amount, Decimal):
        return amount
    return Decimal(round_ratio(amount.numerator * 10**12, amount.denominator)).scaleb(-12, EXACT).normalize(EXACT)
