"""A table of keys in memory."""

from __future__ import annotations

from datetime import date

import numpy as np
from numpy.typing import NDArray

from core.metering.columns import Flags
from core.metering.entries import ENTRY, LOAD_AT_EVENTS, PROBING, Entries, parts

LOAD_MAX = 0.7


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
        code = PROBING.get(wanted=len(rows) >= LOAD_AT_EVENTS)
        if code is not None:
            code.find(parts(rows), (self._high, self._low, self._fingerprint), found, fingerprints)
            return found, fingerprints
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

    def insert(self, rows: Entries, received_on: date) -> None:
        """Take keys that are not here yet, each once."""
        self.used += len(rows)
        self.newest = max(self.newest, received_on)
        code = PROBING.get(wanted=len(rows) >= LOAD_AT_EVENTS)
        if code is not None:
            code.insert(parts(rows), (self._high, self._low, self._fingerprint))
            return
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
