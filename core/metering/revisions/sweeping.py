"""Deleting the sums of definitions that hold no longer, a range of accounts at a time, so that nobody waits for it."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

ORGANIZATIONS_AT_ONCE = 500
OLDEST = """SELECT id, number, coalesce((rest->>'swept_through')::int, 0) AS since FROM metric_revisions
  WHERE status <> 'open' AND rest->>'swept' IS NULL ORDER BY settled_at LIMIT 1"""
RANGE = "SELECT array_agg(number ORDER BY number) FROM (SELECT number FROM organizations WHERE number > %s ORDER BY number LIMIT %s) AS o"
TABLES = ("usage_rollups", "usage_daily", "usage_unique_values", "usage_value_counts")
DELETE = "DELETE FROM {} WHERE metric_number = %s AND organization_number = ANY(%s)"
NOTE = "UPDATE metric_revisions SET rest = rest || %s::jsonb WHERE id = %s"


def sweep(connection: Connection[Any]) -> int:
    """Delete a range of the oldest settled revision's sums, in a transaction; how many rows went."""
    with connection.transaction():
        return _sweep(connection)


def _sweep(connection: Connection[Any]) -> int:
    row = connection.execute(OLDEST).fetchone()
    if row is None:
        return 0
    revision_id, number, since = row
    found = connection.execute(RANGE, (since, ORGANIZATIONS_AT_ONCE)).fetchone()
    numbers = (found[0] if found else None) or []
    gone = sum(connection.execute(DELETE.format(table), (number, numbers)).rowcount for table in TABLES) if numbers else 0
    done = f'{{"swept_through": {numbers[-1]}}}' if len(numbers) == ORGANIZATIONS_AT_ONCE else '{"swept": true}'
    connection.execute(NOTE, (done, revision_id))
    return gone
