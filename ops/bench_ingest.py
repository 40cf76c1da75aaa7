"""`make bench-ingest`: usage from HTTP to counted rows and rollups, on this machine alone.

PostgreSQL (durable), web server, aggregator and load generator share the machine. The load has 5 % repeated keys and 1 % repeated
batches; at the end the counted events and their sum must be exact, or the bench fails. Prints a JSON line per figure.
`--full` runs the sizes the goals are stated for (minutes); without it every phase lasts a few seconds.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from ops.ingest_stack import METRICS, Stack, stack, until
from ops.read_times import timings

ROOT = Path(__file__).resolve().parents[1]
DRAIN_SECONDS_MAX = 120
BARE_ROWS = 200_000
DISK = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname ~ '^usage_(events|batches|dedup_segments)' AND relkind = 'r'"


def say(
    name: str,
    value: float,
    unit: str,
    *,
    goal: float | None = None,
    at_most: bool = False,
    ratio: float | None = None,
    against: str | None = None,
) -> bool:
    """Print one figure; whether it met its goal (with a ratio, the ratio is what is judged)."""
    judged = value if ratio is None else ratio
    met = goal is None or (judged <= goal if at_most else judged >= goal)
    line = {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "ratio": ratio and round(ratio, 4),
        "against": against,
        "goal": goal,
        "met": met,
    }
    print(json.dumps(line), flush=True)
    return met


def load(running: Stack, **given: Any) -> dict[str, Any]:
    """Run the generator by a plan; what it reports, and the CPU seconds of everything meanwhile."""
    organizations = running.one("SELECT count(*) FROM organizations")
    plan = {
        "path": "/api/v1/billing/usage", "port": running.port, "token": running.token, "metrics": METRICS, "batch": 1000, "rate": 0,
        "organizations": [f"bench-{i}" for i in range(1, organizations + 1)], "duplicates": 0.05, "retries": 0.01,
        "connections": 8, **given,
    }  # fmt: skip
    path = running.folder / "plan.json"
    path.write_text(json.dumps(plan))
    before, began = running.cpu(), datetime.now(UTC)
    done = subprocess.run([sys.executable, "-m", "ops.ingest_load", str(path)], cwd=ROOT, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    stopped = time.monotonic()
    until(lambda: not running.one("SELECT EXISTS (SELECT FROM usage_pending)"), "the backlog is counted", DRAIN_SECONDS_MAX)
    report["drain"] = time.monotonic() - stopped
    after = running.cpu()
    report["cpu_by"] = {**{name: after[name] - before[name] for name in before}, "generator": report["cpu"]}
    report["cpu_all"] = sum(report["cpu_by"].values())
    report["began"] = began
    return report


def freshness(running: Stack, since: datetime) -> tuple[float, float]:
    """p50 and p99 over events, in seconds, from the acceptance of a batch to the commit that counted it."""
    query = """SELECT percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM r.counted_at - b.received_at))
        FROM usage_batch_results r JOIN usage_batches b ON b.id = r.batch_id WHERE b.received_at >= %s"""
    p50, p99 = running.one(query, since)
    return float(p50), float(p99)


def verify(running: Stack, reports: list[dict[str, Any]]) -> bool:
    """Count and sum of the rows and of the rollups are exactly what was acknowledged."""
    unique, total = sum(report["unique"] for report in reports), sum(Decimal(report["total"]) for report in reports)
    with psycopg.connect(running.url) as connection:
        rows = connection.execute("SELECT count(*), coalesce(sum(quantity), 0) FROM usage_events").fetchone()
        sums = connection.execute("SELECT coalesce(sum(events), 0), coalesce(sum(quantity), 0) FROM usage_rollups").fetchone()
    exact = rows == (unique, total) == sums
    print(
        json.dumps(
            {
                "name": "exact",
                "expected": [unique, str(total)],
                "rows": list(map(str, rows or ())),
                "rollups": list(map(str, sums or ())),
                "met": exact,
            }
        ),
        flush=True,
    )
    return exact


def bare_copy(running: Stack) -> float:
    """Rows a second of a binary COPY of the same rows into a heap without indexes."""
    with psycopg.connect(running.url, autocommit=True) as connection:
        buffer = io.BytesIO()
        with connection.cursor().copy(f"COPY (SELECT * FROM usage_events LIMIT {BARE_ROWS}) TO STDOUT (FORMAT binary)") as copy:
            for part in copy:
                buffer.write(part)
        rows = connection.execute(f"SELECT count(*) FROM (SELECT FROM usage_events LIMIT {BARE_ROWS}) s").fetchone()
        connection.execute("CREATE TABLE bare (LIKE usage_events)")
        best = 0.0
        for _ in range(3):
            connection.execute("TRUNCATE bare")
            began = time.monotonic()
            with connection.cursor().copy("COPY bare FROM STDIN (FORMAT binary)") as copy:
                copy.write(buffer.getvalue())
            best = max(best, (rows[0] if rows else 0) / (time.monotonic() - began))
        connection.execute("DROP TABLE bare")
    return best


def reads(running: Stack) -> bool:
    """Summary of a month for one organization, and a page of 50 events behind one of its lines."""
    month, page = timings(running.url, METRICS[0], at=datetime.now(UTC) + timedelta(hours=1))
    met = say("usage_summary_p95", month * 1000, "ms", goal=10, at_most=True)
    return say("usage_events_page_p95", page * 1000, "ms", goal=10, at_most=True) and met


def main(argv: list[str] | None = None) -> int:
    """Run all phases; exit 1 when a count is not exact."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench_ingest", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the sizes the goals are stated for")
    parser.add_argument("--organizations", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=100_000, help="events offered a second")
    given = parser.parse_args(argv)
    sustained, flat = (60, 20) if given.full else (8, 5)
    with stack(given.organizations) as running:
        load(running, seed=9, seconds=1, rate=5_000, retries=0, duplicates=0)
        warm = running.one("SELECT count(*) FROM usage_events"), running.one("SELECT sum(quantity) FROM usage_events")
        reports = [{"unique": warm[0], "total": str(warm[1])}]
        steady = load(running, seed=1, seconds=sustained, rate=given.rate)
        offered = steady["events"] / sustained
        say("ingest_sustained", offered, "events/s", goal=given.rate * 0.97)
        p50, p99 = freshness(running, steady["began"])
        say("ingest_visible_p50", p50, "s", goal=0.5, at_most=True)
        say("ingest_visible_p99", p99, "s", goal=1.0 if given.organizations <= 1000 else 2.0, at_most=True)
        say(
            "ingest_cpu",
            steady["cpu_all"] / steady["events"] * 1e6,
            "µs/event",
            goal=13 if given.organizations <= 1000 else 15,
            at_most=True,
        )
        for name, seconds in steady["cpu_by"].items():
            say(f"ingest_cpu_{name}", seconds / steady["events"] * 1e6, "µs/event")
        say("ingest_accept_p99", steady["p99"] * 1000, "ms")
        burst = load(running, seed=2, seconds=flat)
        drained = burst["events"] / (burst["seconds"] + burst["drain"])
        bare = bare_copy(running)
        say("ingest_flat_out", drained, "events/s", goal=0.12, ratio=drained / bare, against=f"bare binary COPY, {bare:,.0f} rows/s")
        singles = load(running, seed=3, seconds=5, batch=1, connections=64, retries=0, duplicates=0)
        say("ingest_single_events", singles["requests"] / singles["seconds"], "requests/s", goal=5_000)
        say(
            "ingest_disk",
            float(running.one(DISK)) / running.one("SELECT count(*) FROM usage_events"),
            "bytes/event",
            goal=245,
            at_most=True,
        )
        reads(running)
        return 0 if verify(running, [*reports, steady, burst, singles]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
