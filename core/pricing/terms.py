"""The values a timeline is made of: rules and terms go in, segments come out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from core.periods import Anchor, Interval, Period
from core.pricing.models import Model, prices_a_level, reads_one
from core.pricing.modifiers import Modified
from core.pricing.proration import WHOLE, Proration, share

_NOTHING = Decimal(0)


class Timing(StrEnum):
    """When a price is due: as its cycle begins, or when it has ended. Usage is always due at the end."""

    IN_ADVANCE = "in_advance"
    IN_ARREARS = "in_arrears"


class Kind(StrEnum):
    """What a price is asked with.

    RECURRING: the quantity held, times the share of the cycle. USAGE: the usage of the cycle. DISCOUNT and COMMITMENT: what the other
    prices come to in the cycle; one takes from it, the other adds what is missing (core.pricing.spend).
    """

    RECURRING = "recurring"
    USAGE = "usage"
    DISCOUNT = "discount"
    COMMITMENT = "commitment"


class Measure(StrEnum):
    """How the usage of the parts of a cycle makes that of the cycle.

    FLOW: what happened, such as calls; it adds up. DISTINCT: different values, each counted once, in the part that saw it first.
    LEVEL: what stood, such as seats or stored bytes; it does not add up: a part owes its share of what the cycle's price makes of it.
    """

    FLOW = "flow"
    DISTINCT = "distinct"
    LEVEL = "level"


ON_SPEND = (Kind.DISCOUNT, Kind.COMMITMENT)
"""Kinds that look at other lines."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One price of a plan version or of an add-on; a usage rule names the metric it reads.

    `measure` says what the metric measures. `licensed` names the quantity of the term it is priced by (None: the term's own quantity);
    `quantity`, of an add-on, stands for it. `cycle` is its own billing interval (None: the term's). `included` units of usage a cycle
    cost nothing, for a usage rule with `licensed` as many for each unit held; of a part of a cycle, the same share. `covers` are the
    codes a rule on spend looks at (None: all), `overage_factor` is what spend above a commitment is multiplied by. With `during` it
    holds for that part of its term alone.
    """

    id: str
    code: str
    kind: Kind
    timing: Timing
    model: Model
    metric_id: str | None = None
    prorate: Proration = Proration.SECONDS
    licensed: str | None = None
    quantity: Decimal | None = None
    cycle: tuple[Interval, int] | None = None
    included: Decimal = _NOTHING
    covers: frozenset[str] | None = None
    overage_factor: Decimal = Decimal(1)
    during: Period | None = None
    measure: Measure = Measure.FLOW

    @property
    def reads(self) -> str:
        """What its usage is kept under: the metric, whose quantity many rules share, or the rule, where it reads more than that."""
        shared = reads_one(self.model) and self.measure is Measure.FLOW
        return (self.metric_id or "") if shared else self.id

    @property
    def is_level(self) -> bool:
        """Whether it prices what stood: its parts are priced apart, each for its share of the cycle."""
        return self.kind is Kind.USAGE and self.measure is Measure.LEVEL and prices_a_level(self.model)

    @property
    def owes_whole(self) -> bool:
        """Whether any part of a cycle owes the whole price of a level."""
        return self.prorate is Proration.NONE or (isinstance(self.model, Modified) and not self.model.prorate)

    def share(self, window: Period, cycle: Period, timezone: str) -> Fraction:
        """What the window owes of the cycle's price; of usage that adds up, what it has of everything that belongs to a whole cycle."""
        return WHOLE if self.is_level and self.owes_whole else share(window, cycle, self.prorate, timezone)

    @property
    def is_whole(self) -> bool:
        """Whether a change inside the cycle leaves it in one piece: usage, what looks at other lines, what is never prorated."""
        return self.kind is not Kind.RECURRING or self.prorate is Proration.NONE


@dataclass(frozen=True, slots=True)
class Term:
    """What held from `start` up to `end` (None: until further notice): the rules, the quantities, the cycles they are billed in.

    `quantities` are those with names of their own, such as instances beside seats; one that is not named is 0.
    With `credit_unused` false, what was billed for a cycle is kept when the term ends inside it. A trial has no rules and is one period;
    a free plan has none either, but cycles.
    """

    id: str
    start: datetime
    end: datetime | None
    rules: tuple[Rule, ...]
    quantity: Decimal
    anchor: Anchor
    credit_unused: bool = True
    quantities: Mapping[str, Decimal] = field(default_factory=dict, hash=False)
    is_trial: bool = False

    def held(self, rule: Rule) -> Decimal:
        """The quantity the rule is priced by."""
        if rule.quantity is not None:
            return rule.quantity
        return self.quantity if rule.licensed is None else self.quantities.get(rule.licensed, _NOTHING)

    def anchor_of(self, rule: Rule) -> Anchor:
        """The cycles of the rule: the term's, or cycles of its own that begin with the term's."""
        return self.anchor if rule.cycle is None else replace(self.anchor, interval=rule.cycle[0], count=rule.cycle[1])


class LineKey(NamedTuple):
    """What is billed is kept by rule and cycle: parts of one cycle under one rule add up."""

    rule_id: str
    cycle_start: datetime


class Segment(NamedTuple):
    """The part `window` of one `cycle` that one rule covers under one term; `fraction` is what it owes of the cycle's price.

    `allowance` are the included units of a usage window, `covers` the ids of the rules that a rule on spend looks at. What does not add up
    was measured in the cycle from `measured_from` on, where that is before the window.
    """

    key: LineKey
    rule: Rule
    term_id: str
    cycle: Period
    window: Period
    fraction: Fraction
    quantity: Decimal
    credit_unused: bool = True
    allowance: Fraction = Fraction(0)
    covers: frozenset[str] = frozenset()
    measured_from: datetime | None = None

    @property
    def due_at(self) -> datetime:
        """The instant from which the segment is owed."""
        in_advance = self.rule.kind is not Kind.USAGE and self.rule.timing is Timing.IN_ADVANCE
        return self.window.start if in_advance else self.window.end
