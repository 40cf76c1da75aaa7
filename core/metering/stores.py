"""Which store remembers the keys, and the one that needs no memory."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
from psycopg import Connection

from core.metering.dedup import Claim, DedupStore, Entries, SegmentStore, distinct


class KeyTable:
    """Keys as rows of a table with a unique index: no memory, any number of keys, at several times the cost of SegmentStore."""

    claims = 0
    """There is nothing to undo."""

    def load(self, connection: Connection[Any], since: date) -> int:
        """Nothing to read; see DedupStore."""
        row = connection.execute("SELECT count(*) FROM usage_dedup_keys WHERE received_on >= %s", (since,)).fetchone()
        return int(row[0]) if row else 0

    def claim(self, connection: Connection[Any], rows: Entries, received_on: date) -> Claim:
        """See DedupStore."""
        first, which = distinct(rows)
        keys = rows[first]
        hashes = [key.tobytes()[:16] for key in keys]
        insert = """INSERT INTO usage_dedup_keys (key_hash, fingerprint, received_on)
            SELECT key_hash, fingerprint, %s FROM unnest(%b::bytea[], %s::bigint[]) AS g(key_hash, fingerprint) ORDER BY key_hash
            ON CONFLICT (key_hash) DO NOTHING RETURNING key_hash"""
        fingerprints = keys["fingerprint"].copy()
        inserted = {bytes(row[0]) for row in connection.execute(insert, (received_on, hashes, fingerprints.tolist()))}
        fresh = np.fromiter((key in inserted for key in hashes), np.bool_, len(hashes))
        known = [key for key in hashes if key not in inserted]
        if known:
            query = "SELECT key_hash, fingerprint FROM usage_dedup_keys WHERE key_hash = ANY(%b)"
            stored = {bytes(key): value for key, value in connection.execute(query, (known,))}
            for place in np.flatnonzero(~fresh):
                fingerprints[place] = stored[hashes[place]]
        is_first = np.zeros(len(rows), np.bool_)
        is_first[first[fresh]] = True
        return Claim(is_first, fingerprints[which])

    def undo(self, claims: int) -> None:
        """What was rolled back is undone; see DedupStore."""

    def forget(self, before: date) -> None:
        """Nothing is in memory; see DedupStore."""


def store(kind: str, memory_mib: int) -> DedupStore:
    """The store a setting names: `memory` or `table`."""
    return KeyTable() if kind == "table" else SegmentStore(memory_mib)
