"""From batches of the log to what one counting transaction writes: new rows, changes of the rollups, the fate of each batch.

Nothing here talks to the database except through the DedupStore that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.metering import additions
from core.metering import columns as column_form
from core.metering.additions import INT64_SAFE, Chosen, Sums
from core.metering.columns import Columns, Corrupt, Flags, Int32, Int64, quantity
from core.metering.dedup import Claim
from core.metering.directory import EventType
from core.metering.entries import Entries, entries, of_keys
from core.metering.instants import instant
from core.metering.meters import HOUR_MICROS, Event, Meter, UnreadableProperty, Usage, add, group_of, properties, read
from core.metering.models import Aggregation


@dataclass(frozen=True, slots=True)
class Batch:
    """One claimed batch of the log; `received_at` in microseconds."""

    id: int
    received_at: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a batch; `duplicates` and `conflicts` are positions in the request."""

    batch_id: int
    counted: int
    duplicates: list[int]
    conflicts: list[int]


@dataclass(frozen=True, slots=True)
class Bucket:
    """One rollup row's key; `hour` in microseconds."""

    organization: int
    metric: int
    hour: int
    group: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Everything one flush writes. `tallies` are the changes that needed a look at properties, by aggregation."""

    rows: bytes | memoryview
    size: int
    sums: Sums | None
    tallies: Mapping[Aggregation, Mapping[Bucket, Usage]]
    fates: Sequence[Fate]
    poisoned: Sequence[tuple[Batch, str]]
    keys: tuple[NDArray[np.uint64], Int64] | None = None
    """Hashes of the keys that counted, and the batch of each."""

    @property
    def changes(self) -> int:
        """How many rollup rows of plain metrics change."""
        return 0 if self.sums is None else len(self.sums.hours)


def count(batches: Sequence[Batch], types: Mapping[int, EventType], seed: int, claim: Callable[[Entries], Claim]) -> Counted:
    """Count `batches` (in order of id); `types` by event number. Batches that cannot be read are set aside in `poisoned`."""
    good, sizes, parts, poisoned = _unpacked(batches)
    if not parts:
        return Counted(b"", 0, None, {}, (), poisoned)
    everything = column_form.concatenate(parts)
    owner = np.repeat(np.arange(len(good)), sizes)
    rows = entries(everything, seed)
    claimed = claim(rows)
    conflicting = ~claimed.first & (claimed.fingerprints != rows["fingerprint"])
    fates = _fates(good, sizes, owner, everything, claimed.first, conflicting)
    kept = np.flatnonzero(claimed.first)
    order = kept[_sorted(everything.organizations[kept], everything.events[kept], everything.timestamps[kept])]
    numbers = np.array([batch.id for batch in good], np.int64)
    received = np.array([batch.received_at for batch in good], np.int64)
    keys = of_keys(rows[kept], everything.organizations[kept], seed), numbers[owner[kept]]
    chosen = Chosen(everything, order, owner, numbers, received)
    sums, tallies = _usage(chosen, types)
    return Counted(additions.rows(chosen), len(chosen), sums, tallies, fates, poisoned, keys)


def _unpacked(batches: Sequence[Batch]) -> tuple[list[Batch], list[int], list[Columns], list[tuple[Batch, str]]]:
    """The batches that can be read, the events of each, all these events, and the others with what is wrong. Lone events side by side
    are read at once."""
    good: list[Batch] = []
    sizes: list[int] = []
    parts: list[Columns] = []
    poisoned: list[tuple[Batch, str]] = []
    for lone, group in groupby(batches, lambda batch: column_form.is_lone(batch.payload)):
        if lone:
            ones = list(group)
            parts.append(column_form.unpack_lone([batch.payload for batch in ones]))
            good += ones
            sizes += [1] * len(ones)
            continue
        for batch in group:
            try:
                parts.append(column_form.unpack(batch.payload))
            except Corrupt as error:
                poisoned.append((batch, str(error)))
                continue
            good.append(batch)
            sizes.append(len(parts[-1]))
    return good, sizes, parts, poisoned


def _sorted(organizations: Int32, events: Int32, timestamps: Int64) -> NDArray[np.intp]:
    """Rows by organization, event number and timestamp; through one integer where the three fit into it, as they nearly always do."""
    if not len(timestamps):
        return np.zeros(0, np.intp)
    first, kinds = int(timestamps.min()), int(events.max()) + 1
    span = int(timestamps.max()) - first + 1
    if min(int(organizations.min()), int(events.min())) < 0 or (int(organizations.max()) + 1) * kinds * span >= INT64_SAFE:
        return np.lexsort((timestamps, events, organizations))
    return np.argsort((organizations.astype(np.int64) * kinds + events) * span + (timestamps - first), kind="stable")


def _fates(
    batches: Sequence[Batch], sizes: Sequence[int], owner: NDArray[Any], everything: Columns, first: Flags, conflicting: Flags
) -> list[Fate]:
    if first.all():
        return [Fate(batch.id, size, [], []) for batch, size in zip(batches, sizes, strict=True)]
    counted = np.bincount(owner, weights=first, minlength=len(batches)).astype(np.int64).tolist()
    again: list[list[int]] = [[] for _ in batches]
    other: list[list[int]] = [[] for _ in batches]
    for row in np.flatnonzero(~first).tolist():
        (other if conflicting[row] else again)[owner[row]].append(int(everything.positions[row]))
    return [Fate(batch.id, counted[i], again[i], other[i]) for i, batch in enumerate(batches)]


def _usage(chosen: Chosen, types: Mapping[int, EventType]) -> tuple[Sums | None, dict[Aggregation, dict[Bucket, Usage]]]:
    """What the chosen events add to the rollups: plain metrics by whole columns, the others event by event."""
    if not len(chosen):
        return None, {}
    plain = {number: [meter for meter in kind.meters if meter.plain] for number, kind in types.items()}
    rest = {number: [meter for meter in kind.meters if not meter.plain] for number, kind in types.items()}
    read = [number for number, meters in rest.items() if meters]
    looked_at = chosen.order[np.isin(chosen.columns.events[chosen.order], read)] if read else chosen.order[:0]
    return additions.sums(additions.groups(chosen), plain), _tallies(chosen, looked_at, rest)


def _tallies(chosen: Chosen, rows: Int64, meters: Mapping[int, Sequence[Meter]]) -> dict[Aggregation, dict[Bucket, Usage]]:
    tallies: dict[Aggregation, dict[Bucket, Usage]] = {}
    mine, ids = column_form.take(chosen.columns, rows), chosen.numbers[chosen.owner[rows]]
    for row, raw in enumerate(mine.texts.all_properties()):
        event = Event(
            instant(int(mine.timestamps[row])),
            (int(ids[row]), int(mine.positions[row])),
            quantity(int(mine.wholes[row]), int(mine.fractions[row])),
            properties(raw),
        )
        hour = int(mine.timestamps[row]) // HOUR_MICROS * HOUR_MICROS
        for meter in meters[int(mine.events[row])]:
            tally(tallies, meter, int(mine.organizations[row]), hour, event)
    return tallies


def tally(tallies: dict[Aggregation, dict[Bucket, Usage]], meter: Meter, organization: int, hour: int, event: Event) -> None:
    """Add what the metric reads from the event to its bucket. An event whose property cannot be read does not feed it."""
    try:
        usage = read(meter, event)
    except UnreadableProperty:
        return
    if usage is None:
        return
    bucket = Bucket(organization, meter.number, hour, group_of(meter, event.properties))
    mine = tallies.setdefault(meter.aggregation, {})
    before = mine.get(bucket)
    mine[bucket] = usage if before is None else add(meter.aggregation, before, usage)
