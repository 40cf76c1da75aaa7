"""Counted usage without the log: events stored and added to the rollups as the aggregator does it, in a transaction that is rolled back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from psycopg import Connection, sql
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.identity.models import Organization
from core.metering import daily, metrics, rollups
from core.metering.backfill import Tallies
from core.metering.counting import HOUR_MICROS, tally
from core.metering.instants import micros
from core.metering.meters import Event, meter
from core.metering.models import Metric, usage_event_names

INSERT = """INSERT INTO usage_events ("timestamp", received_at, batch_id, organization_number, event_number, position, quantity,
  idempotency_key, properties) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"""
AT = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
_numbers = itertools.count(1)


@dataclass
class Store:
    """What a test writes with."""

    session: Session
    event_name: str = field(default_factory=lambda: f"happened-{next(_numbers)}")
    metrics: list[Metric] = field(default_factory=list)
    batches: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def connection(self) -> Connection[Any]:
        """The session's own connection."""
        found: Connection[Any] = self.session.connection().connection.driver_connection  # type: ignore[assignment]
        return found

    def metric(self, aggregation: str, **given: Any) -> Metric:
        """A metric that reads the store's events and counts those stored from now on."""
        code = f"{aggregation}-{next(_numbers)}"
        given = {"event_name": self.event_name, **given}
        made = metrics.create(self.session, code=code, name=code, aggregation=aggregation, actor=SYSTEM, at=AT, **given)
        made.counted_at = AT
        self.session.flush()
        self.metrics.append(made)
        return made

    def count(self, organization: Organization, events: Iterable[tuple[datetime, Mapping[str, Any]]]) -> None:
        """Store one batch of events and add it to the rollups of every metric of the store, days long past included."""
        batch = next(self.batches)
        tallies: Tallies = {}
        meters = [meter(metric) for metric in self.metrics]
        number = self.session.query(usage_event_names.c.number).filter_by(name=self.event_name).scalar()
        rows = []
        for position, (at, properties) in enumerate(events):
            quantity = Decimal(properties.get("quantity", 1))
            event = Event(at, (batch, position), quantity, properties)
            for one in meters:
                tally(tallies, one, organization.number, micros(at) // HOUR_MICROS * HOUR_MICROS, event)
            raw = msgspec.json.encode(properties)
            rows.append((at, at, batch, organization.number, number, position, quantity, f"{batch}-{position}", raw))
        with self.connection.cursor() as cursor:
            cursor.executemany(INSERT, rows)
        rollups.prepare(self.connection)
        rollups.write_changes(self.connection, None, tallies)
        for name in ("flush_sums", "flush_tallies", "flush_values", "flush_counts"):
            self.connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(name)))

    def add_up(self, until: datetime) -> int:
        """Add up every day that ends by then; how many."""
        return daily.add_up(self.connection, until=until, days_max=1000)
