"""What of a limit is used and reserved now, from the counters invoices are rated from.

For one customer's decision it is one statement, so one snapshot: a reservation that is being settled is seen either as reserved or as
used. Metrics whose hourly rollups do not simply add up, and windows that cut an hour, are measured as for an invoice.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from core.entitlements.bounds import Bound
from core.entitlements.facts import Facts, Measured
from core.metering.models import Aggregation
from core.metering.queries import usage_sums
from core.metering.windows import hour_floor
from core.reader import Reads, session_of

AHEAD = timedelta(days=1)
DAY = timedelta(days=1)
HOURS = """SELECT {function}(quantity) AS quantity FROM usage_rollups
  WHERE organization_number = :number AND metric_number = :metric_0 AND hour >= {since} AND hour < {until}"""
WINDOW = HOURS.format(function="{function}", since=":since_0", until=":until_0")
# Of a longer window, the whole UTC days that are added up already, and the hours around them.
BEFORE = HOURS.format(function="{function}", since=":since_0", until=":day_0")
AFTER = HOURS.format(function="{function}", since="through", until=":until_0")
LONG_WINDOW = f"""SELECT {{function}}(quantity) FROM (SELECT greatest(CAST(:day_0 AS timestamptz), least(
    date_bin('1 day', CAST(:until_0 AS timestamptz), TIMESTAMPTZ '2000-01-01 00:00Z'), (SELECT daily_through FROM usage_state))) AS through)
  AS added_up CROSS JOIN LATERAL ({BEFORE} UNION ALL SELECT {{function}}(quantity) FROM usage_daily
    WHERE organization_number = :number AND metric_number = :metric_0 AND day >= :day_0 AND day < through
  UNION ALL {AFTER}) AS parts"""  # noqa: S608 - constants only
FUNCTIONS = {Aggregation.MAX: "max", Aggregation.MIN: "min"}
# An event acknowledged before a reservation expired may still wait to be counted: until that is done the reservation stands.
HELD = """SELECT sum(quantity) FROM usage_reservations WHERE organization_id = :organization_id AND metric_id = :metric_id_0
  AND settled_at IS NULL AND expires_at > least(CAST(:at AS timestamptz), (SELECT min(received_at) FROM usage_pending))"""
COUNTER = f"coalesce(({{window}}), 0) AS used_0, coalesce(({HELD}), 0) AS held_0"
"""The two columns of one bound; `_0` is its place among them."""


class Counter(NamedTuple):
    """Quantities."""

    used: Decimal
    reserved: Decimal


Kinds = tuple[tuple[str, bool], ...]


class Question(NamedTuple):
    """What to ask for the counters of a customer's bounds: how each adds up and whether its window is long; the values but the instant."""

    kinds: Kinds
    values: dict[str, Any]

    @property
    def columns(self) -> list[str]:
        """A pair for each bound. Single numbers and instants are sent several times faster than arrays of them."""
        windows = [(LONG_WINDOW if is_long else WINDOW).format(function=function) for function, is_long in self.kinds]
        return [COUNTER.format(window=window).replace("_0", f"_{i}") for i, window in enumerate(windows)]


def question(facts: Facts, holding: Sequence[Bound]) -> Question:
    """For one customer's bounds on metrics."""
    values: dict[str, Any] = {"number": facts.number, "organization_id": facts.organization_id}
    kinds = []
    for i, (bound, metric) in enumerate(_metered(holding)):
        since, until = bound.window.start, bound.window.end or _day_ceiling(facts.at + AHEAD)
        day = _day_ceiling(since)
        values |= {f"metric_{i}": metric.number, f"metric_id_{i}": metric.id, f"since_{i}": since, f"until_{i}": until}
        kinds.append((FUNCTIONS.get(metric.aggregation, "sum"), day + DAY <= until))
        if kinds[-1][1]:
            values[f"day_{i}"] = day
    return Question(tuple(kinds), values)


def read(reads: Reads, facts: Facts, holding: Sequence[Bound], *, at: datetime) -> dict[str, Counter]:
    """The counters of one customer's bounds on metrics, by subject; `at` is real time, for the reservations."""
    asked = question(facts, holding)
    [row] = reads.execute(_statement(asked.kinds), {**asked.values, "at": at})
    return answered(reads, facts, holding, row)


def answered(reads: Reads, facts: Facts, holding: Sequence[Bound], columns: Sequence[Decimal]) -> dict[str, Counter]:
    """The same from the columns of their question, in a statement of `reads`."""
    metered = _metered(holding)
    found = {bound.subject: Counter(columns[2 * i], columns[2 * i + 1]) for i, (bound, _) in enumerate(metered)}
    unclear = [bound for bound, metric in metered if not metric.simple or _cuts_hours(bound)]
    measured = used(session_of(reads), unclear, at=facts.at) if unclear else {}
    return {
        subject: counter._replace(used=measured.get((facts.organization_id, subject), counter.used)) for subject, counter in found.items()
    }


@lru_cache(256)
def _statement(kinds: Kinds) -> TextClause:
    return text(f"SELECT {', '.join(Question(kinds, {}).columns)}")


def _metered(holding: Sequence[Bound]) -> list[tuple[Bound, Measured]]:
    return [(bound, bound.metric) for bound in holding if bound.metric is not None]


def used(session: Session, holding: Collection[Bound], *, at: datetime) -> Mapping[tuple[uuid.UUID, str], Decimal]:
    """What is counted in the window of each bound on a metric, by customer and subject; usage dated ahead of `at` is counted too."""
    wanted = {
        (bound.organization_id, bound.subject): (bound.organization_id, bound.metric.id, bound.window.start, bound.window.end or at + AHEAD)
        for bound in holding
        if bound.metric is not None
    }
    sums = usage_sums(session, set(wanted.values())) if wanted else {}
    return {key: sums[asked] for key, asked in wanted.items()}


def _day_ceiling(instant: datetime) -> datetime:
    """The first UTC day that begins not before `instant`."""
    day = instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day if day == instant else day + DAY


def _cuts_hours(bound: Bound) -> bool:
    """Whether the window begins or ends within an hour: local days of zones off by minutes, and limits in total."""
    end = bound.window.end
    return hour_floor(bound.window.start) != bound.window.start or (end is not None and hour_floor(end) != end)
