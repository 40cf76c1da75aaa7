"""Fixtures everybody shares: the database, the application, a session that is rolled back, time and the queue's server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import settings as hypothesis_settings
from sqlalchemy.orm import Session

from core import clock as core_clock
from core.db import db
from ops import ports, postgres, valkey
from tests import database

os.environ.setdefault("XDG_RUNTIME_DIR", "/tmp")
hypothesis_settings.register_profile("shared", deadline=None, print_blob=True, derandomize="CI" in os.environ)  # else it looks anew
hypothesis_settings.load_profile("shared")

DEFAULT_NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL server of this test process with the migrated template database."""
    with database.running_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def database_url(cluster: postgres.Cluster) -> str:
    """A migrated database for tests that roll back."""
    return database.create_database(cluster, "rolled_back")


@pytest.fixture(scope="session")
def app(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The application on the database for tests that roll back."""
    return database.make_app(database_url, tmp_path_factory.mktemp("home"))


@pytest.fixture
def session(app: Flask) -> Iterator[Session]:
    """The database session of an open application context; everything the test does with it, commits too, is rolled back."""
    with database.rolled_back(app) as opened:
        yield opened


@pytest.fixture
def client(app: Flask, session: Session) -> FlaskClient:
    """A client of the application that sees what the test's session has written."""
    return app.test_client()


@pytest.fixture(scope="module")
def committed_database_url(cluster: postgres.Cluster, request: pytest.FixtureRequest) -> str:
    """A fresh clone of the migrated database for the tests of one module, which really commit (processes, threads, browsers)."""
    return database.create_database(cluster, request.module.__name__.rpartition(".")[2][:60])


@pytest.fixture(scope="module")
def committed_app(committed_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The application on the module's own database; nothing is rolled back, no application context is open."""
    made = database.make_app(committed_database_url, tmp_path_factory.mktemp("home"))
    yield made
    made.extensions["reader"].close()
    with made.app_context():
        db.engine.dispose()


@pytest.fixture(scope="session")
def valkey_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running Valkey; use a database number of your own or flush it."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    port = ports.free()
    process = valkey.start(folder, port, folder / "valkey.log")
    yield valkey.url(port)
    process.terminate()
    process.wait(20)


class Clock:
    """Holds `core.clock.now()`; starts at DEFAULT_NOW."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.at(DEFAULT_NOW)

    def at(self, instant: datetime) -> datetime:
        """Hold time at `instant` (aware)."""
        self._stack.enter_context(core_clock.frozen(instant))
        return core_clock.now()

    def advance(self, **delta: float) -> datetime:
        """Move time on by timedelta's keywords."""
        return self.at(core_clock.now() + timedelta(**delta))

    def now(self) -> datetime:
        """The instant time is held at."""
        return core_clock.now()


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Time that stands still until the test moves it."""
    with ExitStack() as stack:
        yield Clock(stack)
