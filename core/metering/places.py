"""Where in the log a key's event stands: from the idempotency key alone to the batch, whatever account and time, in milliseconds.

Each flush writes one row: for every key it counted, some bits of the key's hash and the group of batches it came in, 16 bits together,
in buckets of 16 to 32 keys (2.3 bytes a key; Fan et al., 2014, call the bits a fingerprint). Another key has the same bits once in some
dozens of flushes; then a batch is read in vain. Small flushes are kept with 32 bits a key, so that they can be put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray
from psycopg import Connection

from core.metering import columns as column_form
from core.metering.columns import Corrupt
from core.metering.instants import instant

BUCKET_KEYS = 16
GROUPS_MAX = 128
SMALL_KEYS = 4_096
TOGETHER = 64
MARK_BITS, HASH_BITS = 16, 32
KEPT = timedelta(days=43)
"""As long as the log is kept by default; of what is older, only the events themselves know."""
PENDING_MAX = 200
INSERT = """INSERT INTO usage_key_places (received_on, keys, bits, batches, offsets, marks)
  VALUES ((now() AT TIME ZONE 'UTC')::date, %s, %s, %b, %b, %b) RETURNING id"""
SMALL = """DELETE FROM usage_key_places WHERE id = ANY(ARRAY(SELECT id FROM usage_key_places WHERE bits IS NULL ORDER BY id LIMIT %s))
  RETURNING keys, batches, marks"""
FORGET = "DELETE FROM usage_key_places WHERE received_on < (now() AT TIME ZONE 'UTC')::date - %s"
LOOK = """SELECT id, keys, bits, CASE WHEN bits IS NULL THEN marks
    ELSE substring(offsets FROM ((%(hash)s::bigint >> (32 - bits)) * 4 + 1)::int FOR 8) END AS part FROM usage_key_places"""
MARKS = """SELECT p.id, substring(p.marks FROM a.since * 2 + 1 FOR a.marks * 2) AS part, p.bits, length(p.batches) / 16 AS groups
  FROM unnest(%s::bigint[], %s::int[], %s::int[]) AS a(id, since, marks) JOIN usage_key_places p ON p.id = a.id"""
RANGES = """SELECT p.id, a.part, substring(p.batches FROM a.part * 16 + 1 FOR 16) AS range
  FROM unnest(%s::bigint[], %s::int[]) AS a(id, part) JOIN usage_key_places p ON p.id = a.id"""
BATCHES = """SELECT DISTINCT b.id, b.payload FROM unnest(%s::bigint[], %s::bigint[]) AS r(first, last)
  JOIN usage_batches b ON b.id BETWEEN r.first AND r.last"""
WAITING = """SELECT b.id, b.payload FROM (SELECT batch_id, received_at FROM usage_pending ORDER BY batch_id DESC LIMIT %s) AS w
  JOIN usage_batches b ON b.id = w.batch_id AND b.received_at = w.received_at"""
SEED = "SELECT dedup_seed FROM usage_state"
Hashes = NDArray[np.uint32]
Ids = NDArray[np.int64]


class Place(NamedTuple):
    """An event as it was logged: where its row is, unless it was corrected since. Numbers are those of the usage tables."""

    organization_number: int
    event_number: int
    timestamp: datetime
    batch_id: int
    position: int


@dataclass(frozen=True, slots=True)
class Form:
    """A row's contents: `batches` are pairs (first, last) of batch ids by group. Without `bits`, `marks` are whole hashes, then groups."""

    keys: int
    bits: int | None
    batches: bytes
    offsets: bytes | None
    marks: bytes


