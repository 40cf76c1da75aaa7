"""The test database: one throw-away PostgreSQL a process, one migrated template in it, clones of the template to work in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from flask import Flask, has_app_context
from flask.testing import FlaskClient
from psycopg import sql

from core.config import Settings
from core.db import db
from ops import migrate, ports, postgres

TEMPLATE = "template_valueverse"
PREFIX = "vvt-"


@contextmanager
def running_cluster() -> Iterator[postgres.Cluster]:
    """A cluster with the migrated template, gone at the end of the block; leftovers of killed runs are removed first."""
    base = postgres.SHARED if os.geteuid() == 0 else Path(tempfile.gettempdir())
    remove_leftovers(base)
    folder = base / f"{PREFIX}{os.getpid()}"
    folder.mkdir(mode=0o755)
    cluster = postgres.throwaway(folder / "pg", ports.free())
    try:
        cluster.create()
        cluster.start(folder / "postgres.log")
        migrate.upgrade(create_database(cluster, TEMPLATE, source="template1"))
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(base: Path) -> None:
    """Delete the data of test processes that are no more (their servers died with them)."""
    for folder in base.glob(f"{PREFIX}*"):
        if not Path("/proc", folder.name.removeprefix(PREFIX)).exists():
            shutil.rmtree(folder, ignore_errors=True)


def create_database(cluster: postgres.Cluster, name: str, *, source: str = TEMPLATE) -> str:
    """Clone `source` as database `name`, replacing an older one, and return its address."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(source)))
    return cluster.url(name)


def make_app(database_url: str, home: Path, **settings: Any) -> Flask:
    """The product's own application on `database_url`, with test settings."""
    app = application(Settings(**{"environment": "test", "database_url": database_url, "home": home, **settings}))
    app.test_client_class = ContextPerRequest
    return app


def application(settings: Settings) -> Flask:
    """The product's application."""
    if find_spec("wsgi") is not None:
        from wsgi import create_app

        return create_app(settings)
    app = Flask("tests")
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.database_url
    db.init_app(app)
    return app


class ContextPerRequest(FlaskClient):
    """Test client whose every request has an application context of its own, as on a server.

    Rows the test has written are flushed before the request and read again after it.
    """

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """Send the request; see the class."""
        outer = db.session() if has_app_context() and db.session.registry.has() else None
        if outer is not None:
            outer.flush()
        with self.application.app_context():
            response = super().open(*args, **kwargs)
        if outer is not None:
            outer.expire_all()
        return response


@contextmanager
def rolled_back(app: Flask) -> Iterator[Any]:
    """The session of an application context whose commits are savepoints of one transaction that is rolled back at the end."""
    with app.app_context():
        engine, reader = db.engines[None], app.extensions.get("reader")
        with engine.connect() as connection:
            outer = connection.begin()
            app.extensions["reader"] = connection
            db.engines[None] = connection  # type: ignore[index]
            db.session.session_factory.configure(join_transaction_mode="create_savepoint")
            try:
                yield db.session()
            finally:
                db.session.remove()
                outer.rollback()
                db.engines[None] = engine  # type: ignore[index]
                app.extensions["reader"] = reader
                db.session.session_factory.configure(join_transaction_mode="conditional_savepoint")
