"""Which batch PostgreSQL complains of, when it names the row it could not store: a hint that spares most of the halving.

It may be missing or wrong, and costs a flush more then: only a batch that fails alone is set aside.
"""

from __future__ import annotations

import re
import struct

import psycopg

from core.metering.flushes import Flush
from core.metering.pgcopy import HEADER

ROW = re.compile(r"COPY usage_events, \D+(\d+)")
"""In any language the server may speak."""
FIELDS, LENGTH, BATCH = struct.Struct(">h"), struct.Struct(">i"), struct.Struct(">q")
BATCH_AT = FIELDS.size + 2 * (LENGTH.size + 8) + LENGTH.size
"""The batch is the third field, behind two timestamps (rollups.COPY_EVENTS)."""


def suspect(flush: Flush, error: Exception) -> int | None:
    """Place of the batch among the flush's; None when the error does not tell."""
    context = error.diag.context if isinstance(error, psycopg.Error) else None
    said = ROW.search(context or "")
    number = batch_of(flush.counted.rows, int(said[1])) if said else None
    return next((place for place, batch in enumerate(flush.batches) if batch.id == number), None)


def batch_of(stream: bytes | memoryview, row: int) -> int | None:
    """The batch of the COPY stream's row with this number, from 1; None when it has fewer."""
    place = len(HEADER)
    for before in range(row - 1, -1, -1):
        (fields,) = FIELDS.unpack_from(stream, place)
        if fields < 0:
            return None
        if not before:
            return int(BATCH.unpack_from(stream, place + BATCH_AT)[0])
        place += FIELDS.size
        for _ in range(fields):
            place += LENGTH.size + max(0, LENGTH.unpack_from(stream, place)[0])
    return None
