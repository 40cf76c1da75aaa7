"""A metering stack of this process on a database that really commits: directory, log, endpoint, and the aggregator on demand."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.test import Client

from api.usage import PATH, UsageEndpoint
from core import clock as core_clock
from core import config
from core.audit import SYSTEM
from core.config import Settings
from core.db import db, engine_options, transaction
from core.identity import keys
from core.metering import metrics
from core.metering.aggregate import Aggregator
from core.metering.dedup import DedupStore, SegmentStore
from tests.factories import make_organization

WAIT_SECONDS = 30


@dataclass
class Metering:
    """What the tests do with the stack."""

    app: Flask
    url: str
    endpoint: UsageEndpoint

    def organization(self, **given: Any) -> tuple[uuid.UUID, str]:
        """A new organization and the token of a key of its own."""
        with self.app.app_context(), transaction() as session:
            organization = make_organization(session, **given)
            token = self._key(session, organization.id)
            return organization.id, token

    def platform_key(self) -> str:
        """A token that may name any organization."""
        with self.app.app_context(), transaction() as session:
            return self._key(session, None)

    def _key(self, session: Session, organization_id: uuid.UUID | None) -> str:
        given = {"name": "test", "mode": "test", "scopes": ["usage:write"], "actor": SYSTEM, "at": core_clock.now()}
        return keys.create(session, organization_id=organization_id, **given)[1]

    def metric(self, code: str, aggregation: str = "sum", **given: Any) -> uuid.UUID:
        """A new metric."""
        with self.app.app_context(), transaction() as session:
            at = core_clock.now()
            return metrics.create(session, code=code, name=code, aggregation=aggregation, actor=SYSTEM, at=at, **given).id

    def post(self, token: str, events: Any, **headers: str) -> tuple[int, Any]:
        """Send events (JSON-able, or bytes as they are); status and decoded body."""
        body = events if isinstance(events, bytes) else json.dumps(events).encode()
        environ = {"HTTP_AUTHORIZATION": f"Bearer {token}", **headers}
        response = Client(self.endpoint).post(
            PATH, data=body, content_type=environ.pop("CONTENT_TYPE", "application/json"), environ_base=environ
        )
        return response.status_code, json.loads(response.get_data())

    def send(self, token: str, events: Any, **headers: str) -> Any:
        """Send events until they are taken, as clients do after a 503; the answer."""
        answers: list[Any] = []

        def taken() -> bool:
            answers.append(self.post(token, events, **headers))
            return bool(answers[-1][0] == 202)

        self.until(taken)
        return answers[-1][1]

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """What SQL answers, on a connection of its own."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement, values).fetchall()

    def value(self, statement: str, *values: Any) -> Any:
        """The one value SQL answers."""
        return self.rows(statement, *values)[0][0]

    def count(self, store: Callable[[], DedupStore] = SegmentStore) -> Aggregator:
        """Run an aggregator until nothing waits and every metric is taken up."""
        aggregator = self.aggregator(store())
        failed: list[BaseException] = []

        def run() -> None:
            try:
                aggregator.run()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            self.until(lambda: bool(failed) or self.is_counted())
        finally:
            aggregator.stop()
            thread.join(WAIT_SECONDS)
        if failed:
            raise failed[0]
        return aggregator

    def aggregator(self, store: DedupStore) -> Aggregator:
        """An aggregator on this database that flushes as often as it can."""
        return Aggregator(self.url, store, flush_seconds=0.01, window_days=35, now=core_clock.now)

    def is_counted(self) -> bool:
        """Nothing waits in the log and no metric waits to be taken up."""
        return bool(
            self.value("""SELECT NOT EXISTS (SELECT FROM usage_pending) AND NOT EXISTS (SELECT FROM metrics WHERE counted_at IS NULL)
              AND NOT EXISTS (SELECT FROM metric_revisions WHERE counted_at IS NULL AND status = 'open')""")
        )

    def until(self, condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        """Wait for it; fails after `seconds`."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "this did not happen in time"
            time.sleep(0.02)

    def sums(self, wanted: Sequence[tuple[uuid.UUID, uuid.UUID, datetime, datetime]]) -> list[Any]:
        """core.metering.queries.usage_sums, in the order asked."""
        from core.metering import queries

        with self.app.app_context(), transaction() as session:
            answers = queries.usage_sums(session, wanted)
        return [answers[item] for item in wanted]


@pytest.fixture(scope="module")
def metering(committed_database_url: str) -> Iterator[Metering]:
    """The stack on the module's own database, without the sites."""
    settings = config.use(Settings(environment="test", database_url=committed_database_url, usage_rate_per_second=10_000_000))
    app = Flask("metering")
    app.config.update(SQLALCHEMY_DATABASE_URI=settings.database_url, SQLALCHEMY_ENGINE_OPTIONS=engine_options(4))
    db.init_app(app)
    endpoint = UsageEndpoint(app.wsgi_app, settings)
    yield Metering(app, settings.database_url, endpoint)
    endpoint.close()
