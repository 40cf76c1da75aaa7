"""What a subscription owes: its terms cut into segments, segments priced into owed amounts, owed minus billed is due.

A subscription is a timeline of terms. A trial is a term without rules, a pause is a gap. Renewal, plan change, seats, cancellation,
late usage and a repeated run are no cases of their own: each changes the terms or the usage, and the difference to what was billed is due.
Seats, add-ons, coupons and commitments are rules of the terms.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from core.pricing.owing import Owed, Part, owed, usage_price
from core.pricing.proration import Proration
from core.pricing.segments import current_cycle, next_due, open_segments, segments
from core.pricing.terms import ON_SPEND, Kind, LineKey, Measure, Rule, Segment, Term, Timing

__all__ = [
    "Kind", "LineItem", "LineKey", "LineKind", "Measure", "Owed", "Part", "Proration", "Rule", "Segment", "Term", "Timing",
    "current_cycle", "due", "next_due", "open_segments", "owed", "segments", "usage_price",
]  # fmt: skip

_ZERO = Decimal(0)


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


def due(
    owed: Mapping[LineKey, Owed],
    billed: Mapping[LineKey, int],
    *,
    no_credit: Collection[str] = (),
    since: datetime | None = None,
) -> list[LineItem]:
    """The lines of the next invoice: owed less billed, by key. Billing them and asking again gives none.

    A line billed for the first time is kept at 0, unless it is for no time at all; later only differences are. What was billed and is
    no longer owed is given back, unless its cycle began before `since` (closed). A rule in `no_credit` never gives back, nor does what is
    held in a term without `credit_unused`; usage that was not used after all is.
    """
    items = [_item(key, entry, billed.get(key)) for key, entry in owed.items()]
    items += [
        LineItem(key, LineKind.CREDIT, -minor, minor, None)
        for key, minor in sorted(billed.items())
        if key not in owed and (since is None or key.cycle_start >= since)
    ]
    return [item for item in items if _is_due(item, no_credit)]


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
    kept = item.owed is not None and item.owed.rule.kind is Kind.RECURRING and not item.owed.credit_unused
    return item.key.rule_id not in no_credit and not kept


def _keeps_discount(item: LineItem) -> bool:
    """Where unused time is not credited, the discount on it is not taken back either."""
    given_back = item.owed is not None and item.owed.rule.kind is Kind.DISCOUNT and item.minor > 0
    return given_back and item.owed is not None and not item.owed.credit_unused and item.kind is not LineKind.CHARGE
