"""Alembic's environment: one connection, one transaction, one migration at a time; the models are loaded only to be compared."""

from __future__ import annotations

from collections.abc import Callable

from alembic import context
from sqlalchemy import Connection, MetaData, create_engine, pool, text

from core.schema import load_models

LOCK = 7_253_001  # any number of our own: two processes that migrate at once wait for each other


def models() -> MetaData:
    """The tables that the core declares."""
    load_models()
    from core.db import Base

    return Base.metadata


def unless_partition(connection: Connection) -> Callable[[str | None, str, object], bool]:
    """A filter of what is compared: partitions are made and dropped as time goes by, no model declares them."""
    partitions = set(connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition")))
    return lambda name, kind, _parents: kind != "table" or name not in partitions


def run() -> None:
    """Migrate the database named by the caller of Alembic, or compare it with the models."""
    attributes = context.config.attributes
    engine = create_engine(attributes["url"], poolclass=pool.NullPool)
    with engine.connect() as connection, connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        compared = {"target_metadata": models(), "include_name": unless_partition(connection)} if attributes["compare"] else {}
        context.configure(connection=connection, **compared)
        context.run_migrations()


run()