def form(hashes: Hashes, which: NDArray[Any], ranges: Ids) -> Form:
    """The row of keys with these hashes; `ranges[which[i]]` holds the first and the last batch the i-th may have come in."""
    order = np.argsort(ranges[:, 0], kind="stable")
    groups = min(GROUPS_MAX, len(order))
    group_of = np.empty(len(order), np.int64)
    group_of[order] = np.arange(len(order)) * groups // len(order)
    starts = np.searchsorted(group_of[order], np.arange(groups))
    merged = np.stack((np.minimum.reduceat(ranges[order, 0], starts), np.maximum.reduceat(ranges[order, 1], starts)), axis=1)
    group, batches = group_of[which], merged.astype("<i8").tobytes()
    if len(hashes) < SMALL_KEYS:
        by_hash = np.argsort(hashes, kind="stable")
        marks = hashes[by_hash].astype("<u4").tobytes() + group[by_hash].astype(np.uint8).tobytes()
        return Form(len(hashes), None, batches, None, marks)
    bits = (len(hashes) // BUCKET_KEYS).bit_length() - 1
    bucket = (hashes >> np.uint32(HASH_BITS - bits)).astype(np.uint32)
    by_bucket = np.argsort(bucket.astype(np.uint16) if bits <= MARK_BITS else bucket, kind="stable")
    offsets = np.concatenate(([0], np.cumsum(np.bincount(bucket, minlength=2**bits)))).astype("<u4").tobytes()
    marks = _marks(hashes[by_bucket], bits, groups, group[by_bucket])
    return Form(len(hashes), bits, batches, offsets, marks.astype("<u2").tobytes())


def _marks(hashes: Hashes, bits: int, groups: int, group: Any) -> NDArray[np.uint16]:
    """The bits of each hash behind those of its bucket, then its group."""
    group_bits = (groups - 1).bit_length()
    kept = min(MARK_BITS - group_bits, HASH_BITS - bits)
    prints = (hashes.astype(np.uint64) >> np.uint64(HASH_BITS - bits - kept)) & np.uint64((1 << kept) - 1)
    return ((prints << np.uint64(group_bits)) | np.asarray(group, np.uint64)).astype(np.uint16)


def note(connection: Connection[Any], keys: tuple[NDArray[np.uint64], Ids] | None) -> None:
    """Note in which batch each key of one flush stands, in the connection's open transaction; now and then, put small rows together."""
    if keys is None or not len(keys[0]):
        return
    hashes, batch_ids = keys
    ids, which = np.unique(batch_ids, return_inverse=True)
    row_id = _insert(connection, form((hashes >> np.uint64(32)).astype(np.uint32), which, np.stack((ids, ids), axis=1)))
    if row_id % TOGETHER == 0:
        connection.execute(FORGET, (KEPT.days,))
        _put_together(connection)


def _insert(connection: Connection[Any], made: Form) -> int:
    row = connection.execute(INSERT, (made.keys, made.bits, made.batches, made.offsets, made.marks)).fetchone()
    return int(row[0]) if row else 0


def _put_together(connection: Connection[Any]) -> None:
    rows = connection.execute(SMALL, (TOGETHER,)).fetchall()
    if not rows:
        return
    hashes, which, ranges, before = [], [], [], 0
    for keys, batches, marks in rows:
        hashes.append(np.frombuffer(marks, "<u4", keys))
        ranges.append(np.frombuffer(batches, "<i8").reshape(-1, 2))
        which.append(np.frombuffer(marks, np.uint8, keys, 4 * keys).astype(np.int64) + before)
        before += len(ranges[-1])
    _insert(connection, form(np.concatenate(hashes), np.concatenate(which), np.concatenate(ranges)))


def find(connection: Connection[Any], key: str, organization_number: int | None = None) -> list[Place]:
    """The logged events with this key, of one organization or of any; those that wait to be counted too."""
    row = connection.execute(SEED).fetchone()
    if row is None or not key.isascii():
        return []
    (high,) = np.frombuffer(xxhash.xxh3_128_digest(key.encode(), row[0]), "<u8", 1)
    ranges = _ranges(connection, int(high) >> 32)
    found: list[Place] = []
    batches = connection.execute(BATCHES, tuple(map(list, zip(*ranges, strict=True)))).fetchall() if ranges else []
    for batch_id, payload in {*batches, *connection.execute(WAITING, (PENDING_MAX,)).fetchall()}:
        found += _in_batch(batch_id, bytes(payload), key.encode())
    return sorted({one for one in found if organization_number in (None, one.organization_number)}, key=lambda one: -one.batch_id)


def _ranges(connection: Connection[Any], hashed: int) -> list[tuple[int, int]]:
    """First and last batch of each group that may hold a key with this hash."""
    wanted: list[tuple[int, int]] = []
    asked: list[tuple[int, int, int]] = []
    for row_id, keys, bits, part in connection.execute(LOOK, {"hash": hashed}, binary=True):
        if bits is None:
            place = int(np.searchsorted(hashes := np.frombuffer(part, "<u4", keys), hashed))
            while place < keys and int(hashes[place]) == hashed:
                wanted.append((row_id, part[4 * keys + place]))
                place += 1
        else:
            since, until = np.frombuffer(part, "<u4").tolist()
            asked.append((row_id, since, until - since))
    if asked:
        for row_id, part, bits, groups in connection.execute(MARKS, tuple(map(list, zip(*asked, strict=True))), binary=True):
            marks, mask = np.frombuffer(part, "<u2"), (1 << (groups - 1).bit_length()) - 1
            mine = int(_marks(np.array([hashed], np.uint32), bits, groups, 0)[0])
            wanted += [(row_id, int(mark) & mask) for mark in marks[(marks & np.uint16(0xFFFF ^ mask)) == mine].tolist()]
    if not wanted:
        return []
    rows = connection.execute(RANGES, tuple(map(list, zip(*wanted, strict=True))), binary=True).fetchall()
    return [tuple(np.frombuffer(part, "<i8").tolist()) for _, _, part in rows]


def _in_batch(batch_id: int, payload: bytes, key: bytes) -> Sequence[Place]:
    try:
        batch = column_form.unpack(payload)
    except Corrupt:
        return []  # it is in quarantine, and counted nowhere
    if key not in batch.texts.data:
        return []
    return [
        Place(int(batch.organizations[i]), int(batch.events[i]), instant(int(batch.timestamps[i])), batch_id, int(batch.positions[i]))
        for i, mine in enumerate(batch.texts.all_keys())
        if mine == key
    ]
