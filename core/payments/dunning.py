"""When a failed payment is tried again, and when not any more. Pure.

The default waits 2, 5, 7 and 7 days: five tries in three weeks. Card networks allow far more (about 15 in 30 days), and fine those who
go on after a refusal that is final; a hard decline is therefore never repeated on the same payment method.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import accumulate

RETRY_DAYS = (2, 5, 7, 7)
"""Days to wait after the first, second, … failure."""
TRIES_MAX = 15
"""Tries of one invoice within WINDOW, whatever the schedule and however often the customer changes the card."""
WINDOW = timedelta(days=30)


def next_attempt(failures: int, *, at: datetime, hard: bool, retry_days: Sequence[int] = RETRY_DAYS) -> datetime | None:
    """When to try again after failure number `failures` at `at`; None: stop, because the refusal is final or the schedule is used up."""
    if hard or not 1 <= failures <= len(retry_days):
        return None
    return at + timedelta(days=retry_days[failures - 1])


def attempt_days(retry_days: Sequence[int] = RETRY_DAYS) -> list[int]:
    """Days after the first failure on which it is tried again."""
    return list(accumulate(retry_days))


def exhausted(tries_in_window: int) -> bool:
    """Whether the networks' patience is used up."""
    return tries_in_window >= TRIES_MAX
