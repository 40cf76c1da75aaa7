"""The fixtures every database test stands on."""

from __future__ import annotations

import threading

import psycopg
import pytest
import redis
from alembic import command
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.db import transaction
from core.schema import newest_revision
from ops import migrate
from ops.postgres import Cluster
from tests.conftest import Clock
from tests.database import create_database, rolled_back


def insert(name: str) -> None:
    with transaction() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS fixture_probe (name text)"))
        session.execute(text("INSERT INTO fixture_probe VALUES (:name)"), {"name": name})


def test_a_commit_is_gone_after_the_test(app: Flask, database_url: str) -> None:
    with rolled_back(app) as session:
        insert("seen inside")
        assert session.scalar(text("SELECT name FROM fixture_probe")) == "seen inside"
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regclass('fixture_probe')").fetchone() == (None,)


def test_an_error_rolls_back_to_the_start_of_its_unit_of_work(session: Session) -> None:
    insert("kept")
    with pytest.raises(ZeroDivisionError), transaction() as work:  # noqa: PT012 - the block is the unit of work
        work.execute(text("INSERT INTO fixture_probe VALUES ('lost')"))
        raise ZeroDivisionError
    assert session.scalars(text("SELECT name FROM fixture_probe")).all() == ["kept"]


def test_the_database_is_migrated_and_its_owner_is_no_superuser(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        assert connection.execute("SHOW is_superuser").fetchone() == ("off",)
        assert connection.info.server_version // 10000 == 18


def test_committed_app_really_commits(committed_app: Flask, committed_database_url: str, database_url: str) -> None:
    assert committed_database_url != database_url

    def work() -> None:
        with committed_app.app_context():
            insert("from a thread")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with psycopg.connect(committed_database_url) as connection:
        assert connection.execute("SELECT name FROM fixture_probe").fetchone() == ("from a thread",)


def test_valkey_keeps_everything(valkey_server_url: str) -> None:
    with redis.Redis.from_url(valkey_server_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_the_clock_stands_still_until_moved(clock: Clock) -> None:
    before = clock.now()
    assert clock.now() == before
    assert (clock.advance(hours=1) - before).total_seconds() == 3600


def test_the_newest_revision_is_alembic_s_own(database_url: str) -> None:
    newest = newest_revision()
    assert ScriptDirectory(str(migrate.MIGRATIONS)).get_heads() == [newest]
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (newest,)


def test_the_models_and_the_migrations_agree(cluster: Cluster) -> None:
    url = create_database(cluster, "compared")
    command.check(migrate.configuration(url, compare=True))
