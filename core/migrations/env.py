"""Alembic's environment: every model of the core, one connection, one transaction, one migration at a time."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from alembic import context
from sqlalchemy import create_engine, pool, text

from core.db import Base

CORE = Path(__file__).resolve().parents[1]
LOCK = 7_253_001  # any number of our own: two processes that migrate at once wait for each other


def load_models() -> None:
    """Import every module of the core that declares tables."""
    for path in sorted([*CORE.glob("*/models.py"), *CORE.glob("*.py")]):
        if path.stem != "__init__" and (path.stem == "models" or "__tablename__" in path.read_text(encoding="utf-8")):
            importlib.import_module(".".join(("core", *path.relative_to(CORE).with_suffix("").parts)))


PARTITION = re.compile(r"usage_(events|batches)_(default|[0-9]{8})")


def compared(name: str | None, kind: str, _parents: object) -> bool:
    """Partitions come and go with the days; only their parents are in the models."""
    return kind != "table" or name is None or not PARTITION.fullmatch(name)


def run() -> None:
    """Migrate the database named by the caller of Alembic."""
    load_models()
    engine = create_engine(context.config.attributes["url"], poolclass=pool.NullPool)
    with engine.connect() as connection, connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=False, include_name=compared)
        context.run_migrations()


run()
