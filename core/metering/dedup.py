"""Each idempotency key of an organization counts once, also when it comes back with another timestamp.

A store claims keys inside the counting transaction: what it remembers commits or is lost together with the rows and rollups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray
from psycopg import Connection

from core.metering import runs
from core.metering.columns import Columns, Flags
from core.metering.runs import Run

ENTRY = runs.ENTRY
Entries = runs.Entries
Words = NDArray[np.uint64]
SLOTS_FIRST = 2**20
SLOTS_MAX = 2**23
LOAD_MAX = 0.7
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


def entries(columns: Columns, seed: int) -> Entries:
    """The entries of `columns`. `seed` is the installation's secret: without it nobody can construct colliding keys."""
    data, digest = columns.texts.data, xxhash.xxh3_128_digest
    digests = b"".join([digest(data[start:end], seed) for start, end in columns.texts.key_spans()])
    hashes = np.frombuffer(digests, np.dtype([("high", "<u8"), ("low", "<u8")]))
    rows = np.empty(len(columns), ENTRY)
    tenant = _mixed(columns.organizations.astype(np.uint64) + np.uint64(seed))
    rows["high"] = np.maximum(hashes["high"] ^ tenant, np.uint64(1))
    rows["low"] = hashes["low"] ^ _mixed(tenant)
    rows["fingerprint"] = _fingerprints(columns)
    return rows


def of_keys(rows: Entries, organizations: NDArray[np.int32], seed: int) -> Words:
    """The first word of each key's hash without its organization, from its entry."""
    hashes: Words = rows["high"] ^ _mixed(organizations.astype(np.uint64) + np.uint64(seed))
    return hashes


def _fingerprints(columns: Columns) -> NDArray[np.uint32]:
    """What makes two events with one key equal: name, quantity, properties, and the timestamp unless it was left out."""
    data, digest = columns.texts.data, xxhash.xxh3_64_intdigest
    content = np.array([digest(data[start:end]) for start, end in columns.texts.property_spans()], np.uint64)
    stamps = np.where(columns.defaulted, 0, columns.timestamps)
    for part in (columns.events, stamps, columns.wholes, columns.fractions):
        content = _mixed(content ^ part.astype(np.uint64))
    return (content >> np.uint64(32)).astype(np.uint32)


def _mixed(words: Words) -> Words:
    """splitmix64's finalizer (Steele, Lea, Flood 2014): a bijection that spreads every bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def distinct(rows: Entries) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Place of the first entry of each key, and for every entry which of those it belongs to."""
    _, first, which = np.unique(rows["high"], return_index=True, return_inverse=True)
    if (rows["low"][first][which] == rows["low"]).all():
        return first, which
    keys = rows[["high", "low"]]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return first, which


class Table:
    """A fixed number of slots, open addressing with linear probing, probed for a whole column at once. A slot with high 0 is free."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.used = 0
        self.newest = date.min
        self.last_segment = 0
        self._high = np.zeros(slots, np.uint64)
        self._low = np.zeros(slots, np.uint64)
        self._fingerprint = np.zeros(slots, np.uint32)

    @property
    def room(self) -> int:
        """How many more keys it takes."""
        return int(self.slots * LOAD_MAX) - self.used

    def find(self, rows: Entries) -> tuple[Flags, NDArray[np.uint32]]:
        """Which keys are here, and their fingerprints."""
        found, fingerprints = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.uint32)
        high, low = rows["high"], rows["low"]
        waiting = np.arange(len(rows))
        slot = (high & np.uint64(self.slots - 1)).astype(np.int64)
        while len(waiting):
            here = self._high[slot]
            same = np.flatnonzero(here == high[waiting])
            same = same[self._low[slot[same]] == low[waiting[same]]]
            found[waiting[same]] = True
            fingerprints[waiting[same]] = self._fingerprint[slot[same]]
            on = here != 0
            on[same] = False
            waiting, slot = waiting[on], (slot[on] + 1) & (self.slots - 1)
        return found, fingerprints

    def all(self) -> Entries:
        """Every key in it."""
        places = np.flatnonzero(self._high)
        rows = np.empty(len(places), ENTRY)
        rows["high"], rows["low"], rows["fingerprint"] = self._high[places], self._low[places], self._fingerprint[places]
        return rows

    def remove(self, rows: Entries) -> None:
        """Free the slots of the keys that came last. No key was led past them since, so the table is as it was before them."""
        high, low = rows["high"], rows["low"]
        waiting = np.arange(len(rows))
        slot = (high & np.uint64(self.slots - 1)).astype(np.int64)
        places = [slot[:0]]
        while len(waiting):
            here = (self._high[slot] == high[waiting]) & (self._low[slot] == low[waiting])
            places.append(slot[here])
            on = ~here & (self._high[slot] != 0)
            waiting, slot = waiting[on], (slot[on] + 1) & (self.slots - 1)
        free = np.concatenate(places)
        self._high[free] = 0
        self.used -= len(free)

    def insert(self, rows: Entries, received_on: date) -> None:
        """Take keys that are not here yet, each once."""
        high, low, fingerprints = rows["high"], rows["low"], rows["fingerprint"]
        waiting = np.arange(len(rows))
        slot = (high & np.uint64(self.slots - 1)).astype(np.int64)
        while len(waiting):
            free = np.flatnonzero(self._high[slot] == 0)
            self._high[slot[free]] = high[waiting[free]]
            self._low[slot[free]] = low[waiting[free]]
            won = free[(self._high[slot[free]] == high[waiting[free]]) & (self._low[slot[free]] == low[waiting[free]])]
            self._fingerprint[slot[won]] = fingerprints[waiting[won]]
            on = np.ones(len(waiting), np.bool_)
            on[won] = False
            taken = self._high[slot] != 0
            waiting, slot = waiting[on], ((slot + taken) & (self.slots - 1))[on]
        self.used += len(rows)
        self.newest = max(self.newest, received_on)


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
