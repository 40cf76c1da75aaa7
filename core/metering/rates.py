"""How much a key may send: a token bucket per key and process, so that one noisy sender costs nobody else anything."""

from __future__ import annotations

import threading
import time
import uuid

from core.errors import RateLimited

BURST_SECONDS = 10
KEYS_MAX = 50_000


class Rates:
    """Buckets that fill with `per_second` of `what` a second up to BURST_SECONDS' worth. A request may overdraw; the next ones wait."""

    def __init__(self, per_second: int, what: str = "events") -> None:
        self._per_second = per_second
        self._what = what
        self._buckets: dict[uuid.UUID, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def check(self, key_id: uuid.UUID) -> None:
        """Raise RateLimited while the key's bucket is overdrawn."""
        level, at = self._buckets.get(key_id, (0.0, 0.0))
        missing = -(level + (time.monotonic() - at) * self._per_second) / self._per_second if at else 0.0
        if missing > 0:
            seconds = max(1, round(missing + 0.5))
            message = f"This key sends more than {self._per_second} {self._what} a second; nothing was kept."
            raise RateLimited(message, retry_after_seconds=seconds)

    def take(self, key_id: uuid.UUID, events: int) -> None:
        """Count accepted work against the key."""
        now = time.monotonic()
        full = float(self._per_second * BURST_SECONDS)
        with self._lock:
            level, at = self._buckets.get(key_id, (full, now))
            self._buckets[key_id] = (min(full, level + (now - at) * self._per_second) - events, now)
            if len(self._buckets) > KEYS_MAX:
                self._buckets = dict(sorted(self._buckets.items(), key=lambda item: item[1][1])[KEYS_MAX // 2 :])
