"""`python -m ops.bench_entitlements`: how long a decision takes in the server, authentication and JSON included.

10,000 customers on one plan with three limited metrics, two months of hourly usage each for those asked about. The application is
called in this process, one request at a time. Prints a JSON line; exits 1 if the goal is missed. `cpu` and `database_cpu` are the
processor's milliseconds a check in this process and in PostgreSQL's: a busy machine stretches the others more than these.
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
from sqlalchemy import text

from core import jobs
from core.audit import SYSTEM
from core.catalog import publish
from core.config import Settings
from core.db import transaction
from core.entitlements import limits
from core.identity import keys, organizations
from core.metering import metrics
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
        client: FlaskClient = app.test_client()
        ask(client, tokens, WARM_UP)
        backend = backend_of(app)
        before = time.process_time(), busy_seconds(backend)
        samples = ask(client, tokens, CHECKS)
        cpu, database_cpu = time.process_time() - before[0], busy_seconds(backend) - before[1]
    p95 = samples[int(len(samples) * 0.95)]
    line = {
        "name": "entitlement_check_p95",
        "value": round(p95, 2),
        "unit": "ms",
        "median": round(statistics.median(samples), 2),
        "cpu": round(cpu * 1000 / CHECKS, 2),
        "database_cpu": round(database_cpu * 1000 / CHECKS, 2),
        "against": f"{OTHERS + ASKED} customers, {CHECKS} checks in one process",
        "goal": f"<= {GOAL_MILLISECONDS}",
        "met": p95 <= GOAL_MILLISECONDS,
    }
    print(json.dumps(line), flush=True)
    return 0 if line["met"] else 1


def ask(client: FlaskClient, tokens: list[str], count: int) -> list[float]:
    """So many checks, customer after customer and metric after metric; the time of each, shortest first."""
    return sorted(milliseconds(client, tokens[n % len(tokens)], METRICS[n % len(METRICS)]) for n in range(count))


def backend_of(app: Flask) -> int:
    """The process of PostgreSQL that answers this one: one request at a time is one connection."""
    with app.app_context(), transaction() as session:
        return int(session.scalar(text("SELECT pg_backend_pid()")) or 0)


def busy_seconds(pid: int) -> float:
    """Processor time that a process of this machine has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def milliseconds(client: FlaskClient, token: str, metric: str) -> float:
    """One check."""
    began = time.perf_counter()
    answer = client.get(f"/api/v1/entitlements/check?metric={metric}&quantity=5", headers={"Authorization": f"Bearer {token}"})
    took = time.perf_counter() - began
    if answer.status_code != 200 or answer.json is None or answer.json["limit"] != "1000000":
        raise RuntimeError(answer.text)
    return took * 1000


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
        connection.execute("ANALYZE")
    return tokens


if __name__ == "__main__":
    sys.exit(main())
