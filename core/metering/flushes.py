"""One flush: which batches it takes off the log, what it writes, and how a batch that nobody can count is set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection

from core.metering import limits, places, rollups
from core.metering.counting import Batch, Counted
from core.metering.instants import instant, micros

POISON = (psycopg.DataError, psycopg.IntegrityError, ArithmeticError, ValueError, LookupError, TypeError)
"""What a batch can do to its flush; anything else is the database's or our own trouble."""
TAKE = """WITH taken AS (
    DELETE FROM usage_pending WHERE batch_id = ANY(ARRAY(
      SELECT batch_id FROM usage_pending ORDER BY batch_id LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING batch_id, received_at)
  SELECT b.id, b.received_at, b.payload FROM taken
  JOIN usage_batches b ON b.id = taken.batch_id AND b.received_at = taken.received_at ORDER BY b.id"""
LEAVE_OUT = "DELETE FROM usage_pending WHERE batch_id = %s"
NOTED = "UPDATE usage_totals SET quarantined_batches = quarantined_batches + 1"


@dataclass(frozen=True, slots=True)
class Flush:
    """A flush that was counted in memory; `claims` the store had made before it."""

    batches: Sequence[Batch]
    counted: Counted
    claims: int


class FlushFailed(Exception):
    """A flush cannot be committed because of what is in its batches; `claims` the store had made before it.

    `suspect` is the place of the batch that it may be.
    """

    def __init__(self, batches: Sequence[Batch], claims: int, error: Exception, suspect: int | None = None) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.batches, self.claims, self.suspect = batches, claims, suspect


def take(line: Connection[Any], limit: int) -> list[Batch]:
    """The next batches of the log, taken off it in the line's open transaction."""
    rows = line.execute(TAKE, (limit,), binary=True, prepare=True).fetchall()
    return [Batch(batch_id, micros(received_at), bytes(payload)) for batch_id, received_at, payload in rows]


def write(line: Connection[Any], batches: Sequence[Batch], counted: Counted, *, at: datetime) -> None:
    """Everything a flush changes, in the line's open transaction."""
    rollups.write(line, counted)
    places.note(line, counted.keys)
    rollups.settle(line, counted, at=at)
    limits.note(line, counted, batches)


def quarantine(line: Connection[Any], failed: FlushFailed) -> None:
    """Take a batch that failed alone out of counting, in the line's open transaction; the log keeps it."""
    (batch,) = failed.batches
    line.execute(LEAVE_OUT, (batch.id,))
    line.execute(rollups.QUARANTINE, (batch.id, instant(batch.received_at), str(failed).replace("\0", "\ufffd")))
    line.execute(NOTED)
