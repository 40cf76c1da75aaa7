"""What of a limit is used and reserved now, from the counters invoices are rated from.

For one customer's decision it is one statement, so one snapshot: a reservation that is being settled is seen either as reserved or as
used. Metrics whose quantity is no plain sum of hourly rollups, and windows that cut an hour, are measured as for an invoice.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from core.entitlements.bounds import Bound
from core.entitlements.facts import Facts
from core.metering.queries import usage_sums
from core.metering.windows import hour_floor

AHEAD = timedelta(days=1)
# An event acknowledged before a reservation expired may still wait to be counted: until that is done the reservation stands.
COUNTERS = text("""
SELECT i, coalesce((SELECT sum(r.quantity) FROM usage_rollups r WHERE r.organization_number = :number AND r.metric_number = metric
    AND r.hour >= since AND r.hour < until), 0) AS used,
  coalesce((SELECT sum(q.quantity) FROM usage_reservations q WHERE q.organization_id = :organization_id AND q.metric_id = asked.metric_id
    AND q.settled_at IS NULL AND q.expires_at > least(CAST(:at AS timestamptz), (SELECT min(received_at) FROM usage_pending))), 0) AS held
FROM unnest(CAST(:i AS int[]), CAST(:metric AS int[]), CAST(:metric_id AS uuid[]), CAST(:since AS timestamptz[]),
  CAST(:until AS timestamptz[])) AS asked(i, metric, metric_id, since, until)""")


class Counter(NamedTuple):
    """Quantities."""

    used: Decimal
    reserved: Decimal


def read(session: Session, facts: Facts, holding: Sequence[Bound], *, at: datetime) -> dict[str, Counter]:
    """The counters of one customer's bounds on metrics, by subject; `at` is real time, for the reservations."""
    metered = [(bound, bound.metric) for bound in holding if bound.metric is not None]
    values = {
        "number": facts.number,
        "organization_id": facts.organization_id,
        "at": at,
        "i": list(range(len(metered))),
        "metric": [metric.number for _, metric in metered],
        "metric_id": [metric.id for _, metric in metered],
        "since": [bound.window.start for bound, _ in metered],
        "until": [bound.window.end or facts.at + AHEAD for bound, _ in metered],
    }
    found = {metered[row.i][0].subject: Counter(row.used, row.held) for row in session.execute(COUNTERS, values)}
    measured = used(session, [bound for bound, metric in metered if not metric.simple or _cuts_hours(bound)], at=facts.at)
    return {
        subject: counter._replace(used=measured.get((facts.organization_id, subject), counter.used)) for subject, counter in found.items()
    }


def used(session: Session, holding: Collection[Bound], *, at: datetime) -> Mapping[tuple[uuid.UUID, str], Decimal]:
    """What is counted in the window of each bound on a metric, by customer and subject; usage dated ahead of `at` is counted too."""
    wanted = {
        (bound.organization_id, bound.subject): (bound.organization_id, bound.metric.id, bound.window.start, bound.window.end or at + AHEAD)
        for bound in holding
        if bound.metric is not None
    }
    sums = usage_sums(session, set(wanted.values())) if wanted else {}
    return {key: sums[asked] for key, asked in wanted.items()}


def _cuts_hours(bound: Bound) -> bool:
    """Whether the window begins or ends within an hour: local days of zones off by minutes, and limits in total."""
    end = bound.window.end
    return hour_floor(bound.window.start) != bound.window.start or (end is not None and hour_floor(end) != end)
