"""How a row of sums takes up another one for the same key, in SQL: the counterpart of meters.add."""

from __future__ import annotations

from core.metering.models import Aggregation

WIDER = "first_at = least(r.first_at, excluded.first_at), last_at = greatest(r.last_at, excluded.last_at)"
NEWER = "(excluded.last_at, excluded.last_batch, excluded.last_position) > (r.last_at, r.last_batch, r.last_position)"
LATER = ", ".join(f"{name} = CASE WHEN {NEWER} THEN excluded.{name} ELSE r.{name} END" for name in ("last_batch", "last_position"))
SUM = "r.quantity + excluded.quantity"
QUANTITY = {
    Aggregation.COUNT: SUM,
    Aggregation.SUM: SUM,
    Aggregation.AVG: SUM,
    Aggregation.WEIGHTED_SUM: SUM,
    Aggregation.PERCENTILE: SUM,
    Aggregation.UNIQUE_COUNT: SUM,
    Aggregation.MAX: "greatest(r.quantity, excluded.quantity)",
    Aggregation.MIN: "least(r.quantity, excluded.quantity)",
    Aggregation.LATEST: f"CASE WHEN {NEWER} THEN excluded.quantity ELSE r.quantity END",
}
"""What becomes of `quantity` of the row `r`."""
