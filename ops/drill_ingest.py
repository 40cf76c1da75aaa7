"""`make drill-ingest`: what becomes of usage when clients, processes, the database and senders of nonsense do their worst.

Every drill runs against the product's own processes and prints a JSON line; the exit status is 1 when one of them lost, doubled or
refused what it must not, or was slower than its bound. `--scale 0.01` runs all of them in seconds, `--only NAME` one of them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import zstandard

from core.metering import columns, partitions
from core.metering.texts import texts
from ops.drill_report import Report, Size, judge
from ops.drill_senders import Senders, batches, post
from ops.drill_site import CARELESS, Site, site
from ops.ingest_stack import METRICS, until

ORGANIZATIONS = 20
BATCH = 250
RECOVERY_SECONDS_MAX, VISIBLE_SECONDS_MAX, BOMB_MIB_MAX = 5.0, 1.0, 20.0
INFLATED = 100_000_000


def cut_answers(where: Site, size: Size) -> Report:
    """Each event is sent 1 to 5 times by 16 clients, and 30 % of the answers never arrive whole."""
    work = [*batches("cut-100", size.of(100_000, 2_000), 100, ORGANIZATIONS), *batches("cut-1", size.of(2_000, 200), 1, ORGANIZATIONS)]
    where.front.cut_share, where.front.cuts = 0.3, 0
    senders = Senders(where.front.port, where.token, work, repeats=5)
    try:
        senders.start()
        senders.finish(size.seconds_max)
    finally:
        where.front.cut_share = 0.0
    report = judge(where, size, "cut", work, senders.acknowledged)
    report.figures |= {"answers_cut": where.front.cuts, "requests": senders.answers.total()}
    report.check(where.front.cuts > 0, "no answer was cut")
    return report


def kills(where: Site, size: Size) -> Report:
    """Web server, aggregator and database are killed with -9 again and again, at random moments, while events come in."""
    work = [*batches("kill-250", size.of(500_000, 8_000), BATCH, ORGANIZATIONS), *batches("kill-1", size.of(20_000, 500), 1, ORGANIZATIONS)]
    times = (("web", 50, 1), ("aggregator", 50, 1), ("postgres", 20, 1))
    plan = [name for name, full, least in times for _ in range(size.of(full, least))]
    rng = random.Random(3)
    rng.shuffle(plan)
    senders = Senders(where.web_port, where.token, work, clients=8)
    senders.start()
    began, events = time.monotonic(), sum(len(batch.keys) for batch in work)
    for number, name in enumerate(plan):
        due = events * (number + rng.random()) / (len(plan) + 1)
        until(lambda due=due: len(senders.acknowledged) >= due, "clients get on", size.seconds_max)  # type: ignore[misc]
        if name != "postgres":
            where.wait(name)
        where.kill(name)
        where.restart(name)
    senders.finish(size.seconds_max)
    for name in ("web", "aggregator"):
        where.wait(name)
    report = judge(where, size, "kill", work, senders.acknowledged)
    report.figures |= {"kills": len(plan), "answers": _shown(senders), "seconds": round(time.monotonic() - began, 1)}
    return report


def control(where: Site, size: Size) -> Report:
    """The same judgement of a server that acknowledges before the commit is on disk: the drill must see a loss."""
    work = batches("careless", size.of(100_000, 4_000), 50, ORGANIZATIONS)
    where.application = "ops.drill_site:careless"
    where.cluster.settings = {**where.cluster.settings, **CARELESS}
    where.pause("aggregator")  # its own commits would carry those of the log to the disk
    for name in ("web", "postgres"):
        where.kill(name)
    where.restart("postgres")
    where.restart("web")
    where.wait("web")
    senders = Senders(where.web_port, where.token, work, clients=4)
    senders.start()
    for _ in range(size.of(5, 2)):
        enough = len(senders.acknowledged) + sum(len(batch.keys) for batch in work) // 8
        until(lambda enough=enough: len(senders.acknowledged) >= enough or not senders.running(), "clients get on", size.seconds_max)  # type: ignore[misc]
        where.kill("postgres")
        where.restart("postgres")
    senders.finish(size.seconds_max)
    where.resume("aggregator")
    where.wait("aggregator")
    seen = judge(where, size, "careless", work, senders.acknowledged)
    report = Report(seen.figures)
    report.check(seen.figures["lost"] > 0, "the control lost nothing: the drill proves nothing")
    return report


def shifted(where: Site, size: Size) -> Report:
    """The same keys come back with timestamps spread over three months: what is too old is refused, nothing counts again."""
    count, now = size.of(10_000, 500), datetime.now(UTC)
    before = where.one("SELECT count(*) FROM usage_events")
    statuses = set()
    for days in (0, 1, 7, 20, 34, 36, 60, 90):
        at = (now - timedelta(days=days)).isoformat()
        for start in range(0, count, 1_000):
            events = [
                {"organization_id": "bench-1", "metric_name": METRICS[0], "idempotency_key": f"shift-{i}", "timestamp": at}
                for i in range(start, min(start + 1_000, count))
            ]
            statuses.add((days > 35, post(where.web_port, where.token, json.dumps(events).encode())[0]))
    where.drain(size.seconds_max)
    extra = where.one("SELECT count(*) FROM usage_events") - before - count
    report = Report({"keys": count, "extra": extra})
    report.check(statuses == {(False, 202), (True, 422)}, f"answers: {sorted(statuses)}")
    report.check(extra == 0, "keys counted again")
    return report


def midnight(where: Site, size: Size) -> Report:
    """A day has begun whose partitions nobody has made: every event is taken."""
    for table in partitions.PARTITIONED:
        today = partitions.partition(table, datetime.now(UTC).date())
        moved = f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM {today}"
        where.change(f"ALTER TABLE {table} DETACH PARTITION {today}", moved, f"DROP TABLE {today}")
    work = batches("midnight", size.of(20_000, 1_000), BATCH, ORGANIZATIONS)
    senders = Senders(where.web_port, where.token, work, clients=4)
    senders.start()
    senders.finish(size.seconds_max)
    report = judge(where, size, "midnight", work, senders.acknowledged)
    report.figures["in_default"] = where.one("SELECT count(*) FROM usage_events_default")
    report.check(set(senders.answers) == {202}, f"events were refused: {_shown(senders)}")
    report.check(report.figures["in_default"] > 0, "the day had its partition after all")
    return report


def poison(where: Site, size: Size) -> Report:
    """A batch that cannot be read and one that cannot be written lie among good ones: they are set aside, the others counted at once."""
    where.wait("aggregator")
    quarantined = where.one("SELECT count(*) FROM usage_quarantine")
    work = batches("poison", size.of(5_000, 500), 50, ORGANIZATIONS)
    with psycopg.connect(where.cluster.url()) as gate:
        gate.execute("SELECT epoch FROM usage_state FOR UPDATE")  # no flush begins before the damage is done
        ids = [int(json.loads(post(where.web_port, where.token, batch.body)[1])["batch_id"]) for batch in work]
        damaged = {len(ids) // 2: lambda _: b"x", len(ids) // 3: unwritable}
        for place, damage in damaged.items():
            payload = gate.execute("SELECT payload FROM usage_batches WHERE id = %s", (ids[place],)).fetchall()[0][0]
            gate.execute("UPDATE usage_batches SET payload = %s WHERE id = %s", (damage(payload), ids[place]))
    began = time.monotonic()
    good = sum(len(batch.keys) for place, batch in enumerate(work) if place not in damaged)
    until(
        lambda: (where.one("SELECT sum(counted) FROM usage_batch_results WHERE batch_id = ANY(%s)", ids) or 0) >= good,
        "the good ones are counted",
        size.seconds_max,
    )
    seconds = time.monotonic() - began
    where.drain(size.seconds_max)
    report = Report(
        {"good": good, "quarantined": where.one("SELECT count(*) FROM usage_quarantine") - quarantined, "seconds": round(seconds, 2)}
    )
    report.check(report.figures["quarantined"] == len(damaged), "other batches were set aside than were damaged")
    if seconds > VISIBLE_SECONDS_MAX:
        report.slow.append("the good batches were not visible within a second")
    return report


def unwritable(payload: bytes) -> bytes:
    """A batch with a key that can be read and not be written: PostgreSQL's texts hold no NUL."""
    batch = columns.unpack(payload)
    keys = [b"a\0b", *batch.texts.all_keys()[1:]]
    return columns.pack(replace(batch, texts=texts(keys, batch.texts.all_properties())))


