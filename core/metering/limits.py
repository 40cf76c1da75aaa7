"""Where counting and limits meet: the counting transaction settles reservations, names whom it touched, and keeps its totals.

The limits themselves are core.entitlements'; who is stopped is in `blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from psycopg import Connection

from core.metering.columns import Columns
from core.metering.counting import Batch, Counted
from core.metering.entries import Entries, entries
from core.metering.instants import instant
from core.metering.texts import texts

RESERVED = "SELECT organization_number, idempotency_key FROM usage_reservations WHERE settled_at IS NULL"
SETTLE = """UPDATE usage_reservations SET settled_at = %s WHERE settled_at IS NULL AND (organization_number, idempotency_key)
  IN (SELECT * FROM unnest(%s::int[], %s::text[]))"""
TOTALS = """UPDATE usage_totals SET counted = counted + %s, duplicates = duplicates + %s, conflicts = conflicts + %s,
  quarantined_batches = quarantined_batches + %s, flushes = flushes + 1 RETURNING EXISTS (SELECT FROM limit_watch)"""
TOUCH = "UPDATE limit_watch SET touched_from = coalesce(touched_from, %s) WHERE organization_number = ANY(%s)"


def settling(line: Connection[Any], seed: int, *, at: datetime) -> Callable[[Entries], None]:
    """What settles, in the line's open transaction, the reservations whose events are among the entries it is called with.

    Call it behind the claim of the batches: a reservation is committed before its event can be sent, so it is seen here.
    """
    rows = line.execute(RESERVED).fetchall()
    if not rows:
        return lambda _: None
    numbers, keys = [row[0] for row in rows], [row[1] for row in rows]
    wanted = entries(_as_events(numbers, keys), seed)

    def settle(seen: Entries) -> None:
        found = np.isin(wanted["high"], seen["high"]) & np.isin(wanted["low"], seen["low"])
        places = np.flatnonzero(found).tolist()
        if places:
            line.execute(SETTLE, (at, [numbers[i] for i in places], [keys[i] for i in places]))

    return settle


def note(line: Connection[Any], counted: Counted, batches: Sequence[Batch]) -> None:
    """Add one flush to the totals, and say that the usage of the organizations in it has changed if any of them has limits."""
    duplicates, conflicts = (sum(len(getattr(fate, name)) for fate in counted.fates) for name in ("duplicates", "conflicts"))
    watched = line.execute(TOTALS, (counted.size, duplicates, conflicts, len(counted.poisoned))).fetchone()
    if watched is not None and watched[0] and counted.size:
        line.execute(TOUCH, (instant(batches[0].received_at), sorted(_organizations(counted))))


def _organizations(counted: Counted) -> set[int]:
    found = {bucket.organization for buckets in counted.tallies.values() for bucket in buckets}
    return found if counted.sums is None else found | set(np.unique(counted.sums.organizations).tolist())


def _as_events(numbers: Sequence[int], keys: Sequence[str]) -> Columns:
    """Columns that hold nothing but organizations and keys."""
    size = len(keys)
    zeros, short = np.zeros(size, np.int64), np.zeros(size, np.int32)
    written = texts([key.encode() for key in keys], [b"{}"] * size)
    return Columns(np.array(numbers, np.int32), short, zeros, np.zeros(size, np.bool_), zeros, zeros, np.zeros(size, np.int16), written)
