"""Events and their delivery: signed, from a background thread, again and again until the receiver answers 2xx."""

import hashlib
import heapq
import hmac
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.fakes.provider.store import Object, Store, public

RETRY_SECONDS = (1, 2, 5, 15, 60, 300, 900, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 86_400)
GIVE_UP_SECONDS = 3 * 86_400
TIMEOUT_SECONDS = 10


def signature(body: bytes, secret: str, moment: int) -> str:
    """The `Stripe-Signature` header: HMAC-SHA256 over `<time>.<body>`."""
    digest = hmac.new(secret.encode(), str(moment).encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


class Events:
    """Keeps events in the store and delivers them to one address. The knobs `dup`, `drop`, `delay` and `shuffle` make delivery worse."""

    def __init__(self, store: Store, url: str | None, secret: str, api_version: str = "2026-10-28.endive") -> None:
        self._store = store
        self.url, self.secret, self.api_version = url, secret, api_version
        self.dup, self.drop, self.delay, self.shuffle = 1, False, 0.0, False
        self._due: list[tuple[float, int, str, int]] = []
        self._count = 0
        self._wake = threading.Condition()
        self._stopped = False
        self._senders = ThreadPoolExecutor(8, thread_name_prefix="webhook")
        self._session = requests.Session()
        self._session.trust_env = False
        delivered = {row["event"] for row in store.rows("deliveries") if row["status"] and 200 <= row["status"] < 300}
        for event in store.all("event"):
            if event["id"] not in delivered and event["created"] > store.now() - GIVE_UP_SECONDS:
                self._schedule(event["id"], 0, 0)
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def emit(self, kind: str, thing: Object, *, key: str | None, request_id: str | None) -> None:
        """Record that something happened to an object; called inside of the change."""
        event = self._store.put(
            {
                "id": self._store.new_id("evt"),
                "object": "event",
                "api_version": self.api_version,
                "created": self._store.now(),
                "data": {"object": thing},
                "livemode": False,
                "pending_webhooks": 1 if self.url else 0,
                "request": {"id": request_id, "idempotency_key": key},
                "type": kind,
            }
        )
        if self.drop:
            return
        for _ in range(self.dup):
            self._schedule(event["id"], 0, self.delay + (random.uniform(0, 0.5) if self.shuffle else 0))

    def send(self, identity: str, times: int = 1) -> None:
        """Deliver an event again."""
        for _ in range(times):
            self._schedule(self._store.get("event", identity)["id"], 0, 0)

    def configure(self, **knobs: object) -> None:
        """Turn the knobs, or change `url` and `secret`."""
        for name, value in knobs.items():
            setattr(self, name, value)

    def state(self) -> dict[str, object]:
        """The knobs as they are, and how many deliveries wait."""
        with self._wake:
            return {name: getattr(self, name) for name in ("url", "dup", "drop", "delay", "shuffle")} | {"waiting": len(self._due)}

    def stop(self) -> None:
        """Stop delivering."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join(timeout=5)
        self._senders.shutdown(wait=True, cancel_futures=True)

    def _schedule(self, event: str, attempt: int, seconds: float) -> None:
        with self._wake:
            self._count += 1
            heapq.heappush(self._due, (time.monotonic() + seconds, self._count, event, attempt))
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._stopped and (not self._due or self._due[0][0] > time.monotonic()):
                    self._wake.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._stopped:
                    return
                _, _, event, attempt = heapq.heappop(self._due)
            self._senders.submit(self._deliver, event, attempt)

    def _deliver(self, identity: str, attempt: int) -> None:
        """One delivery. The event is read under the store's lock, so never before the change that made it is on disk."""
        with self._store.lock:
            body = json.dumps(public(self._store.get("event", identity)), indent=2).encode()
        if not self.url:
            return
        status = None
        headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signature(body, self.secret, int(time.time()))}
        try:
            answer = self._session.post(self.url, data=body, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)
            status = answer.status_code
        except requests.RequestException:
            status = None  # nobody there: the same as an answer that is not 2xx
        with self._store.change():
            self._store.append("deliveries", event=identity, url=self.url, status=status, at=self._store.now())
        if (status is None or not 200 <= status < 300) and attempt < len(RETRY_SECONDS) and not self._stopped:
            self._schedule(identity, attempt + 1, RETRY_SECONDS[attempt])
