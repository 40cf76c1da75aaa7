"""Single questions to the database, asked before every request of somebody's product: a connection of their own, nothing around them.

No session, no ping, no BEGIN and ROLLBACK, and a plan that PostgreSQL keeps for as long as the connection lives: of a question that takes
a tenth of a millisecond, these are most.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from psycopg import Connection, OperationalError
from psycopg.rows import namedtuple_row
from psycopg.types.json import set_json_loads
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.orm import Session

from core.db import NETWORK, NETWORK_OPTIONS, db
from core.errors import Unavailable

STATEMENT_SECONDS_MAX = 5
WAIT_SECONDS = 2.0
OPTIONS = (
    f"{NETWORK_OPTIONS} -c timezone=UTC -c statement_timeout={STATEMENT_SECONDS_MAX}s -c plan_cache_mode=force_generic_plan -c jit=off"
)
ENDED = ("08", "57P")
"""Classes of errors in which the server says that the connection is over; one that is gone says nothing."""
AWAY = "The database is not answering. Nothing was changed; repeat the request."


class Reads(Protocol):
    """What a question can be put to: a `Reader`, or a session, which answers within its transaction."""

    def execute(self, statement: TextClause, values: Mapping[str, Any], /) -> Iterable[Any]:
        """The rows, their columns by name."""


class Reader:
    """Answers single statements that only read, for the threads of one process; each sees what was committed before it.

    It has at most so many `connections`, and opens another only while the others are in use.
    """

    def __init__(self, database_url: str, *, connections: int = 4, kind: type[Connection[Any]] = Connection) -> None:
        self._url, self._kind = database_url, kind
        self._idle: list[Connection[Any]] = []
        self._turns = threading.Semaphore(connections)

    def execute(self, statement: TextClause, values: Mapping[str, Any], /) -> list[Any]:
        """The rows of one statement; Unavailable when the database does not answer.

        That a connection was lost since its last use is found out by using it: the question is then put once more, to a new one.
        """
        if not self._turns.acquire(timeout=WAIT_SECONDS):
            raise Unavailable(AWAY)
        try:
            try:
                return self._ask(_query(statement), values)
            except OperationalError as error:
                if error.sqlstate is not None and not error.sqlstate.startswith(ENDED):
                    raise
                self.close()
            return self._ask(_query(statement), values)
        except OperationalError as error:
            raise Unavailable(AWAY) from error
        finally:
            self._turns.release()

    def close(self) -> None:
        """Close the connections that nobody is using."""
        while self._idle:
            self._idle.pop().close()

    def _ask(self, query: str, values: Mapping[str, Any]) -> list[Any]:
        connection = self._connection()
        try:
            rows = connection.execute(query, values, prepare=True).fetchall()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return rows

    def _connection(self) -> Connection[Any]:
        try:
            return self._idle.pop()
        except IndexError:
            given = {"autocommit": True, "row_factory": namedtuple_row, "connect_timeout": 2, "options": OPTIONS, **NETWORK}
            made = self._kind.connect(self._url, **given)
        set_json_loads(msgspec.json.decode, made)
        return made


def session_of(reads: Reads) -> Session:
    """A session for what a single statement cannot answer: the one that reads, or the application context's own."""
    return reads if isinstance(reads, Session) else db.session()


@lru_cache(256)
def _query(statement: TextClause) -> str:
    """The statement as psycopg takes it. Statements are constants, or made of a few pieces."""
    return str(statement.compile(dialect=psycopg.dialect()))  # type: ignore[no-untyped-call]
