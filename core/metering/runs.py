"""Keys that are too old for memory: sorted on disk, behind a small filter that says for nearly every new key that it is not there.

A run is one table of the SegmentStore, sealed. Its keys lie in pages by the first bits of their hash; its filter keeps 16 further bits
of each key (a quotient filter: Bender et al., 2012), 2.5 bytes a key, and passes one strange key in eight thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("fingerprint", "<u4")])
"""128 bits of key hash, 32 bits of the event's content."""
Entries = NDArray[Any]
Flags = NDArray[np.bool_]
PAGE_KEYS, BUCKET_KEYS = 64, 8
REMAINDER_BITS = 16
RUN = "INSERT INTO usage_dedup_runs (newest_on, keys, offsets, remainders) VALUES (%s, %s, %b, %b) RETURNING id"
PAGES = "COPY usage_dedup_pages (run_id, page, keys) FROM STDIN (FORMAT binary)"
ASK = """SELECT p.run_id, p.page, p.keys FROM usage_dedup_pages p
  JOIN unnest(%s::bigint[], %s::int[]) AS asked(run_id, page) ON p.run_id = asked.run_id AND p.page = asked.page"""
LOAD = "SELECT id, newest_on, keys, offsets, remainders FROM usage_dedup_runs WHERE newest_on >= %s ORDER BY id"


@dataclass(slots=True)
class Filter:
    """Which keys may be in a run. `offsets` of the buckets in `remainders`."""

    offsets: NDArray[np.uint32]
    remainders: NDArray[np.uint16]

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        return int(self.offsets.nbytes + self.remainders.nbytes)

    def may_have(self, high: NDArray[np.uint64]) -> Flags:
        """False: certainly not."""
        bits = (len(self.offsets) - 1).bit_length() - 1
        bucket, wanted = _first_bits(high, bits), _remainders(high, bits)
        place, end = self.offsets[bucket].astype(np.int64), self.offsets[bucket + 1].astype(np.int64)
        found = np.zeros(len(high), np.bool_)
        waiting = np.flatnonzero(place < end)
        while len(waiting):
            found[waiting] = self.remainders[place[waiting]] == wanted[waiting]
            place[waiting] += 1
            waiting = waiting[~found[waiting] & (place[waiting] < end[waiting])]
        return found


@dataclass(slots=True)
class Run:
    """One run. Without its filter, which may be left out of memory, every key is asked for on disk."""

    id: int
    newest: date
    keys: int
    filter: Filter | None

    def suspects(self, rows: Entries) -> Flags:
        """The keys that have to be asked for."""
        return np.ones(len(rows), np.bool_) if self.filter is None else self.filter.may_have(rows["high"])


def seal(connection: Connection[Any], rows: Entries, newest: date) -> Run:
    """Write the keys as a run, in the connection's transaction."""
    rows = rows[np.argsort(rows["high"])]
    sieve = _filter(rows["high"])
    made = connection.execute(RUN, (newest, len(rows), sieve.offsets.tobytes(), sieve.remainders.tobytes())).fetchone()
    run = Run(made[0] if made else 0, newest, len(rows), sieve)
    bits = _page_bits(len(rows))
    starts = np.searchsorted(_first_bits(rows["high"], bits), np.arange(2**bits + 1)).tolist()
    data = rows.tobytes()
    with connection.cursor() as cursor, cursor.copy(PAGES) as copy:
        copy.set_types(["int8", "int4", "bytea"])
        for page in range(2**bits):
            copy.write_row((run.id, page, data[starts[page] * ENTRY.itemsize : starts[page + 1] * ENTRY.itemsize]))
    return run


def load(connection: Connection[Any], since: date) -> list[Run]:
    """The runs that hold keys received on `since` or later."""
    rows: Iterable[Any] = connection.execute(LOAD, (since,), binary=True)
    return [
        Run(run_id, newest, keys, Filter(np.frombuffer(offsets, np.uint32), np.frombuffer(remainders, np.uint16)))
        for run_id, newest, keys, offsets, remainders in rows
    ]


def find(connection: Connection[Any], runs: Sequence[Run], rows: Entries) -> tuple[Flags, NDArray[np.uint32]]:
    """Which keys are in any of the runs, and their fingerprints: exact, the pages are read."""
    found, fingerprints = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.uint32)
    suspects = [(run, np.flatnonzero(run.suspects(rows))) for run in runs]
    asked = [(run.id, page) for run, places in suspects for page in set(_pages(run, rows[places]))]
    if not asked:
        return found, fingerprints
    ids, numbers = ([pair[i] for pair in asked] for i in (0, 1))
    pages = {(run_id, page): bytes(keys) for run_id, page, keys in connection.execute(ASK, (ids, numbers), binary=True)}
    for run, places in suspects:
        for place, page in zip(places.tolist(), _pages(run, rows[places]), strict=True):
            keys = np.frombuffer(pages.get((run.id, page), b""), ENTRY)
            same = keys[(keys["high"] == rows["high"][place]) & (keys["low"] == rows["low"][place])]
            if len(same):
                found[place], fingerprints[place] = True, same["fingerprint"][0]
    return found, fingerprints


def _pages(run: Run, rows: Entries) -> list[int]:
    pages: list[int] = _first_bits(rows["high"], _page_bits(run.keys)).tolist()
    return pages


def _page_bits(keys: int) -> int:
    return max(0, (keys // PAGE_KEYS).bit_length() - 1)


def _filter(high: NDArray[np.uint64]) -> Filter:
    """The filter of sorted hashes."""
    bits = max(0, (len(high) // BUCKET_KEYS).bit_length() - 1)
    offsets = np.searchsorted(_first_bits(high, bits), np.arange(2**bits + 1)).astype(np.uint32)
    return Filter(offsets, _remainders(high, bits))


def _first_bits(high: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    return (high >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(high), np.int64)


def _remainders(high: NDArray[np.uint64], bits: int) -> NDArray[np.uint16]:
    return (high >> np.uint64(64 - REMAINDER_BITS - bits)).astype(np.uint16)
