"""The database: declarative base, column types, and the only code that commits.

`transaction()` opens the edge's unit of work; jobs enqueued inside it are sent after the commit and dropped on a rollback.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar, cast

import msgspec
import psycopg
from flask_sqlalchemy import SQLAlchemy
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import BigInteger, CheckConstraint, ColumnElement, DateTime, MetaData, Numeric, String, Uuid, any_, literal, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from core import jobs
from core.errors import BillingError, Conflict, Invalid, Unavailable

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
RETRYABLE = {"40001", "40P01"}  # serialization_failure, deadlock_detected
ATTEMPTS_MAX = 5
NETWORK: dict[str, Any] = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""libpq's settings, in seconds and, the last, milliseconds: a server whose packets stop is given up within half a minute."""
NETWORK_OPTIONS = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=20000"
"""The same for the server, so that the locks of a process that is out of reach are free again as soon."""


class Base(DeclarativeBase):
    """Parent of every model. Times are timestamptz, money is bigint minor units, quantities and unit prices are numeric."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: DateTime(timezone=True),
        Decimal: Numeric(),
        dict[str, Any]: JSONB(none_as_null=True),
        list[Any]: JSONB(none_as_null=True),
    }


db = SQLAlchemy(metadata=Base.metadata, disable_autonaming=True)

Id = Annotated[uuid.UUID, mapped_column(primary_key=True, server_default=text("uuidv7()"))]
MinorUnits = Annotated[int, mapped_column(BigInteger)]
Currency = Annotated[str, mapped_column(String(3))]
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True))]

T = TypeVar("T")


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562): rows of bulk work know their ids before they are written."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    number = (number & ~(0xF << 76)) | (7 << 76)
    number = (number & ~(0x3 << 62)) | (2 << 62)
    return uuid.UUID(int=number)


def finite(column: str, *, minimum: int | None = None) -> CheckConstraint:
    """CHECK that refuses NaN and both infinities, which `numeric` accepts, and values under `minimum`."""
    lower = f"{column} >= {minimum}" if minimum is not None else f"{column} > '-Infinity'"
    return CheckConstraint(f"{column} <> 'NaN' AND {column} < 'Infinity' AND {lower}", name=f"{column}_finite")


def one_of(column: str, values: type[Any]) -> CheckConstraint:
    """CHECK that a text column holds a member of the StrEnum."""
    members = ", ".join(f"'{member.value}'" for member in values)
    return CheckConstraint(f"{column} IN ({members})", name=f"{column}_known")


def engine_options(pool_size: int, *, statement_seconds_max: int = 30) -> dict[str, Any]:
    """How a process keeps its connections: checked before use, `pool_size` of them (one a thread), a wait of at most 10 s for one."""
    return {
        "pool_pre_ping": True,
        "pool_size": pool_size,
        "max_overflow": 2,
        "pool_timeout": 10,
        "pool_recycle": 1800,
        "json_serializer": _json,
        "json_deserializer": msgspec.json.decode,
        "connect_args": {
            "connect_timeout": 5,
            **NETWORK,
            "options": f"{NETWORK_OPTIONS} -c timezone=UTC -c statement_timeout={statement_seconds_max}s -c lock_timeout=20s",
        },
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def is_transient(error: BaseException) -> bool:
    """Whether the same unit of work may succeed when it is run again: a deadlock, a serialization failure, a lost connection."""
    return isinstance(error, OperationalError) and (
        error.connection_invalidated or getattr(error.orig, "sqlstate", None) in RETRYABLE | {None}
    )


def as_billing_error(error: BaseException) -> BillingError | None:
    """What the database's refusal means to a caller: gone (503), a value no column takes (422), a rule broken in a race (409).

    None for anything that is not the database's, and for a broken statement, which is a fault of ours.
    """
    if isinstance(error, (OperationalError, PoolTimeout)):
        return Unavailable("The database is not answering. Nothing was changed; repeat the request.")
    if isinstance(error, DataError):
        return Invalid("A value is outside what can be stored.")
    if isinstance(error, IntegrityError):
        return Conflict("Another request changed this at the same moment. Read it again and repeat.")
    return None


@contextmanager
def transaction() -> Iterator[Session]:
    """One unit of work: commit at the end of the block and then send its jobs; roll back and drop them on any error."""
    session = db.session()
    try:
        yield session
        session.commit()
    except BaseException:
        session.rollback()
        jobs.drop(session)
        raise
    jobs.send_enqueued(session)


def among(column: Any, ids: Iterable[uuid.UUID]) -> ColumnElement[bool]:
    """`column = ANY(array)`: one parameter however many ids, where IN would send and parse each."""
    return cast("ColumnElement[bool]", column == any_(literal(list(ids), ARRAY(Uuid))))


def copy_rows(session: Session, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write many rows with one COPY in the session's transaction: one statement to a trigger, and several times an INSERT's speed.

    Every row names the same columns (by their name in the table); a column no row names gets its default.
    """
    if not rows:
        return
    session.flush()
    columns = model.__table__.columns
    names = list(rows[0])
    documents = {name for name in names if isinstance(columns[name].type, JSONB)}
    connection = session.connection().connection.driver_connection
    target = sql.SQL(", ").join(map(sql.Identifier, names))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(model.__tablename__), target)
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:  # type: ignore[union-attr]
            for row in rows:
                copy.write_row(
                    [Jsonb(row[name], msgspec.json.encode) if name in documents and row[name] is not None else row[name] for name in names]
                )
    except psycopg.Error as error:
        raise DBAPIError.instance(statement.as_string(), None, error, psycopg.Error) from error


@contextmanager
def only_one(lock: int) -> Iterator[bool]:
    """True for one process at a time inside the block: an advisory lock on a connection of its own, gone with the process."""
    with db.engine.connect() as connection, connection.begin():
        yield bool(connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": lock}))


def retrying(work: Callable[[], T]) -> T:
    """Run a whole unit of work again when PostgreSQL reports a deadlock or a serialization failure (at most five times)."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            return work()
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in RETRYABLE or attempt == ATTEMPTS_MAX:
                raise
            time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter, not a secret
    raise AssertionError("unreachable")
