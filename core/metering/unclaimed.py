"""Lenient mode: events that no metric reads yet are kept under their name, and counted by the first metric that claims it.

They are ordinary rows of `usage_events` whose event name no metric reads. An organization may have NAMES_MAX such names, so that ids
sent as names do not fill the table of names.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from core.metering.definition import CODE

NAMES_MAX = 100
KNOWN_MAX = 100_000
FED = "[]"
"""The metrics that an unclaimed event feeds, as a JSON list."""
Name = tuple[int, str]
"""Number of the organization and name of the event."""

NO_METRIC = "NOT EXISTS (SELECT FROM metrics m WHERE m.event_name = n.name AND m.archived_at IS NULL)"
NUMBERS = """SELECT w.organization_number, w.name, n.number FROM unnest(%s::int[], %s::text[]) AS w(organization_number, name)
  JOIN usage_event_names n ON n.name = w.name
  JOIN usage_unclaimed_names u ON u.organization_number = w.organization_number AND u.event_number = n.number"""
ROOM = f"""WITH wanted AS (SELECT *, row_number() OVER (PARTITION BY organization_number ORDER BY name) AS place
    FROM unnest(%s::int[], %s::text[]) AS w(organization_number, name)),
  taken AS (SELECT u.organization_number, count(*) AS names FROM usage_unclaimed_names u
    JOIN usage_event_names n ON n.number = u.event_number AND {NO_METRIC}
    WHERE u.organization_number = ANY(%s::int[]) GROUP BY 1)
  SELECT w.organization_number, w.name FROM wanted w LEFT JOIN taken t USING (organization_number)
  WHERE w.place + coalesce(t.names, 0) <= {NAMES_MAX}"""  # noqa: S608 - constants only
NAME = "INSERT INTO usage_event_names (name) SELECT DISTINCT unnest(%s::text[]) ORDER BY 1 ON CONFLICT (name) DO NOTHING"
REMEMBER = """INSERT INTO usage_unclaimed_names (organization_number, event_number)
  SELECT w.organization_number, n.number FROM unnest(%s::int[], %s::text[]) AS w(organization_number, name)
  JOIN usage_event_names n ON n.name = w.name ORDER BY 1, 2 ON CONFLICT DO NOTHING"""


class Unclaimed:
    """Event names kept without a metric, for the threads of one process."""

    def __init__(self, connection: Callable[[], AbstractContextManager[Any]]) -> None:
        self._connection = connection
        self._known: dict[Name, int] = {}
        self._lock = threading.Lock()

    def numbers(self, wanted: Collection[Name]) -> Mapping[Name, int]:
        """The event numbers under which these names are kept; one that may not be kept is missing. Raises Unavailable."""
        known = self._known
        found = {name: known[name] for name in wanted if name in known}
        new = sorted(name for name in wanted if name not in found and CODE.fullmatch(name[1]))
        if new:
            found |= self._remembered(new)
            with self._lock:
                self._known = found if len(self._known) > KNOWN_MAX else {**self._known, **found}
        return found

    def _remembered(self, wanted: Sequence[Name]) -> dict[Name, int]:
        with self._connection() as connection:
            found = _numbers(connection, wanted)
            new = [name for name in wanted if name not in found]
            if new:
                owners = sorted({number for number, _ in new})
                allowed = connection.execute(ROOM, (*_arrays(new), owners)).fetchall()
                connection.execute(NAME, ([row.name for row in allowed],))
                connection.execute(REMEMBER, _arrays([(row.organization_number, row.name) for row in allowed]))
                found = _numbers(connection, wanted)
        return found


def _numbers(connection: Any, wanted: Sequence[Name]) -> dict[Name, int]:
    rows = connection.execute(NUMBERS, _arrays(wanted)).fetchall()
    return {(row.organization_number, row.name): row.number for row in rows}


def _arrays(names: Sequence[Name]) -> tuple[list[int], list[str]]:
    return [number for number, _ in names], [name for _, name in names]
