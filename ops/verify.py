"""`make verify`: every invariant of the books, and a recount of the last days of usage, over the running product's database."""

from __future__ import annotations

import argparse
import time
from datetime import timedelta

from core import clock, selfcheck
from core.metering import recount
from core.metering.recount import Difference
from core.selfcheck import Finding
from ops.context import unit_of_work

RECOUNT = "V11-usage-recount"
HOLDS = "the hourly sums of usage are those of its events, counted anew"
RECOUNT_DAYS = 2


def main(argv: list[str]) -> int:
    """Print each violation; exit status 1 when there is one."""
    parser = argparse.ArgumentParser(prog="valueverse verify", description=__doc__)
    parser.add_argument("--days", type=int, default=RECOUNT_DAYS, help="how many days of usage are counted anew (default %(default)s)")
    days = parser.parse_args(argv).days
    began = time.monotonic()
    with unit_of_work() as session:
        findings = selfcheck.run(session)
    findings += [Finding(RECOUNT, HOLDS, _told(difference)) for difference in _recounted(timedelta(days=days))]
    for finding in findings:
        print(f"{finding.code}: {finding.what}\n    it must hold that {finding.meaning}")
    rules = len(selfcheck.codes()) + 1
    outcome = "all hold" if not findings else f"{len({finding.code for finding in findings})} broken, {len(findings)} findings"
    print(f"{rules} invariants checked in {time.monotonic() - began:.1f} s: {outcome}")
    return 1 if findings else 0


def _recounted(back: timedelta) -> list[Difference]:
    """Differences that a second look confirms: what was being counted during the first one is no difference any more."""
    now = clock.now()
    with unit_of_work() as session:
        suspected = recount.differences(session, start=now - back, end=now)
    if not suspected:
        return []
    with unit_of_work() as session:
        confirmed = {_place(difference) for difference in recount.differences(session, start=now - back, end=now)}
    return [difference for difference in suspected if _place(difference) in confirmed]


def _place(difference: Difference) -> tuple[object, ...]:
    return difference.organization_number, difference.metric_number, difference.hour, difference.group_key


def _told(difference: Difference) -> str:
    where = f"organization number {difference.organization_number}, metric number {difference.metric_number}"
    return f"{where}, hour {difference.hour.isoformat()}: stored {difference.stored}, recounted {difference.recounted}"
