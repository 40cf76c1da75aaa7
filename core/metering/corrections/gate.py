"""The gate between counting and correcting: each counting transaction goes through it together with others, a correction alone.

It is an advisory lock, because those queue up: a correction waits for the flushes that are running, not for those that come after.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from core.metering import rollups

LOCK = 7_720_002
HOLD = f"SELECT pg_advisory_xact_lock({LOCK})"
TEMPORARY = ("flush_sums", "flush_tallies", "flush_values", "flush_counts")


@contextmanager
def held(session: Session, *, trial: bool = False) -> Iterator[Connection[Any]]:
    """Let nothing be counted until the session's transaction ends; gives its connection, on which rollups can be written.

    What was counted before is seen by the next statement. Of a `trial`, which its caller takes back, counting goes on: it may see a flush
    more in one statement than in the one before.
    """
    with connected(session) as connection:
        if not trial:
            connection.execute(HOLD)
        rollups.prepare(connection)
        yield connection


@contextmanager
def connected(session: Session) -> Iterator[Connection[Any]]:
    """The session's own connection, below SQLAlchemy. Errors of the database are raised as SQLAlchemy's, as everywhere."""
    session.flush()
    try:
        yield _driver(session)
    except psycopg.Error as error:
        raise DBAPIError.instance("correction of usage", None, error, psycopg.Error) from error


def _driver(session: Session) -> Connection[Any]:
    found = session.connection().connection.driver_connection
    if not isinstance(found, Connection):
        raise TypeError("usage is corrected on psycopg connections")
    return found


def emptied(connection: Connection[Any]) -> None:
    """Empty the temporary tables of a write before the next one in the same transaction."""
    connection.execute(f"TRUNCATE {', '.join(TEMPORARY)}")
