"""The share of a billing cycle that a part of it owes."""

from enum import StrEnum
from fractions import Fraction

from core.periods import Period


class Proration(StrEnum):
    """How a part of a cycle is measured."""

    SECONDS = "seconds"
    DAYS = "days"
    NONE = "none"


WHOLE = Fraction(1)


def share(window: Period, cycle: Period, policy: Proration, timezone: str) -> Fraction:
    """`window` over `cycle`, exact, from 0 to 1. Shares of windows that tile a cycle add up to 1, save under NONE.

    SECONDS measures elapsed time, DAYS local calendar days where a day belongs to what holds at its end: two changes in one
    day leave the middle one without a share. NONE owes the whole cycle for any part of it.
    The denominator is always the full nominal cycle, also when the subscription covers a part of it.
    """
    if window == cycle:
        return WHOLE
    match policy:
        case Proration.SECONDS:
            return Fraction(window.microseconds, cycle.microseconds)
        case Proration.DAYS:
            return Fraction(window.days(timezone), cycle.days(timezone))
        case Proration.NONE:
            return WHOLE
