"""Segments priced into owed amounts: by rule and cycle, rounded once, with how each came about."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
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
from core.pricing.spend import Settled, SpendPart, in_turn, spend_part, spent
from core.pricing.terms import ON_SPEND, Kind, LineKey, Rule, Segment
from core.pricing.usage import Usage, merged, total

_ZERO = Decimal(0)
_NOTHING_SETTLED: Mapping[LineKey, Settled] = MappingProxyType({})


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
            **({"share": str(_part_of_cycle(self.segments))} if _is_bounded(self.segments) else {}),
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


def owed(
    segments: Sequence[Segment],
    usage: Mapping[tuple[str, datetime, datetime], Usage],
    currency: str,
    settled: Mapping[LineKey, Settled] = _NOTHING_SETTLED,
) -> dict[LineKey, Owed]:
    """Price the segments, by key. `usage` maps (metric id, window start, window end) to a quantity, or (rule id, start, end) to what a
    model of several quantities reads; a window it lacks had none.

    Usage windows of one key are added up before they are priced, so that tiers see the whole cycle; of a level each is priced for its
    share of the cycle. A negative quantity is billed as 0.
    `settled` is what was billed in closed cycles: it counts towards a commitment that is longer than they are.
    """
    by_key: dict[LineKey, list[Segment]] = {}
    for segment in segments:
        by_key.setdefault(segment.key, []).append(segment)
    with localcontext(EXACT):
        found = {key: _owed(key, group, usage, currency) for key, group in by_key.items() if group[0].rule.kind not in ON_SPEND}
        if len(found) < len(by_key):
            _add_spend(found, by_key, settled, currency)
        return found


def usage_price(group: Sequence[Segment], used: Mapping[Period, Usage]) -> Decimal | Fraction:
    """What the windows of one line cost, by what was `used` in each, exact and in major units: units included in the price are free."""
    return _amount(_usage_parts(group, used))


def _owed(key: LineKey, group: list[Segment], usage: Mapping[tuple[str, datetime, datetime], Usage], currency: str) -> Owed:
    rule = group[0].rule
    if rule.kind is Kind.USAGE:
        spans = {s.window: (rule.reads, s.window.start, s.window.end) for s in group}
        parts = _usage_parts(group, {window: usage[span] for window, span in spans.items() if span in usage})
        quantity = parts[-1].quantity + parts[-1].included
    else:
        if rule.prorate is Proration.NONE:
            group = group[:1]  # one whole price a cycle, also when a pause cuts it
        quantity = group[-1].quantity
        parts = tuple(Part((s,), s.quantity, s.fraction, _shared(charge(rule.model, s.quantity), s.fraction)) for s in group)
    amount = _amount(parts)
    return Owed(key, rule, group[0].cycle, currency, round_half_up(amount, currency), amount, quantity, parts)


def _usage_parts(group: Sequence[Segment], used: Mapping[Period, Usage]) -> tuple[Part, ...]:
    """What adds up is one part. Of a level each window is, for its share; where any part owes the whole, the dearest alone."""
    rule, none = group[0].rule, nothing(group[0].rule.model)
    if not rule.is_level:
        measured = merged((used[segment.window] for segment in group if segment.window in used), none)
        windows = group[:1] if rule.prorate is Proration.NONE else group
        allowance = sum((segment.allowance for segment in windows), Fraction(0))
        return (_part(group, measured, allowance, WHOLE),)
    parts = tuple(_part((s,), used.get(s.window, none), s.allowance / (s.fraction or 1), s.fraction) for s in group)
    return (max(parts, key=lambda part: part.amount),) if rule.owes_whole else parts


def _part(group: Sequence[Segment], measured: Usage, allowance: Fraction, fraction: Fraction) -> Part:
    billable, included = _billable(measured, allowance)
    return Part(tuple(group), billable, fraction, _shared(charge(_model(group), billable), fraction), included)


def _billable(measured: Usage, allowance: Fraction) -> tuple[Usage, Decimal]:
    """(usage to be priced, units of the measured ones that are included)."""
    if not isinstance(measured, Decimal):
        return measured, _ZERO
    quantity = max(measured, _ZERO)
    included = min(quantity, _decimal(allowance)) if allowance else _ZERO
    return quantity - included, included


def _model(group: Sequence[Segment]) -> Model:
    """The price of the windows of one line: minimum, maximum and the like for the share of the cycle they are."""
    model = group[0].rule.model
    return model.part(_part_of_cycle(group)) if isinstance(model, Modified) and _is_bounded(group) else model


def _is_bounded(group: Sequence[Segment]) -> bool:
    """Whether the price is of usage that adds up, and knows bounds that belong to a whole cycle."""
    rule = group[0].rule
    return rule.kind is Kind.USAGE and isinstance(rule.model, Modified) and not rule.is_level


def _part_of_cycle(group: Sequence[Segment]) -> Fraction:
    """The share of the cycle that the windows of a usage line cover; any part is the whole where nothing is prorated."""
    return group[0].fraction if group[0].rule.prorate is Proration.NONE else sum((segment.fraction for segment in group), Fraction(0))


def _add_spend(
    found: dict[LineKey, Owed], by_key: Mapping[LineKey, list[Segment]], settled: Mapping[LineKey, Settled], currency: str
) -> None:
    """Add what looks at other lines: discounts in order, each on what the ones before it left, then commitments."""
    minor = {key: entry.minor for key, entry in found.items()}
    for kind in ON_SPEND:
        for key, group in in_turn(by_key, kind):
            part = spend_part(group, spent(group, by_key, minor, settled), currency)
            minor[key] = round_half_up(part.amount, currency)
            found[key] = Owed(key, group[0].rule, group[0].cycle, currency, minor[key], part.amount, Decimal(1), (part,))


def _amount(parts: Sequence[Part]) -> Decimal | Fraction:
    return parts[0].amount if len(parts) == 1 else sum((Fraction(part.amount) for part in parts), Fraction(0))


def _shared(amount: Decimal | Fraction, part: Fraction) -> Decimal | Fraction:
    return amount if part is WHOLE else Fraction(amount) * part


def _span(period: Period) -> list[str]:
    return [period.start.isoformat(), period.end.isoformat()]


def _decimal(amount: Decimal | Fraction) -> Decimal:
    if isinstance(amount, Decimal):
        return amount
    return Decimal(round_ratio(amount.numerator * 10**12, amount.denominator)).scaleb(-12, EXACT).normalize(EXACT)
