"""The real thing that simulated customers live in: PostgreSQL, the product's core, usage taken and counted, a provider that charges."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import event

from api.usage import UsageEndpoint
from core import audit, config, selfcheck
from core import clock as core_clock
from core.db import db, transaction
from core.metering.dedup import SegmentStore
from core.notifications import dispatch
from core.selfcheck import Finding
from tests.bare import make_bare_app
from tests.fakes.fixtures import ProviderFake
from tests.metering.conftest import WAIT_SECONDS, Metering
from tests.payments.billing import charging_at
from tests.simulator.chance import METRICS

FACTS_AT_ONCE = 500


class Killed(BaseException):
    """The process died at this statement; nothing catches it, as nothing catches a kill."""


class Executioner:
    """Kills whoever sends the n-th statement from now."""

    def __init__(self) -> None:
        self.left = 0

    def __call__(self, *_: object) -> None:
        """Called before each statement."""
        if self.left:
            self.left -= 1
            if not self.left:
                raise Killed


@dataclass(frozen=True)
class House:
    """Everything a simulated life touches."""

    app: Flask
    metering: Metering
    metric_ids: dict[str, uuid.UUID]
    provider: ProviderFake
    executioner: Executioner

    def counted(self) -> None:
        """Wait until all usage that was taken is counted."""
        self.metering.until(self.metering.is_counted)

    def findings(self) -> list[Finding]:
        """What `verify` finds wrong."""
        with transaction() as session:
            audit.seal(session)
            while dispatch.dispatch_outbox(session, now=real_now(), limit=FACTS_AT_ONCE):
                pass
        with transaction() as session:
            return selfcheck.run(session)


@contextmanager
def house(database_url: str, home: Path, provider: ProviderFake) -> Iterator[House]:
    """The product on a database of its own, inside an application context; what it started is stopped, its settings stay in use."""
    app = make_bare_app(database_url, home, usage_rate_per_second=10_000_000)
    endpoint = UsageEndpoint(app.wsgi_app, config.current())
    metering = Metering(app, database_url, endpoint)
    aggregator = metering.aggregator(SegmentStore())
    counting = threading.Thread(target=aggregator.run)
    try:
        with charging_at(provider), app.app_context():
            ids = {code: metering.metric(code) for code in METRICS}
            counting.start()
            executioner = Executioner()
            event.listen(db.engine, "before_cursor_execute", executioner)
            yield House(app, metering, ids, provider, executioner)
    finally:
        aggregator.stop()
        counting.join(WAIT_SECONDS)
        endpoint.close()
        with app.app_context():
            db.engine.dispose()


def event_of(metric: str, key: str, at: Any, quantity: object) -> dict[str, Any]:
    """One usage event as customers send it."""
    return {"metric_name": metric, "idempotency_key": key, "timestamp": at.isoformat(), "quantity": str(quantity)}


def real_now() -> Any:
    """The machine's time."""
    return core_clock.now()
