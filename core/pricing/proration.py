"""The share of a billing cycle that a part of it owes: one function, and the named ways to measure a span of time."""

from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction

from core.periods import Period, local_date


class Proration(StrEnum):
    """How a part of a cycle is measured.

    SECONDS: elapsed time. DAYS: local calendar days; a day belongs to what holds at its end. FIXED_30, FIXED_28: days of months that
    all have that length. ACTUAL_DAYS_INCLUSIVE: local days, the last one whole; a day on which one term ends and another begins is
    owed by both. NONE: any part owes the whole.
    """

    SECONDS = "seconds"
    DAYS = "days"
    FIXED_30 = "fixed_30"
    FIXED_28 = "fixed_28"
    ACTUAL_DAYS_INCLUSIVE = "actual_days_inclusive"
    NONE = "none"


WHOLE = Fraction(1)
_MICROSECOND = timedelta(microseconds=1)


def share(window: Period, cycle: Period, policy: Proration, timezone: str) -> Fraction:
    """`window` over `cycle`, exact. The cycle is the full nominal one, also when the subscription covers only a part of it.

    Shares of windows that tile a cycle add up to 1, save under ACTUAL_DAYS_INCLUSIVE and NONE.
    """
    if window == cycle or policy is Proration.NONE:
        return WHOLE
    return Fraction(length(window, policy, timezone), length(cycle, policy, timezone))


def length(period: Period, policy: Proration, timezone: str) -> int:
    """Length of a period in the unit of the policy: microseconds or days."""
    match policy:
        case Proration.SECONDS:
            return period.microseconds
        case Proration.DAYS:
            return period.days(timezone)
        case Proration.ACTUAL_DAYS_INCLUSIVE:
            return (local_date(period.end - _MICROSECOND, timezone) - local_date(period.start, timezone)).days + 1
        case Proration.FIXED_30:
            return _day_number(period.end, 30, timezone) - _day_number(period.start, 30, timezone)
        case Proration.FIXED_28:
            return _day_number(period.end, 28, timezone) - _day_number(period.start, 28, timezone)
        case Proration.NONE:
            return 1


def _day_number(at: datetime, days_in_month: int, timezone: str) -> int:
    """Running number of the local day in a calendar whose months all have `days_in_month` days; later days count as the last."""
    day = local_date(at, timezone)
    return (day.year * 12 + day.month) * days_in_month + min(day.day, days_in_month)
