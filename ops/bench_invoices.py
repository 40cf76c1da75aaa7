"""`python -m ops.bench_invoices`: invoices per second of a run over 10,000 subscriptions, against a bare COPY of the same rows.

A PostgreSQL of its own with durable commits; five lines an invoice (flat, graduated, volume, package, per unit), usage in rollups, tax.
The run is the product's own: rate in sets, refresh, number, ledger, audit. The bare loop copies the very rows the run wrote into tables
with the same columns and indexes, a commit per thousand invoices. Prints JSON lines; exits 1 if a goal is missed or a book is wrong.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dramatiq
import psycopg
from dramatiq.brokers.stub import StubBroker
from flask import Flask
from psycopg import sql

from core import audit, config, jobs, schema, selfcheck
from core.audit import SYSTEM
from core.config import Settings
from core.db import db, engine_options, transaction
from core.invoicing import run
from ops import migrate, ports, postgres

SUBSCRIPTIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
SET_SIZE = min(1_000, SUBSCRIPTIONS)
GOAL_PER_SECOND = 100
AS_OF = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
START = (AS_OF - timedelta(days=1)).replace(day=1)
WRITTEN = ("invoices", "invoice_lines", "invoice_taxes", "ledger_transactions", "postings", "audit_events", "outbox")
TIERS = '[{"up_to": "1000", "unit_price": "0.01"}, {"up_to": "5000", "unit_price": "0.008"}, {"up_to": null, "unit_price": "0.005"}]'
MODELS = {
    "flat": '{"model": "flat", "flat_price": "99.00"}',
    "graduated": f'{{"model": "graduated", "tiers": {TIERS}}}',
    "volume": f'{{"model": "volume", "tiers": {TIERS}}}',
    "package": '{"model": "package", "package_size": "1000", "package_price": "0.40"}',
    "per_unit": '{"model": "per_unit", "unit_price": "0.000008"}',
}


def main() -> int:
    """Measure and print; 0 if the goal is met and the books are right."""
    with throwaway_database() as url, application(url).app_context():
        prepare(url)
        rating, finalizing = measure(rate), measure(finalize)
        with transaction() as session:
            audit.seal(session)
        with transaction() as session:
            wrong = [finding for finding in selfcheck.run(session) if finding.code != "V18-audit-chain"]
        bare = bare_copy(url)
    if wrong:
        print(wrong[:5], file=sys.stderr)
        return 1
    met = report("invoice_run", rating + finalizing, bare, GOAL_PER_SECOND)
    report("invoice_run_rating", rating, bare, None)
    report("invoice_run_finalizing", finalizing, bare, None)
    return 0 if met else 1


def measure(stage: Callable[[], int]) -> float:
    """Seconds the stage took; it must have handled every subscription."""
    began = time.perf_counter()
    handled = stage()
    took = time.perf_counter() - began
    if handled != SUBSCRIPTIONS:
        raise RuntimeError(f"{stage.__name__} handled {handled} of {SUBSCRIPTIONS}")
    return took


def rate() -> int:
    """Start a run and rate everything due; returns the number of drafts."""
    with transaction() as session:
        run_id = run.start(session, as_of=AS_OF, actor=SYSTEM, at=AS_OF).id
    after: uuid.UUID | None = None
    while True:
        with transaction() as session:
            after = run.rate_set(session, run_id, after_id=after, at=AS_OF, actor=SYSTEM)
        if after is None:
            break
    with transaction() as session:
        return sum(total.drafts for total in run.totals(session, run_id))


def finalize() -> int:
    """Finalize the run; returns the number of issued invoices."""
    with transaction() as session:
        run_id = run.request_finalize(session, run.runs(session)[0].id, at=AS_OF, actor=SYSTEM).id
    more = True
    while more:
        with transaction() as session:
            more = run.finalize_set(session, run_id, at=AS_OF, actor=SYSTEM)
    with transaction() as session:
        return sum(total.issued for total in run.totals(session, run_id))


def bare_copy(url: str) -> float:
    """Seconds to copy the rows the run wrote into tables like those it wrote them to, a commit per thousand invoices' share."""
    with psycopg.connect(url, autocommit=True) as connection:
        chunks = {table: _chunks(connection, table) for table in WRITTEN}
        for table in WRITTEN:
            like = sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING INDEXES)")
            connection.execute(like.format(sql.Identifier(f"bare_{table}"), sql.Identifier(table)))
        began = time.perf_counter()
        for number in range(SUBSCRIPTIONS // SET_SIZE):
            with connection.transaction():
                for table in WRITTEN:
                    _copy_in(connection, f"bare_{table}", chunks[table][number])
        return time.perf_counter() - began


def _chunks(connection: psycopg.Connection, table: str) -> list[bytes]:
    """The table's rows as COPY text, in as many parts as there are sets."""
    with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))) as out:
        rows = b"".join(out).splitlines(keepends=True)
    sets = SUBSCRIPTIONS // SET_SIZE
    return [b"".join(rows[len(rows) * i // sets : len(rows) * (i + 1) // sets]) for i in range(sets)]


def _copy_in(connection: psycopg.Connection, table: str, rows: bytes) -> None:
    with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))) as copy:
        copy.write(rows)


