"""The values a timeline is made of: rules and terms go in, segments come out."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from core.periods import Anchor, Period
from core.pricing.proration import Proration
from core.pricing.rules import PriceModel


class Timing(StrEnum):
    """When a recurring price is due: as its cycle begins, or when it has ended. Usage is always due at the end."""

    IN_ADVANCE = "in_advance"
    IN_ARREARS = "in_arrears"


class Kind(StrEnum):
    """RECURRING: price(term quantity) times the share of the cycle. USAGE: price(usage of the cycle)."""

    RECURRING = "recurring"
    USAGE = "usage"


@dataclass(frozen=True, slots=True)
class Rule:
    """One price of a plan version; a usage rule names the metric it reads."""

    id: str
    code: str
    kind: Kind
    timing: Timing
    model: PriceModel
    metric_id: str | None = None
    prorate: Proration = Proration.SECONDS


@dataclass(frozen=True, slots=True)
class Term:
    """What held from `start` up to `end` (None: until further notice): the rules, the quantity, the cycles they are billed in.

    With `credit_unused` false, what was billed for a cycle is kept when the term ends inside it.
    """

    id: str
    start: datetime
    end: datetime | None
    rules: tuple[Rule, ...]
    quantity: Decimal
    anchor: Anchor
    credit_unused: bool = True


class LineKey(NamedTuple):
    """What is billed is kept by rule and cycle: parts of one cycle under one rule add up."""

    rule_id: str
    cycle_start: datetime


class Segment(NamedTuple):
    """The part `window` of one `cycle` that one rule covers under one term; `fraction` is what it owes of the cycle's price."""

    key: LineKey
    rule: Rule
    term_id: str
    cycle: Period
    window: Period
    fraction: Fraction
    quantity: Decimal
    credit_unused: bool = True

    @property
    def due_at(self) -> datetime:
        """The instant from which the segment is owed."""
        in_advance = self.rule.kind is Kind.RECURRING and self.rule.timing is Timing.IN_ADVANCE
        return self.window.start if in_advance else self.window.end
