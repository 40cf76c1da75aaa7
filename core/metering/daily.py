"""Daily sums: the hourly rollups of days long past, added up, so that a year is as cheap to read as a fortnight.

Complete for the UTC days before `usage_state.daily_through`. The aggregator adds one day after the other while nothing else is being
counted; what comes late for such a day is added to its hour and to its day in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from core.metering.counted import COUNTED_METRICS
from core.metering.merging import LATER, QUANTITY, WIDER
from core.metering.models import Aggregation

DAY = timedelta(days=1)
KEY = "organization_number, metric_number, day, group_key"
COLUMNS = f"{KEY}, events, quantity, first_at, last_at, last_batch, last_position, moment"
HOUR_KEY = "organization_number, metric_number, date_trunc('day', hour, 'UTC'), group_key"
ADDED = f"""SELECT {HOUR_KEY}, sum(events), {{function}}(quantity), min(first_at), max(last_at), 0, 0, sum(moment)
  FROM ({{source}}) AS hours GROUP BY 1, 2, 3, 4"""  # noqa: S608 - constants only
NEWEST = f"""SELECT DISTINCT ON ({HOUR_KEY}) {HOUR_KEY}, sum(events) OVER same, quantity, min(first_at) OVER same, last_at,
    last_batch, last_position, moment
  FROM ({{source}}) AS hours WINDOW same AS (PARTITION BY {HOUR_KEY})
  ORDER BY {HOUR_KEY}, last_at DESC, last_batch DESC, last_position DESC"""  # noqa: S608
INSERT = f"INSERT INTO usage_daily AS r ({COLUMNS}) {{rows}}"
MERGE = f"""{INSERT} ON CONFLICT ({KEY}) DO UPDATE SET events = r.events + excluded.events, quantity = {{quantity}},
  moment = r.moment + excluded.moment, {LATER}, {WIDER}"""
HOURS_OF_DAY = f"""SELECT h.* FROM {COUNTED_METRICS} CROSS JOIN organizations o CROSS JOIN LATERAL (SELECT * FROM usage_rollups
    WHERE organization_number = o.number AND metric_number = m.number AND hour >= %(day)s AND hour < %(next)s OFFSET 0) AS h
  WHERE m.aggregation = ANY(%(aggregations)s)"""  # noqa: S608 - a constant
"""One index range a metric and organization: the table is not ordered by time."""
HOURS_OF_DAYS = f"""SELECT h.* FROM {COUNTED_METRICS} JOIN usage_rollups h ON h.metric_number = m.number
  WHERE m.number = ANY(%(metrics)s) AND m.aggregation = ANY(%(aggregations)s) AND h.organization_number = %(organization)s
    AND h.hour >= %(first)s AND h.hour < %(end)s AND date_trunc('day', h.hour, 'UTC') = ANY(%(days)s)"""  # noqa: S608
LATE_SUMS = """SELECT organization_number, metric_number, hour, '' AS group_key, events, quantity, first_at, last_at,
  CAST(NULL AS numeric) AS moment FROM flush_sums WHERE hour < %(through)s"""
LATE_TALLIES = "SELECT * FROM flush_tallies WHERE aggregation = %(aggregation)s AND hour < %(through)s"
FORGET = """DELETE FROM usage_daily
  WHERE organization_number = %(organization)s AND metric_number = ANY(%(metrics)s) AND day = ANY(%(days)s)"""
THROUGH = "SELECT daily_through FROM usage_state"
FUNCTIONS = {Aggregation.MAX: "max", Aggregation.MIN: "min", Aggregation.LATEST: ""}


def through(connection: Connection[Any]) -> datetime:
    """The instant before which days are complete."""
    row = connection.execute(THROUGH, prepare=True).fetchone()
    if row is None:
        raise LookupError("usage_state is empty: the database was not migrated")
    found: datetime = row[0]
    return found


def add_up(connection: Connection[Any], *, until: datetime, days_max: int = 1) -> int:
    """Add up at most `days_max` more days that end by `until`, in the connection's open transaction; how many were.

    Days without usage are passed over at once. Nothing may be counted meanwhile.
    """
    since = through(connection)
    done = 0
    while since + DAY <= until and done < days_max:
        first = connection.execute("SELECT min(hour) FROM usage_rollups WHERE hour >= %s", (since,)).fetchone()
        day = until if first is None or first[0] is None else first[0].replace(hour=0)
        if day + DAY > until:
            since = max(since, min(day, until))
            break
        for function in ("sum", "max", "min", ""):
            _insert_day(connection, day, function)
        since, done = day + DAY, done + 1
    connection.execute("UPDATE usage_state SET daily_through = %s WHERE daily_through < %s", (since, since))
    return done


def add_late(connection: Connection[Any], aggregations: Iterable[Aggregation], since: datetime, *, sums: bool) -> None:
    """Add what a flush has for days before `since`, from its temporary tables, once its rollups are written."""
    given = {"through": since}
    if sums:
        rows = ADDED.format(function="sum", source=LATE_SUMS)
        connection.execute(MERGE.format(rows=rows, quantity=QUANTITY[Aggregation.SUM]), given)
    for aggregation in aggregations:
        rows = _rows(FUNCTIONS.get(aggregation, "sum"), LATE_TALLIES)
        statement = MERGE.format(rows=rows, quantity=QUANTITY[aggregation])
        connection.execute(statement, {**given, "aggregation": aggregation.value})


def rebuild(connection: Connection[Any], organization: int, metrics: Sequence[int], days: Collection[datetime]) -> None:
    """Add up anew those of the days that are complete, for an organization's metrics. Nothing may be counted meanwhile."""
    since = through(connection)
    complete = sorted(day for day in days if day < since)
    if not complete:
        return
    asked = {"organization": organization, "metrics": list(metrics), "days": complete}
    gone = (
        "DELETE FROM usage_daily WHERE organization_number = %(organization)s AND metric_number = ANY(%(metrics)s) AND day = ANY(%(days)s)"
    )
    connection.execute(gone, asked)
    for function in ("sum", "max", "min", ""):
        rows = INSERT.format(rows=_rows(function, HOURS_OF_DAYS))
        connection.execute(rows, {**asked, "first": complete[0], "end": complete[-1] + DAY, "aggregations": _folded_by(function)})


def _insert_day(connection: Connection[Any], day: datetime, function: str) -> None:
    rows = _rows(function, HOURS_OF_DAY)
    connection.execute(INSERT.format(rows=rows), {"day": day, "next": day + DAY, "aggregations": _folded_by(function)})


def _folded_by(function: str) -> list[str]:
    return [one.value for one in Aggregation if FUNCTIONS.get(one, "sum") == function]


def _rows(function: str, source: str) -> str:
    return ADDED.format(function=function, source=source) if function else NEWEST.format(source=source)
