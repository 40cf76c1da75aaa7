"""The core without its sites: a bare application for tests that need the database and settings only."""

from __future__ import annotations

from pathlib import Path

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from flask import Flask

from core import config, jobs
from core.config import Settings
from core.db import db, engine_options


def make_bare_app(database_url: str, home: Path, **settings: object) -> Flask:
    """Settings and database of a worker process, no routes; its jobs go to a queue in memory."""
    chosen = config.use(Settings(**{"environment": "test", "database_url": database_url, "home": home, **settings}))  # type: ignore[arg-type]
    bare = Flask("tests")
    bare.config.update(
        SETTINGS=chosen, SQLALCHEMY_DATABASE_URI=chosen.database_url, SQLALCHEMY_ENGINE_OPTIONS=engine_options(8, statement_seconds_max=60)
    )
    db.init_app(bare)
    broker = StubBroker()
    broker.declare_queue(jobs.QUEUE)
    dramatiq.set_broker(broker)
    return bare


@pytest.fixture(scope="session")
def bare_app(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """On the database for tests that roll back."""
    return make_bare_app(database_url, tmp_path_factory.mktemp("home"))
