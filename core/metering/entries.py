"""What stands for an event's idempotency key where keys are remembered: its hash with that of its organization, and a fingerprint.

Two roads lead to the same hashes: whole columns in machine code, where Numba is installed (`hashes`, `probing`), and plain Python.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import xxhash
from numpy.typing import NDArray

from core.metering import runs
from core.metering.columns import Columns, Int64
from core.metering.loading import Lazy
from core.metering.texts import texts

ENTRY = runs.ENTRY
Entries = runs.Entries
Words = NDArray[np.uint64]
LOAD_AT_EVENTS = 1_000
"""A flush of so many events makes compiled code worth loading."""


def entries(columns: Columns, seed: int) -> Entries:
    """The entries of `columns`. `seed` is the installation's secret: without it nobody can construct colliding keys."""
    rows = np.empty(len(columns), ENTRY)
    stamps = np.where(columns.defaulted, 0, columns.timestamps)
    code = HASHES.get(wanted=len(columns) >= LOAD_AT_EVENTS)
    if code is not None:
        _hashed(code, columns, stamps, seed, rows)
        return rows
    data, digest = columns.texts.data, xxhash.xxh3_128_digest
    digests = b"".join([digest(data[start:end], seed) for start, end in columns.texts.key_spans()])
    hashes = np.frombuffer(digests, np.dtype([("high", "<u8"), ("low", "<u8")]))
    tenant = mixed(columns.organizations.astype(np.uint64) + np.uint64(seed))
    rows["high"] = np.maximum(hashes["high"] ^ tenant, np.uint64(1))
    rows["low"] = hashes["low"] ^ mixed(tenant)
    rows["fingerprint"] = _fingerprints(columns, stamps)
    return rows


def _hashed(code: ModuleType, columns: Columns, stamps: Int64, seed: int, rows: Entries) -> None:
    texts, numbers = columns.texts, (columns.events, stamps, columns.wholes, columns.fractions)
    words = code.machine.words(code.machine.padded(texts.data))
    out = rows["high"], rows["low"], rows["fingerprint"]
    code.hashed(words, texts.keys_at(), texts.properties_at(), (columns.organizations, np.uint64(seed)), numbers, out)


def of_keys(rows: Entries, organizations: NDArray[np.int32], seed: int) -> Words:
    """The first word of each key's hash without its organization, from its entry."""
    hashes: Words = rows["high"] ^ mixed(organizations.astype(np.uint64) + np.uint64(seed))
    return hashes


def _fingerprints(columns: Columns, stamps: Int64) -> NDArray[np.uint32]:
    """What makes two events with one key equal: name, quantity, properties, and the timestamp unless it was left out (then it is 0)."""
    data, digest = columns.texts.data, xxhash.xxh3_64_intdigest
    content = np.array([digest(data[start:end]) for start, end in columns.texts.property_spans()], np.uint64)
    for part in (columns.events, stamps, columns.wholes, columns.fractions):
        content = mixed(content ^ part.astype(np.uint64))
    return (content >> np.uint64(32)).astype(np.uint32)


def mixed(words: Words) -> Words:
    """splitmix64's finalizer (Steele, Lea, Flood 2014): a bijection that spreads every bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def distinct(rows: Entries) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Place of the first entry of each key, and for every entry which of those it belongs to."""
    code = PROBING.get(wanted=len(rows) >= LOAD_AT_EVENTS)
    if code is not None:
        first, which = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        slots = np.full(1 << (2 * len(rows)).bit_length(), code.STOP, np.int32)
        return first[: code.distinct(parts(rows), slots, first, which)], which
    _, first, which = np.unique(rows["high"], return_index=True, return_inverse=True)
    if (rows["low"][first][which] == rows["low"]).all():
        return first, which
    keys = rows[["high", "low"]]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return first, which


def parts(rows: Entries) -> tuple[Words, Words, NDArray[np.uint32]]:
    """The three columns of entries."""
    return rows["high"], rows["low"], rows["fingerprint"]


def _run_hashes(code: ModuleType) -> None:
    one = np.ones(1, np.int64)
    half = one.astype(np.int32)
    named = Columns(half, half, one, one.astype(np.bool_), one, one, one.astype(np.int16), texts([b"a"], [b"{}"]))
    _hashed(code, named, one, 1, np.empty(1, ENTRY))


def _run_probing(code: ModuleType) -> None:
    rows, table = np.ones(1, ENTRY), tuple(np.zeros(2, kind) for kind in (np.uint64, np.uint64, np.uint32))
    code.find(parts(rows), table, np.zeros(1, np.bool_), np.zeros(1, np.uint32))
    code.insert(parts(rows), table)
    code.distinct(parts(rows), np.full(4, code.STOP, np.int32), np.empty(1, np.int64), np.empty(1, np.int64))


HASHES, PROBING = Lazy("core.metering.hashes", _run_hashes), Lazy("core.metering.probing", _run_probing)
