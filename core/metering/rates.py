"""How much a key may send: a token bucket per key, one for all processes, so that one noisy sender costs nobody else anything.

The bucket is in Valkey, and no request waits for it: each process tells it ten times a second what it let in, and learns what is left.
In between it judges by what it knows, so a key may overdraw by what it sends in such a moment. While Valkey is away, each process
has a bucket of its own that fills with its share.
"""

from __future__ import annotations

import threading
import time
import uuid

import structlog
from redis import Redis
from redis.exceptions import RedisError

from core.errors import RateLimited

BURST_SECONDS = 10
KEYS_MAX = 50_000
SETTLE_SECONDS = 0.1
RETRY_SECONDS = 1.0
IDLE_SECONDS = 10.0
VALKEY_SECONDS_MAX = 2.0
NAME = "valueverse:rate"
SETTLE = """local rate, full, taken = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local known = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = math.min(full, (tonumber(known[1]) or full) + math.max(0, now - (tonumber(known[2]) or now)) * rate) - taken
redis.call('HSET', KEYS[1], 'level', string.format('%.3f', level), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil((full - level) / rate) + 1)
return string.format('%.3f', level)"""
"""A bucket that would be full again is forgotten."""


class Rates:
    """Buckets that fill with `per_second` of `what` a second up to BURST_SECONDS' worth. A request may overdraw; the next ones wait.

    Without `redis_url`, or while nothing answers there, a process has a `workers`-th of it.
    """

    def __init__(self, per_second: int, what: str = "events", *, workers: int = 1, redis_url: str = "") -> None:
        self._per_second, self._share = float(per_second), max(1.0, per_second / max(1, workers))
        self._what = what
        self._buckets: dict[uuid.UUID, tuple[float, float]] = {}
        self._untold: dict[uuid.UUID, int] = {}
        self._lock = threading.Lock()
        self._redis = _client(redis_url) if redis_url else None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.shared = False

    def check(self, key_id: uuid.UUID) -> None:
        """Raise RateLimited while the key's bucket is overdrawn."""
        level, at = self._buckets.get(key_id, (0.0, 0.0))
        rate = self._rate
        missing = -(level + (time.monotonic() - at) * rate) / rate if at else 0.0
        if missing > 0:
            seconds = max(1, round(missing + 0.5))
            message = f"This key sends more than {self._per_second:.0f} {self._what} a second; nothing was kept."
            raise RateLimited(message, retry_after_seconds=seconds)

    def take(self, key_id: uuid.UUID, events: int) -> None:
        """Count accepted work against the key."""
        now, rate = time.monotonic(), self._rate
        full = rate * BURST_SECONDS
        with self._lock:
            level, at = self._buckets.get(key_id, (full, now))
            self._buckets[key_id] = (min(full, level + (now - at) * rate) - events, now)
            if self._redis is not None:
                self._untold[key_id] = self._untold.get(key_id, 0) + events
                if self._thread is None:
                    self._thread = threading.Thread(target=self._settle_on, args=(self._redis,), name="rates", daemon=True)
                    self._thread.start()
            if len(self._buckets) > KEYS_MAX:
                self._buckets = dict(sorted(self._buckets.items(), key=lambda item: item[1][1])[KEYS_MAX // 2 :])

    def close(self) -> None:
        """Tell nothing any more."""
        self._stopped.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    @property
    def _rate(self) -> float:
        return self._per_second if self.shared else self._share

    def _settle_on(self, client: Redis) -> None:
        pause, told_at = 0.0, time.monotonic()
        while not self._stopped.wait(pause):
            if self._untold:
                told_at = time.monotonic()
            with self._lock:
                if time.monotonic() - told_at > IDLE_SECONDS and not self._untold:
                    self._thread = None
                    break
            try:
                self._settle(client)
                self.shared, pause = True, SETTLE_SECONDS
            except RedisError as error:
                if self.shared or not pause:
                    structlog.get_logger("valueverse.usage").warning("rates are kept by each process alone", error=str(error))
                # What was taken meanwhile is not told later: the shared bucket has filled for as long.
                self.shared, pause = False, RETRY_SECONDS
        client.connection_pool.disconnect()

    def _settle(self, client: Redis) -> None:
        """Tell what was taken, and learn what is left for these keys; nothing taken, nothing asked."""
        with self._lock:
            told, self._untold = self._untold, {}
        if not told and self.shared:
            return
        full = self._per_second * BURST_SECONDS
        with client.pipeline(transaction=False) as pipe:
            pipe.ping()
            for key_id, taken in told.items():
                pipe.eval(SETTLE, 1, f"{NAME}:{self._what}:{key_id}", self._per_second, full, taken)
            levels = pipe.execute()[1:]
        now = time.monotonic()
        with self._lock:
            for key_id, level in zip(told, levels, strict=True):
                self._buckets[key_id] = (float(level) - self._untold.get(key_id, 0), now)


def _client(redis_url: str) -> Redis:
    return Redis.from_url(redis_url, socket_timeout=VALKEY_SECONDS_MAX, socket_connect_timeout=VALKEY_SECONDS_MAX)
