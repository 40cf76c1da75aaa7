"""The values behind unique counts and percentiles, read for many spans at once. Exact: sets and multisets, never a sketch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from core.metering.hours import ASKED, SUBJECT, Span, States, rows
from core.metering.meters import Seen, Usage, add
from core.metering.models import Aggregation

IN_HOURS = f"{SUBJECT} AND hour >= since AND hour < until"
VALUES = f"""SELECT DISTINCT ON (i, group_key, value_hash) i, CASE WHEN grouped THEN v.group_key ELSE '' END AS group_key, v.value_hash,
    v.first_at, v.last_at, v.last_batch, v.last_position, v.removed
  FROM {ASKED} CROSS JOIN LATERAL (SELECT * FROM usage_unique_values WHERE {IN_HOURS} OFFSET 0) AS v
  ORDER BY i, group_key, value_hash, v.last_at DESC, v.last_batch DESC, v.last_position DESC"""  # noqa: S608 - constants only
PRESENT = f"SELECT i, count(*) FILTER (WHERE NOT removed) AS quantity FROM ({VALUES}) AS latest GROUP BY i"  # noqa: S608
COUNTS = f"""SELECT i, CASE WHEN grouped THEN v.group_key ELSE '' END AS group_key, v.value, sum(v.events) AS events
  FROM {ASKED} CROSS JOIN LATERAL (SELECT * FROM usage_value_counts WHERE {IN_HOURS} OFFSET 0) AS v GROUP BY 1, 2, 3"""  # noqa: S608
RANKED = f"""SELECT i, min(value) FILTER (WHERE running * 100 >= share * total) AS quantity FROM (
    SELECT i, value, sum(events) OVER (PARTITION BY i ORDER BY value) AS running, sum(events) OVER (PARTITION BY i) AS total,
      (CAST(:shares AS numeric[]))[i + 1] AS share FROM ({COUNTS}) AS counted) AS ranked GROUP BY i"""  # noqa: S608


def add_values(session: Session, found: States, spans: Sequence[Span], covered: Sequence[Span], cut: Collection[int]) -> None:
    """Complete the states of unique counts: the answer where nobody needs the values, else the values.

    `covered` are hours of `spans`; the places in `cut` have values of cut edges already.
    """
    wanted = [span for span in covered if span.meter.aggregation == Aggregation.UNIQUE_COUNT]
    if not wanted:
        return
    apart = _apart(wanted, cut)
    for row in rows(session, PRESENT, [span for span in wanted if span.i not in apart]):
        for usage in found[row.i].values():
            usage.quantity = Decimal(row.quantity)
    by_place = {span.i: span for span in spans}
    for row in rows(session, VALUES, [span for span in wanted if span.i in apart]):
        usage = found[row.i][row.group_key]
        _join(by_place[row.i], usage, row)


def add_counts(session: Session, found: States, covered: Sequence[Span], cut: Collection[int], shares: dict[int, Decimal]) -> None:
    """The same for percentiles; `shares` says which percentile each place asks for."""
    wanted = [span for span in covered if span.meter.aggregation == Aggregation.PERCENTILE]
    if not wanted:
        return
    apart = _apart(wanted, cut)
    alone = [span for span in wanted if span.i not in apart]
    asked = [shares.get(i) for i in range(max((span.i for span in alone), default=0) + 1)]
    for row in rows(session, RANKED, alone, shares=asked):
        for usage in found[row.i].values():
            usage.quantity = row.quantity
    for row in rows(session, COUNTS, [span for span in wanted if span.i in apart]):
        counts = found[row.i][row.group_key].counts
        counts[row.value] = counts.get(row.value, 0) + int(row.events)


def nearest_rank(counts: dict[Decimal, int], percentile: Decimal) -> Decimal:
    """The smallest value that at least `percentile` % of the events do not exceed."""
    needed, running = percentile * sum(counts.values()) / 100, 0
    for value in sorted(counts):
        running += counts[value]
        if running >= needed:
            return value
    return Decimal(0)


def _apart(wanted: Sequence[Span], cut: Collection[int]) -> set[int]:
    """Places whose values must be had: in groups, beside those of a cut edge, or in several stretches."""
    seen: set[int] = set()
    apart = set(cut)
    for span in wanted:
        if span.by_group or span.i in seen:
            apart.add(span.i)
        seen.add(span.i)
    return apart


def _join(span: Span, usage: Usage, row: Row[Any]) -> None:
    seen = Seen(row.first_at, row.last_at, (row.last_batch, row.last_position), row.removed)
    values = {bytes(row.value_hash): seen}
    add(span.meter.aggregation, usage, Usage(0, usage.quantity, row.first_at, row.last_at, (0, 0), values))