def report(name: str, seconds: float, bare_seconds: float, goal: int | None) -> bool:
    """Print the line of one measure; whether its goal, in invoices per second, is met."""
    ratio, rate_per_second = bare_seconds / seconds, SUBSCRIPTIONS / seconds
    line = {
        "name": name,
        "value": round(rate_per_second),
        "unit": "invoices/s",
        "ratio": round(ratio, 3),
        "against": f"bare COPY of the same rows with the same indexes, {SUBSCRIPTIONS / bare_seconds:.0f} invoices/s",
        "goal": None if goal is None else f">= {goal}",
        "met": None if goal is None else rate_per_second >= goal,
    }
    print(json.dumps(line), flush=True)
    return goal is None or rate_per_second >= goal


@contextmanager
def throwaway_database() -> Iterator[str]:
    """A migrated database whose commits are durable, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="vvb-", dir=postgres.SHARED))
    folder.chmod(0o755)
    settings = {"max_wal_size": "4GB", "shared_buffers": "512MB", "max_connections": "20"}
    cluster = postgres.Cluster(folder / "pg", ports.free(), secrets.token_urlsafe(16), settings)
    try:
        cluster.create()
        cluster.start(folder / "postgres.log")
        migrate.upgrade(cluster.url())
        yield cluster.url()
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def application(url: str) -> Flask:
    """Settings and database, nothing else."""
    settings = config.use(Settings(environment="test", database_url=url))
    broker = StubBroker()  # the measure does the work itself
    broker.declare_queue(jobs.QUEUE)
    dramatiq.set_broker(broker)
    app = Flask("bench")
    app.config.update(
        SETTINGS=settings, SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINE_OPTIONS=engine_options(2, statement_seconds_max=300)
    )
    schema.load_models()
    db.init_app(app)
    return app


def prepare(url: str) -> None:
    """Ten thousand customers in Germany on one plan billed in arrears, a month of usage of four metrics in hourly rollups."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO organizations (name, slug, billing_email, currency, timezone, billing_address, auto_collect)"
            " SELECT 'Customer ' || n, 'customer-' || n, 'billing' || n || '@customer.example', 'EUR', 'UTC', %s, false"
            " FROM generate_series(1, %s) n",
            ['{"country": "DE"}', SUBSCRIPTIONS],
        )
        connection.execute(
            "INSERT INTO metrics (code, name, unit, aggregation, event_name, counted_at)"
            " SELECT name, initcap(name), 'unit', 'sum', name, now() FROM unnest(%s::text[]) name",
            [[name for name in MODELS if name != "flat"]],
        )
        connection.execute("INSERT INTO subscription_plans (code, name, currency) VALUES ('scale', 'Scale', 'EUR')")
        connection.execute(
            "INSERT INTO plan_versions (plan_id, version, status, base_price, billing_mode, billing_period, proration, credit_policy)"
            " SELECT id, 1, 'live', 99, 'in_arrears', 'month', 'seconds', 'credit' FROM subscription_plans"
        )
        for position, (name, model) in enumerate(MODELS.items()):
            connection.execute(
                "INSERT INTO pricing_rules (plan_version_id, code, name, kind, metric_id, model, rules, billing_mode, position)"
                " SELECT v.id, %(name)s, initcap(%(name)s), CASE WHEN m.id IS NULL THEN 'recurring' ELSE 'usage' END, m.id, %(name)s,"
                " %(model)s, 'in_arrears', %(position)s FROM plan_versions v LEFT JOIN metrics m ON m.code = %(name)s",
                {"name": name, "model": model, "position": position},
            )
        connection.execute(
            "INSERT INTO subscriptions (organization_id, plan_id, status, currency, anchor_mode, started_at, next_bill_at)"
            " SELECT o.id, p.id, 'active', 'EUR', 'anniversary', %(start)s, %(due)s FROM organizations o, subscription_plans p",
            {"start": START, "due": AS_OF},
        )
        connection.execute(
            "INSERT INTO subscription_terms (organization_id, subscription_id, plan_version_id, start_at, anchor_day, interval, timezone)"
            " SELECT s.organization_id, s.id, v.id, %s, %s, 'month', 'UTC' FROM subscriptions s, plan_versions v",
            [START, START.date()],
        )
        connection.execute(
            "INSERT INTO usage_rollups"
            " (organization_number, metric_number, hour, events, quantity, first_at, last_at, last_batch, last_position)"
            " SELECT o.number, m.number, h, 1, (o.number * 7 + m.number * 13) %% 997, h, h, 1, 0"
            " FROM organizations o, metrics m, generate_series(%s::timestamptz, %s::timestamptz, '2 days') h",
            [START, AS_OF - timedelta(days=1)],
        )
        connection.execute("ANALYZE")


if __name__ == "__main__":
    sys.exit(main())
