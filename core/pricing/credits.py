"""Prepaid credits: which lot pays for usage, and what is left of each. Amounts are in one unit, money or metered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from core.periods import Anchor, cycles

_ZERO = Decimal(0)
_FOREVER = datetime.max.replace(tzinfo=UTC)
_EVER = datetime.min.replace(tzinfo=UTC)
PRIORITY = 50
"""Priority of a lot that was given none; 0 is drawn first."""


@dataclass(frozen=True, slots=True)
class Lot:
    """Credits that were granted together, from `effective_at` up to `expires_at`; a granted lot goes before a purchased one.

    A recurring lot is filled up to `amount` again at each boundary of `recurrence`.
    """

    id: str
    amount: Decimal
    priority: int = PRIORITY
    purchased: bool = False
    effective_at: datetime = _EVER
    expires_at: datetime = _FOREVER
    created_at: datetime = _EVER
    recurrence: Anchor | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """What each lot paid, in the order of drawing, and what no lot could pay."""

    taken: dict[str, Decimal]
    overage: Decimal


@dataclass(frozen=True, slots=True)
class Balances:
    """What is left of each lot, and usage that no lot has paid yet."""

    left: dict[str, Decimal]
    overage: Decimal


def draw_order(lots: Iterable[Lot]) -> list[Lot]:
    """Lowest priority number first, then granted before purchased, soonest expiry, oldest; ties as listed."""
    return sorted(lots, key=lambda lot: (lot.priority, lot.purchased, lot.expires_at, lot.created_at))


def draw(lots: Iterable[Lot], left: Mapping[str, Decimal], amount: Decimal) -> Drawn:
    """Draw an amount from the balances `left`, lot by lot in order."""
    taken: dict[str, Decimal] = {}
    for lot in draw_order(lots):
        part = min(left.get(lot.id, _ZERO), amount)
        if part > _ZERO:
            taken[lot.id] = part
            amount -= part
    return Drawn(taken, amount)


def balances(
    lots: Sequence[Lot],
    usage: Sequence[tuple[datetime, Decimal]],
    opening: Mapping[str, Decimal],
    *,
    start: datetime,
    until: datetime,
) -> Balances:
    """Play the time from `start` through `until`: lots become effective, are filled up, pay for usage and expire.

    At one instant lots come before usage. Usage that nothing could pay is paid by what comes next. `opening` holds the balances of
    lots that were already in use.
    """
    left: dict[str, Decimal] = {}
    overage = _ZERO
    for at, lot, amount in _in_time(lots, usage, start, until):
        if lot is not None:
            left[lot.id] = opening.get(lot.id, amount) if lot.id not in left and at == start else amount
        else:
            overage += amount
        drawn = draw((lot for lot in lots if lot.effective_at <= at < lot.expires_at), left, overage)
        left |= {name: left[name] - part for name, part in drawn.taken.items()}
        overage = drawn.overage
    return Balances({lot.id: left.get(lot.id, _ZERO) if until < lot.expires_at else _ZERO for lot in lots}, overage)


def after_reset(before: Balances, rollover: Mapping[str, tuple[Decimal, Decimal]], *, keep_overage: bool, lots: Sequence[Lot]) -> Balances:
    """Begin a new period: each lot keeps its balance within its (least, most) rollover, nothing without one; then overage is paid."""
    left = dict.fromkeys(before.left, _ZERO)
    for lot_id, (least, most) in rollover.items():
        left[lot_id] = min(max(before.left[lot_id], least), most)
    drawn = draw(lots, left, before.overage if keep_overage else _ZERO)
    return Balances({lot_id: value - drawn.taken.get(lot_id, _ZERO) for lot_id, value in left.items()}, drawn.overage)


def _in_time(
    lots: Sequence[Lot], usage: Sequence[tuple[datetime, Decimal]], start: datetime, until: datetime
) -> list[tuple[datetime, Lot | None, Decimal]]:
    """(instant, lot that is filled or None, amount filled or used), in order; the lots of an instant before its usage."""
    filled = [(max(lot.effective_at, start), lot, lot.amount) for lot in lots if lot.effective_at <= until and lot.expires_at > start]
    for lot in lots:
        if lot.recurrence is not None:
            bounds = (cycle.end for cycle in cycles(lot.recurrence, max(lot.effective_at, start), min(lot.expires_at, until)))
            filled += [(bound, lot, lot.amount) for bound in bounds if bound <= until and bound < lot.expires_at]
    used = [(at, None, amount) for at, amount in usage if start <= at < until]
    return sorted([*filled, *used], key=lambda event: (event[0], event[1] is None))
