"""`valueverse usage`: count stored usage anew and compare; archive, restore and purge it; legal holds."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime, timedelta

from core import clock, config
from core.invoicing import recount as invoices
from core.metering import recount, sampling
from core.metering.recount import Difference
from ops import retention
from ops.context import unit_of_work

SHOWN_MAX = 50


def main(argv: list[str]) -> int:
    """Run one of the usage commands; exit status 1 when something differs."""
    parser = argparse.ArgumentParser(prog="valueverse usage", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    counting = commands.add_parser("recount", help="count days of usage anew and compare")
    days = counting.add_mutually_exclusive_group()
    days.add_argument("--day", type=_day, help="one UTC day, as 2026-11-21")
    days.add_argument("--days", type=int, default=1, help="that many days up to now (default %(default)s)")
    counting.set_defaults(run=_recount)
    retention.add_commands(commands)
    chosen = parser.parse_args(argv)
    return int(chosen.run(chosen))


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)


def _recount(chosen: argparse.Namespace) -> int:
    """Print every difference, with names and both figures, and keep what was found."""
    began, now = time.monotonic(), clock.now()
    start = chosen.day or now - timedelta(days=chosen.days)
    end = min(start + timedelta(days=1), now) if chosen.day else now
    with unit_of_work() as session:
        sampling.steady(session)
        away = retention.purged(session, start, end)
        if away:
            print(f"the events of {', '.join(map(str, away))} were purged: `valueverse usage restore-archive --day {away[0]}` first")
            return 1
        found: list[Difference] = recount.differences(session, start=start, end=end)
        found += recount.lost(session, start=start, end=end)
        days = config.current().adjustment_days
        billed = invoices.compare(session, start=start, end=end, at=now, adjustment_days=days)
        made = sampling.keep(session, found, since=start, until=end, compared=0, at=now, billed=billed.differences)
    for one in made.differences[:SHOWN_MAX]:
        kind = "line" if one in billed.differences else "group"
        group = f", {kind} {one.group}" if one.group else ""
        print(f"{one.organization}, {one.metric}, {one.hour}{group}: stored {one.stored}, counted anew {one.recounted}")
    seconds = time.monotonic() - began
    outcome = "all sums are those of their events" if not found else f"{len(found)} differ"
    print(f"usage from {start.isoformat()} to {end.isoformat()} was counted anew in {seconds:.1f} s: {outcome}")
    differ = f"{len(billed.differences)} differ" if billed.differences else "all hold what is counted"
    print(f"{billed.lines} lines of issued invoices were compared: {differ}; {billed.waiting} wait for their adjustment")
    return 1 if made.differences else 0
