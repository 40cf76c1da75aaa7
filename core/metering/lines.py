"""Connections that never wait for ever: a server that is gone, or stands still, is an error within seconds.

The kernel gives up a peer that confirms nothing (core.db.NETWORK); `Prompt` also gives up a server that confirms and says nothing.
"""

from __future__ import annotations

from typing import Any, TypeVar

from psycopg import Connection, OperationalError
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from core.db import NETWORK, NETWORK_OPTIONS

RV = TypeVar("RV")
CONNECT_SECONDS_MAX = 5
STATEMENT_SECONDS_MAX = 5
SILENT_SECONDS_MAX = STATEMENT_SECONDS_MAX + 2.0
"""The server itself ends a statement two seconds earlier, so whoever is silent for that long is not working on it."""


class Prompt(Connection[Any]):
    """A connection for short statements: one that gets no answer for SILENT_SECONDS_MAX raises OperationalError and is closed.

    Use it with a `statement_timeout` of STATEMENT_SECONDS_MAX.
    """

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's, with an end."""
        try:
            return super().wait(gen, interval, SILENT_SECONDS_MAX if timeout is None else timeout)
        except OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def connect(database_url: str, *, name: str, kind: type[Connection[Any]] = Connection) -> Connection[Any]:
    """A connection of a metering process of its own, in autocommit mode, named in pg_stat_activity."""
    return kind.connect(
        database_url, autocommit=True, connect_timeout=CONNECT_SECONDS_MAX, application_name=name, options=NETWORK_OPTIONS, **NETWORK
    )
