"""Each idempotency key of an organization counts once, also when it comes back with another timestamp.

A store claims keys inside the counting transaction: what it remembers commits or is lost together with the rows and rollups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from core.metering import runs
from core.metering.columns import Flags
from core.metering.entries import ENTRY, Entries, distinct
from core.metering.runs import Run
from core.metering.slots import Table

SLOTS_FIRST = 2**20
SLOTS_MAX = 2**23
SLOT_BYTES = ENTRY.itemsize
SEGMENTS_AT_ONCE = 200
CLAIMS_UNCOMMITTED = 2
"""A claim is prepared while the one before is being committed: a run is visible to others only in the second claim after its own."""
KEYS_SHARE = 0.7
"""Of the memory the aggregator may have: the rest is for what it counts."""


@dataclass(frozen=True, slots=True)
class Claim:
    """For each entry whether it is the first with its key, and the content fingerprint of the first."""

    first: Flags
    fingerprints: NDArray[np.uint32]


class DedupStore(Protocol):
    """Remembers the keys of every counted event for as long as it may be sent again."""

    @property
    def claims(self) -> int:
        """How many there have been, without those that were undone."""

    def load(self, connection: Connection[Any], since: date) -> int:
        """Read what earlier processes committed, from `since` on; how many keys."""

    def claim(self, connection: Connection[Any], entries: Entries, received_on: date) -> Claim:
        """Claim the keys in the connection's transaction. When it does not commit, the claim must be undone, or the store loaded anew."""

    def undo(self, claims: int) -> None:
        """Forget all but the first `claims` claims; their transactions, CLAIMS_UNCOMMITTED at most, have been rolled back."""

    def forget(self, before: date) -> None:
        """Drop what is kept in memory of keys received before that day; on disk partitions.keep_house deletes them."""


class SegmentStore:
    """Keys in memory, and on disk as append-only segments from which a new process reads them back.

    Tables double in size, so no flush ever waits for a big one to be rebuilt; a table all of whose keys have expired is dropped.
    When the tables have filled their share of `memory_mib`, the oldest is sealed: its keys stay on disk as a run, its filter in memory.
    """

    def __init__(self, memory_mib: float = 2048) -> None:
        self._tables: list[Table] = []
        self._runs: list[Run] = []
        self._inserted: list[tuple[int, Table, Entries]] = []
        self._sealed: list[tuple[int, Table, Run]] = []
        self.claims = 0
        self._bytes_max = int(memory_mib * 2**20 * KEYS_SHARE)

    @property
    def bytes(self) -> int:
        """Memory of tables and filters."""
        return sum(table.slots for table in self._tables) * SLOT_BYTES + sum(run.filter.bytes for run in self._runs if run.filter)

    def load(self, connection: Connection[Any], since: date) -> int:
        """See DedupStore."""
        self._tables, self._inserted, self._sealed, self._runs = [], [], [], runs.load(connection, since)
        last, total = 0, sum(run.keys for run in self._runs)
        query = """SELECT id, received_on, keys FROM usage_dedup_segments WHERE id > %s AND received_on >= %s ORDER BY id LIMIT %s"""
        while segments := connection.execute(query, (last, since, SEGMENTS_AT_ONCE), binary=True).fetchall():
            for segment_id, received_on, keys in segments:
                rows = np.frombuffer(keys, ENTRY)
                self._remember(rows, received_on)
                self._tables[-1].last_segment = last = segment_id
                total += len(rows)
            with connection.transaction():
                self._keep_within_bounds(connection)
            self._settle(self.claims)
        return total

    def claim(self, connection: Connection[Any], rows: Entries, received_on: date) -> Claim:
        """See DedupStore."""
        self.claims += 1
        self._settle(self.claims - CLAIMS_UNCOMMITTED)
        first, which = distinct(rows)
        keys = rows[first]
        known, fingerprints = np.zeros(len(keys), np.bool_), keys["fingerprint"].copy()
        places: list[Callable[[Entries], tuple[Flags, NDArray[np.uint32]]]] = [table.find for table in reversed(self._tables)]
        places += [table.find for _, table, _ in self._sealed]
        if self._runs:
            places.append(lambda some: runs.find(connection, self._runs, some))
        for find in places:
            rest = np.flatnonzero(~known)
            found, prints = find(keys[rest])
            known[rest[found]] = True
            fingerprints[rest[found]] = prints[found]
        fresh = keys[~known]
        if len(fresh):
            self._remember(fresh, received_on)
            segment = "INSERT INTO usage_dedup_segments (received_on, entries, keys) VALUES (%s, %s, %b) RETURNING id"
            row = connection.execute(segment, (received_on, len(fresh), fresh.tobytes())).fetchone()
            self._tables[-1].last_segment = row[0] if row else 0
            self._keep_within_bounds(connection)
        is_first = np.zeros(len(rows), np.bool_)
        is_first[first[~known]] = True
        return Claim(is_first, fingerprints[which])

    def undo(self, claims: int) -> None:
        """Last done, first undone: what was sealed comes back, then the keys leave their tables; see DedupStore."""
        if claims < self.claims - CLAIMS_UNCOMMITTED:
            raise RuntimeError("claims were committed that are to be undone")
        while self._sealed and self._sealed[-1][0] > claims:
            _, table, gone = self._sealed.pop()
            self._tables.insert(0, table)
            self._runs = [run for run in self._runs if run is not gone]
        while self._inserted and self._inserted[-1][0] > claims:
            _, table, rows = self._inserted.pop()
            table.remove(rows)
        self._tables = [table for table in self._tables if table.used]
        self.claims = claims

    def _settle(self, claims: int) -> None:
        """The first `claims` claims are committed and visible to all."""
        self._inserted = [one for one in self._inserted if one[0] > claims]
        self._sealed = [one for one in self._sealed if one[0] > claims]

    def forget(self, before: date) -> None:
        """A table or run goes when all its keys may; see DedupStore."""
        self._tables = [table for table in self._tables if table.newest >= before]
        self._runs = [run for run in self._runs if run.newest >= before]

    def _remember(self, rows: Entries, received_on: date) -> None:
        while len(rows):
            if not self._tables or self._tables[-1].room <= 0:
                self._tables.append(Table(self._next_slots()))
            table = self._tables[-1]
            part, rows = rows[: table.room], rows[table.room :]
            self._inserted.append((self.claims, table, part))
            table.insert(part, received_on)

    def _next_slots(self) -> int:
        if not self._tables:
            return SLOTS_FIRST
        fits = self._bytes_max // (4 * SLOT_BYTES)
        return max(SLOTS_FIRST, min(self._tables[-1].slots * 2, SLOTS_MAX, 1 << max(0, fits.bit_length() - 1)))

    def _keep_within_bounds(self, connection: Connection[Any]) -> None:
        """Seal the oldest tables, then leave out the oldest filters, until the rest fits; in the connection's transaction."""
        while self.bytes > self._bytes_max and len(self._tables) > 1:
            oldest = self._tables[0]
            run = runs.seal(connection, oldest.all(), oldest.newest)
            self._sealed.append((self.claims, self._tables.pop(0), run))
            self._runs.append(run)
            # Its last segment may have a part in the next table too; then it is read again, which does no harm.
            connection.execute("DELETE FROM usage_dedup_segments WHERE id <= %s", (oldest.last_segment,))
        for run in self._runs:
            if self.bytes <= self._bytes_max:
                return
            run.filter = None


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