def bombs(where: Site, size: Size) -> Report:
    """Small bodies that would become big, deep or dear: each is refused, and the web server's memory stays where it was."""
    inflated, deep = b"[" + b" " * INFLATED, 500_000
    event = b'{"organization_id":"bench-1","metric_name":"metric_0","idempotency_key":"bomb","quantity":%s}'
    sent = [
        (gzip.compress(inflated), "gzip"), (zstandard.compress(inflated), "zstd"), (gzip.compress(gzip.compress(inflated)), "gzip"),
        (b"[" * deep, ""), (b'{"a":' * deep, ""), (b"[" * deep + b"]" * deep, ""), (b"[" + b"{}," * deep + b"{}]", ""),
        *((event % number, "") for number in (b"1e999999", b"9" * 100_000, b"-0.1", b"NaN", b'"0x1p9"', b'"1_000"', b"1e-400")),
        (event % b'"\xd9\xa1"', ""), (event % b"1" + b"\x00", ""),
        (event.replace(b"bomb", b"k" * 1_000_000) % b"1", ""), (event.replace(b"bomb", b"\\u0000") % b"1", ""),
    ]  # fmt: skip
    del inflated
    for body, coding in sent * 3:  # what the first of its kind loads, in each thread, is no growth
        post(where.web_port, where.token, body, **({"Content-Encoding": coding} if coding else {}))
    before, stored, answers, slowest = where.memory(), where.one("SELECT count(*) FROM usage_batches"), [], 0.0
    for body, coding in sent * size.of(10, 1):
        began = time.monotonic()
        answers.append(post(where.web_port, where.token, body, **({"Content-Encoding": coding} if coding else {}))[0])
        slowest = max(slowest, time.monotonic() - began)
    grown = (where.memory() - before) / 2**20
    report = Report({"bombs": len(answers), "grown_mib": round(grown, 1), "slowest_ms": round(slowest * 1000, 1)})
    report.check(all(400 <= status < 500 for status in answers), f"answers: {answers}")
    report.check(grown < BOMB_MIB_MAX, "memory grew")
    report.check(where.one("SELECT count(*) FROM usage_batches") == stored, "something of them was stored")
    return report


