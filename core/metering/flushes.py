"""What one flush changes, and which batches make one fail: halves of it are written on trial, and nothing of a trial stays.

A flush of n batches with one bad batch among them is taken apart in log2 n steps, each half as big as the one before: together at most
two flushes. Batches that fail only in the company of others are not found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
from psycopg import Connection

from core.metering import counting, limits, places, rollups
from core.metering.counting import Batch, Counted
from core.metering.dedup import Claim
from core.metering.directory import EventType
from core.metering.entries import Entries
from core.metering.instants import instant

POISON = (psycopg.DataError, psycopg.IntegrityError, ArithmeticError, ValueError, LookupError, TypeError)
"""What a batch can do to its flush; anything else is the database's or our own trouble."""
TAKEN = "DELETE FROM usage_pending WHERE batch_id = ANY(%s)"
NOTED = "UPDATE usage_totals SET quarantined_batches = quarantined_batches + %s"
Trial = Callable[[Sequence[Batch]], Exception | None]
"""What counting these batches and nothing else ends in."""


class FlushFailed(Exception):
    """A flush was rolled back because of what is in its batches."""

    def __init__(self, batches: Sequence[Batch], error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.batches, self.error = batches, error


def write(line: Connection[Any], batches: Sequence[Batch], counted: Counted, *, at: datetime) -> None:
    """Everything a flush changes, in the line's open transaction."""
    rollups.write(line, counted)
    places.note(line, counted.keys)
    rollups.settle(line, counted, at=at)
    limits.note(line, counted, batches)


def tried(line: Connection[Any], batches: Sequence[Batch], types: Mapping[int, EventType], seed: int, *, at: datetime) -> Exception | None:
    """What a flush of these batches ends in, every key taken as new so that each event is written; leaves the line's transaction open."""
    try:
        write(line, batches, counting.count(batches, types, seed, _as_new), at=at)
    except POISON as error:
        return error
    return None


def culprits(batches: Sequence[Batch], trial: Trial) -> list[FlushFailed]:
    """Of batches that failed together, those that fail alone, in their order."""
    if len(batches) == 1:
        error = trial(batches)
        return [FlushFailed(batches, error)] if error else []
    first, second = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    found = culprits(first, trial) if len(first) == 1 or trial(first) else []
    if found and len(second) > 1 and not trial(second):
        return found
    return found + culprits(second, trial)


def quarantine(connection: Connection[Any], found: Sequence[FlushFailed]) -> None:
    """Take batches that failed alone out of counting, in a transaction; the log keeps them."""
    batches = [failed.batches[0] for failed in found]
    says = [str(failed).replace("\0", "\ufffd") for failed in found]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(TAKEN, ([batch.id for batch in batches],))
        rows = [(batch.id, instant(batch.received_at), error) for batch, error in zip(batches, says, strict=True)]
        cursor.executemany(rollups.QUARANTINE, rows)
        cursor.execute(NOTED, (len(found),))


def _as_new(keys: Entries) -> Claim:
    return Claim(np.ones(len(keys), np.bool_), keys["fingerprint"].copy())
