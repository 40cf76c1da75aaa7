"""`make verify`: every invariant of the books, as SQL over the running product's database."""

from __future__ import annotations

import time

from core import selfcheck
from ops.context import unit_of_work


def main(argv: list[str]) -> int:  # noqa: ARG001 - commands share one signature
    """Print each violation; exit status 1 when there is one."""
    began = time.monotonic()
    with unit_of_work() as session:
        findings = selfcheck.run(session)
    for finding in findings:
        print(f"{finding.code}: {finding.what}\n    it must hold that {finding.meaning}")
    rules = len(selfcheck.codes())
    outcome = "all hold" if not findings else f"{len({finding.code for finding in findings})} broken, {len(findings)} findings"
    print(f"{rules} invariants checked in {time.monotonic() - began:.1f} s: {outcome}")
    return 1 if findings else 0