def database_away(where: Site, size: Size) -> Report:
    """The database goes silent for a while, then is unreachable, then is back: 503 meanwhile, nothing acknowledged is lost."""
    work = batches("away", size.of(200_000, 4_000), BATCH, ORGANIZATIONS)
    # What is on its way when the silence begins, and what is sent into it: however quick the first, the second meets it.
    during, into = (Senders(where.web_port, where.token, part, clients=4) for part in (work[::2], work[1::2]))
    during.start()
    until(lambda: during.acknowledged, "clients get on", size.seconds_max)
    where.database.freeze()
    into.start()
    time.sleep(20 * min(1.0, size.scale))
    where.database.cut()
    away = time.monotonic()
    until(lambda: into.answers[503] > 0, "clients are asked to come back", size.seconds_max)
    time.sleep(max(0.0, away + 10 * min(1.0, size.scale) - time.monotonic()))
    refused = into.answers[503]
    where.database.restore()
    began = time.monotonic()
    until(lambda: into.acknowledged, "usage is taken again", size.seconds_max)
    seconds = time.monotonic() - began
    for senders in (during, into):
        senders.finish(size.seconds_max)
    report = judge(where, size, "away", work, during.acknowledged | into.acknowledged)
    report.figures |= {"refused": refused, "recovery_seconds": round(seconds, 2)}
    if seconds > RECOVERY_SECONDS_MAX:
        report.slow.append("recovery took too long")
    return report


def _shown(senders: Senders) -> dict[str, int]:
    return {str(status): count for status, count in senders.answers.items()}


DRILLS: dict[str, Callable[[Site, Size], Report]] = {
    drill.__name__: drill for drill in (cut_answers, kills, shifted, midnight, poison, bombs, database_away, control)
}
"""In the order they run; the control comes last, since it spoils the site."""


def main(argv: list[str] | None = None) -> int:
    """Run the drills on one fresh site; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m ops.drill_ingest", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the stated sizes")
    parser.add_argument("--only", choices=sorted(DRILLS), action="append", help="run this drill; may be given several times")
    given = parser.parse_args(argv)
    failed = False
    with site(ORGANIZATIONS) as where:
        for name in [name for name in DRILLS if not given.only or name in given.only]:
            print(f"drilling {name}", file=sys.stderr, flush=True)
            began = time.monotonic()
            report = DRILLS[name](where, Size(given.scale))
            met = not report.faults and not report.slow
            line = {
                "drill": name,
                **report.figures,
                "took_seconds": round(time.monotonic() - began, 1),
                "faults": report.faults + report.slow,
            }
            print(json.dumps({**line, "met": met}), flush=True)
            failed |= not met
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
