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
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from ops.ingest_stack import METRICS, Stack, answering_204, stack, until
from ops.read_times import month_behind, timings

ROOT = Path(__file__).resolve().parents[1]
DRAIN_SECONDS_MAX = 120
BARE_ROWS = 200_000
AGGREGATOR_MIB = 2048
SHORT = 8
SINGLES_SEEDS = (3, 5, 7)
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


def reads(running: Stack, state: str, page_goal: float) -> None:
    """Summary of a month for one organization, and a page of 50 events behind one of its lines."""
    month, page = timings(running.url, METRICS[0], at=datetime.now(UTC) + timedelta(hours=1))
    say(f"usage_summary_p95{state}", month * 1000, "ms", goal=10 if state != "_at_load" else None, at_most=True)
    say(f"usage_events_page_p95{state}", page * 1000, "ms", goal=page_goal, at_most=True)


def sustained(
    running: Stack, name: str, *, seconds: int, rate: int, cpu_goal: float, p99_goal: float, busy: bool = False
) -> dict[str, Any]:
    """Offer `rate` events a second for that long and print what became of them; `busy`: with reads in the middle of it."""
    reader = threading.Timer(seconds / 2, reads, (running, "_at_load", 25.0))
    if busy:
        reader.start()
    report = load(running, seed=1, seconds=seconds, rate=rate)
    if busy:
        reader.join()
    say(f"{name}_sustained", report["events"] / seconds, "events/s", goal=rate * 0.97)
    drained = min(1.0, report["events"] / (rate * (seconds + report["drain"])))
    say(f"{name}_drained", drained, "of offered, within the time and its drain", goal=0.97)
    p50, p99 = freshness(running, report["began"])
    say(f"{name}_visible_p50", p50, "s", goal=0.5 if p99_goal <= 1 else None, at_most=True)
    say(f"{name}_visible_p99", p99, "s", goal=p99_goal, at_most=True)
    say(f"{name}_cpu", report["cpu_all"] / report["events"] * 1e6, "µs/event", goal=cpu_goal, at_most=True)
    for part, used in report["cpu_by"].items():
        say(f"{name}_cpu_{part}", used / report["events"] * 1e6, "µs/event")
    say(f"{name}_accept_p99", report["p99"] * 1000, "ms")
    say(f"{name}_aggregator_memory", running.memory("aggregator") / 2**20, "MiB", goal=AGGREGATOR_MIB, at_most=True)
    return report


def warmed(running: Stack) -> dict[str, Any]:
    """Some seconds of load before anything is measured, in which the web process loads its compiled code, as a report for verify()."""
    load(running, seed=9, seconds=5, rate=10_000, retries=0, duplicates=0)
    unique = running.one("SELECT count(*) FROM usage_events")
    return {"unique": unique, "total": str(running.one("SELECT sum(quantity) FROM usage_events"))}


def singles(running: Stack, seconds: float) -> list[dict[str, Any]]:
    """One event a request on 64 connections, and the same server answering 204 to the same requests: in turns, since machines are moody."""
    given = {"seconds": seconds, "batch": 1, "connections": 64, "retries": 0, "duplicates": 0}
    reports, bare = [], []
    with answering_204(running.folder) as port:
        for seed in SINGLES_SEEDS:
            reports.append(load(running, seed=seed, **given))
            bare.append(load(running, seed=seed, port=port, **given))
    rate, limit = (sum(one["requests"] for one in some) / sum(one["seconds"] for one in some) for some in (reports, bare))
    say("ingest_single_events", rate, "requests/s", goal=5_000)
    against = f"the same server answering 204, {limit:,.0f}/s"
    say("ingest_single_events_ratio", rate, "requests/s", goal=0.5, ratio=rate / limit, against=against)
    cpu, requests = (sum(one[name] for one in reports) for name in ("cpu_all", "requests"))
    say("ingest_single_events_cpu", cpu / max(1, requests) * 1e6, "µs/request")
    return reports


def usual(seconds: int, flat: int, rate: int) -> tuple[bool, float]:
    """A thousand organizations: sustained, flat out, one by one, reads and disk. Whether all is exact; CPU-µs an event."""
    with stack(1_000) as running:
        reports = [warmed(running)]
        steady = sustained(running, "ingest", seconds=seconds, rate=rate, cpu_goal=13, p99_goal=1.0, busy=True)
        burst = load(running, seed=2, seconds=flat)
        drained = burst["events"] / (burst["seconds"] + burst["drain"])
        bare = bare_copy(running)
        say("ingest_flat_out", drained, "events/s", goal=130_000)
        say("ingest_flat_out_ratio", drained, "events/s", goal=0.12, ratio=drained / bare, against=f"bare binary COPY, {bare:,.0f} rows/s")
        reports += [steady, burst, *singles(running, 2.5 if seconds > SHORT else 1)]
        disk = float(running.one(DISK)) / running.one("SELECT count(*) FROM usage_events")
        say("ingest_disk", disk, "bytes/event", goal=245, at_most=True)
        reads(running, "", 10.0)
        return verify(running, reports), steady["cpu_all"] / steady["events"] * 1e6


def many_organizations(seconds: int, rate: int) -> bool:
    """Ten thousand organizations, all equally busy: the worst case for rollups and index."""
    with stack(10_000) as running:
        reports = [warmed(running), sustained(running, "ingest_uniform", seconds=seconds, rate=rate, cpu_goal=15, p99_goal=2.0)]
        month_behind(running.url, before=datetime.now(UTC))
        reads(running, "_of_ten_thousand", 10.0)
        return verify(running, reports)


def many_keys(keys: int, seconds: int, rate: int, empty: float) -> bool:
    """The same load when that many keys were counted before; `empty` is the CPU-µs an event without them."""
    with stack(1_000, earlier_keys=keys) as running:
        first = warmed(running)
        report = load(running, seed=1, seconds=seconds, rate=rate)
        cost = report["cpu_all"] / report["events"] * 1e6
        say(
            "ingest_earlier_keys_cpu", cost, "µs/event", goal=1.3, at_most=True, ratio=cost / empty, against=f"no earlier keys, {empty:.1f}"
        )
        say("ingest_earlier_keys_memory", running.memory("aggregator") / 2**20, "MiB", goal=AGGREGATOR_MIB, at_most=True)
        return verify(running, [first, report])


def main(argv: list[str] | None = None) -> int:
    """Run all phases; exit 1 when a count is not exact."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench_ingest", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the sizes the goals are stated for")
    parser.add_argument("--rate", type=int, default=100_000, help="events offered a second")
    parser.add_argument("--keys", type=int, help="earlier keys of the last phase (2,000,000; 50,000,000 with --full)")
    given = parser.parse_args(argv)
    seconds, flat = (60, 20) if given.full else (SHORT, 4)
    keys = given.keys if given.keys is not None else 50_000_000 if given.full else 2_000_000
    exact, cost = usual(seconds, flat, given.rate)
    exact &= many_organizations(30 if given.full else SHORT, given.rate)
    exact &= many_keys(keys, 20 if given.full else SHORT, given.rate, cost)
    return 0 if exact else 1


if __name__ == "__main__":
    raise SystemExit(main())
