"""Discounts on an invoice: percentages and amounts, one after another, spread over the lines without losing a unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from enum import StrEnum

from core.money import EXACT, allocate, round_half_up, to_decimal

_PERCENT = Decimal("0.01")


class DiscountType(StrEnum):
    """What `Discount.value` means."""

    PERCENT = "percent"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class Discount:
    """`value` percent of what is left, or `value` major units of it."""

    type: DiscountType
    value: Decimal

    def minor(self, left: int, currency: str) -> int:
        """The discount on `left` minor units, rounded once; never more than is left."""
        with localcontext(EXACT):
            amount = to_decimal(left, currency) * self.value * _PERCENT if self.type is DiscountType.PERCENT else self.value
            return min(round_half_up(amount, currency), max(left, 0))


def discounted(lines: Sequence[int], discounts: Sequence[Discount], currency: str) -> list[int]:
    """What each line, in minor units, gives up to the discounts together.

    Discounts stack in order: each is taken once, from the sum of what the ones before it left, and spread over the lines by what is
    left of them (largest remainder). The lines' parts add up to the discount, and no line falls below 0.
    """
    left = list(lines)
    for discount in discounts:
        total = sum(left)
        if total <= 0:
            break
        parts = allocate(discount.minor(total, currency), left)
        left = [amount - part for amount, part in zip(left, parts, strict=True)]
    return [before - after for before, after in zip(lines, left, strict=True)]
