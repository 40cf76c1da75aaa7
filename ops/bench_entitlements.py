"""`python -m ops.bench_entitlements`: how long a decision takes in the server, authentication and JSON included.

10,000 customers on one plan with three limited metrics, two months of hourly usage each for those asked about, its days added up as the
aggregator does it. The application is called in this process, one request at a time; measured is what it does from the request to the
answer. Prints JSON lines; exits 1 if a goal is missed. `cpu` and `database_cpu` are the processor's milliseconds a check in this process
and in PostgreSQL's: a busy machine stretches the others more than these.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dramatiq
import psycopg
from dramatiq.brokers.stub import StubBroker
from flask import Flask
from flask.testing import FlaskClient

from core import jobs
from core.audit import SYSTEM
from core.catalog import publish
from core.config import Settings
from core.db import transaction
from core.entitlements import limits
from core.identity import keys, organizations
from core.metering import daily, metrics
from core.metering.aggregate import DAYS_HOURLY
from core.metering.models import LimitAction, LimitPeriod, LimitSource
from core.subscriptions import lifecycle
from ops.bench_invoices import throwaway_database
from wsgi import create_app

OTHERS, ASKED, CHECKS, WARM_UP = 10_000, 20, 1_000, 100
GOAL_MILLISECONDS = 5.0
METRICS = ("calls", "input_tokens", "output_tokens")
AT = datetime.now(UTC)
USAGE = """INSERT INTO usage_rollups (organization_number, metric_number, hour, group_key, events, quantity, first_at, last_at, last_batch,
  last_position) SELECT o.number, m.number, h, '', 9, 9, h, h + interval '59 minutes', 1, 0 FROM organizations o, metrics m,
  generate_series(date_trunc('hour', %(at)s::timestamptz) - %(hours)s * interval '1 hour', %(at)s::timestamptz, interval '1 hour') h
  WHERE o.slug LIKE %(slug)s"""


def main() -> int:
    """Measure and print; 0 if the goal is met."""
    with throwaway_database() as url:
        broker = StubBroker()
        broker.declare_queue(jobs.QUEUE)
        dramatiq.set_broker(broker)
        app = create_app(Settings(environment="test", database_url=url, api_rate_per_second=1_000_000))
        tokens = prepare(app, url)
        server = Server(app.wsgi_app)
        app.wsgi_app = server  # type: ignore[method-assign]
        client: FlaskClient = app.test_client()
        ask(client, tokens, WARM_UP)
        server.samples.clear()
        backends = backends_of(url)
        before = busy_seconds(backends)
        ask(client, tokens, CHECKS)
        database_cpu = busy_seconds(backends) - before
    took = sorted(milliseconds for milliseconds, _ in server.samples)
    cpu = {"cpu": round(statistics.mean(used for _, used in server.samples), 2), "database_cpu": round(database_cpu * 1000 / CHECKS, 2)}
    met = [report("p50", statistics.median(took), **cpu), report("p95", took[int(CHECKS * 0.95)], **cpu)]
    return 0 if all(met) else 1


def report(part: str, milliseconds: float, **cpu: float) -> bool:
    """Print a line; whether it meets the goal."""
    line = {
        "name": f"entitlement_check_{part}",
        "value": round(milliseconds, 2),
        "unit": "ms",
        **cpu,
        "against": f"{OTHERS + ASKED} customers, {CHECKS} checks in one process",
        "goal": f"<= {GOAL_MILLISECONDS}",
        "met": milliseconds <= GOAL_MILLISECONDS,
    }
    print(json.dumps(line), flush=True)
    return bool(line["met"])


class Server:
    """A WSGI application around the product's that notes the milliseconds of each answer: on the wall's clock, and the processor's."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.samples: list[tuple[float, float]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        began = time.perf_counter(), time.thread_time()
        answer = self._inner(environ, start_response)
        self.samples.append(((time.perf_counter() - began[0]) * 1000, (time.thread_time() - began[1]) * 1000))
        return answer


def ask(client: FlaskClient, tokens: list[str], count: int) -> None:
    """So many checks, customer after customer and metric after metric."""
    for n in range(count):
        check(client, tokens[n % len(tokens)], METRICS[n % len(METRICS)])


def backends_of(url: str) -> list[int]:
    """The processes of PostgreSQL that answer this one."""
    with psycopg.connect(url) as connection:
        asked = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        return [row[0] for row in connection.execute(asked)]


def busy_seconds(pids: list[int]) -> float:
    """Processor time that these processes of this machine have used."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def check(client: FlaskClient, token: str, metric: str) -> None:
    """One."""
    answer = client.get(f"/api/v1/entitlements/check?metric={metric}&quantity=5", headers={"Authorization": f"Bearer {token}"})
    if answer.status_code != 200 or answer.json is None or answer.json["limit"] != "1000000" or answer.json["used"] == "0":
        raise RuntimeError(answer.text)


def prepare(app: Flask, url: str) -> list[str]:
    """Customers, their plan and limits, their usage; tokens of those asked about."""
    tokens = []
    with app.app_context(), transaction() as session:
        for code in METRICS:
            metrics.create(session, code=code, name=code, aggregation="sum", actor=SYSTEM, at=AT)
        wanted = dict.fromkeys(METRICS, 1_000_000)
        publish.create_version(
            session, code="pro", name="Pro", currency="EUR", billing_period="month", base_price="99", limits=wanted, actor=SYSTEM, at=AT
        )
        for number in range(ASKED):
            customer = organizations.create(
                session,
                name=f"Asked {number}",
                slug=f"asked-{number}",
                billing_email="a@b.example",
                currency="EUR",
                timezone="Europe/Berlin",
                billing_address={"country": "DE"},
                actor=SYSTEM,
                at=AT,
            )
            lifecycle.start(session, customer.id, plan="pro", at=AT - timedelta(days=20), actor=SYSTEM)
            limits.set_limit(
                session,
                customer.id,
                metric=metrics.find(session, "calls"),
                value=Decimal(10_000_000),
                period=LimitPeriod.DAILY,
                action=LimitAction.BLOCK,
                source=LimitSource.CUSTOMER,
                actor=SYSTEM,
                at=AT,
                now=AT,
            )
            given: dict[str, Any] = {"name": "bench", "mode": "test", "scopes": ["billing:read"], "actor": SYSTEM, "at": AT}
            tokens.append(keys.create(session, organization_id=customer.id, **given)[1])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            """INSERT INTO organizations (name, slug, billing_email, currency, timezone, billing_address)
            SELECT 'Other', 'other-' || n, 'a@b.example', 'EUR', 'UTC', '{}' FROM generate_series(1, %s) n""",
            (OTHERS,),
        )
        connection.execute(USAGE, {"at": AT, "hours": 60 * 24, "slug": "asked-%"})
        connection.execute(USAGE, {"at": AT, "hours": 10, "slug": "other-%"})
        with connection.transaction():
            daily.add_up(
                connection, until=AT.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS_HOURLY), days_max=100
            )
        connection.execute("ANALYZE")
    return tokens


if __name__ == "__main__":
    sys.exit(main())
