"""Waiting for a batch to be counted, for senders who want duplicates and conflicts in the answer itself."""

from __future__ import annotations

import time
from dataclasses import dataclass

from core.metering.directory import Directory

POLL_SECONDS = 0.03
RESULT = "SELECT duplicates, conflicts FROM usage_batch_results WHERE batch_id = %s"


@dataclass(frozen=True, slots=True)
class Result:
    """Positions in the request of events whose key was known: with the same content, and with other content."""

    duplicates: frozenset[int]
    conflicts: frozenset[int]


def wait(directory: Directory, batch_id: int, *, seconds: float) -> Result | None:
    """The batch's result as soon as it is counted; None when that takes longer."""
    until = time.monotonic() + seconds
    while True:
        with directory.connection() as connection:
            row = connection.execute(RESULT, (batch_id,), prepare=True).fetchone()
        if row is not None:
            return Result(frozenset(row.duplicates), frozenset(row.conflicts))
        if time.monotonic() >= until:
            return None
        time.sleep(POLL_SECONDS)
