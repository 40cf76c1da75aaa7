"""A unit of work for a command: the product's own transaction, without its web or its actors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from flask import Flask
from sqlalchemy.orm import Session

from core import config, jobs, schema
from core.db import db, engine_options, transaction

STATEMENT_SECONDS_MAX = 900


@lru_cache(maxsize=1)
def app() -> Flask:
    """The bare application of this command: settings, database, queue."""
    settings = config.current()
    bare = Flask("ops", static_folder=None)
    bare.config.update(
        SETTINGS=settings,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(2, statement_seconds_max=STATEMENT_SECONDS_MAX),
    )
    schema.load_models()
    jobs.connect(settings.redis_url)
    db.init_app(bare)
    return bare


@contextmanager
def unit_of_work() -> Iterator[Session]:
    """One transaction on the database the settings name; its jobs are sent after the commit."""
    with app().app_context(), transaction() as session:
        yield session
