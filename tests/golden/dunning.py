"""Dunning: the retry schedule of core/payments."""

from collections.abc import Mapping
from typing import Any

from core.payments.dunning import attempt_days, next_attempt
from tests.golden.compare import Unsupported
from tests.golden.reading import at, only


def answer(given: Mapping[str, Any]) -> dict[str, object]:
    """When a failed payment is tried again."""
    match given.get("op"):
        case "payment_failed":
            only(given, "op retry_intervals_days failed_attempts at")
            moment = next_attempt(given["failed_attempts"], at=at(given["at"]), hard=False, retry_days=given["retry_intervals_days"])
            return {"next_attempt_at": moment}
        case "schedule":
            only(given, "op retry_intervals_days")
            return {"attempt_days": attempt_days(given["retry_intervals_days"])}
        case op:
            raise Unsupported(f"no question {op}")
