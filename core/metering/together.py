"""Requests of one event that arrive at the same moment: judged in one pass and stored as one batch, each answered for itself.

What one event costs is mostly what a request costs: a look at its key, a pass over its body, a row of the log. One thread does that for
all requests that gathered while it was busy with those before. An event that needs a closer look is given back, with nothing done.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import structlog

from core.errors import BillingError
from core.metering import accept, compiled, lone
from core.metering.accept import Verdict
from core.metering.accounts import Account
from core.metering.bodies import Form
from core.metering.careful import Window
from core.metering.columns import Columns, Lone
from core.metering.directory import Directory, Principal
from core.metering.log import APPEND_SECONDS_MAX, WAITING_MAX, Pending, UsageLog, overrun
from core.metering.rates import Rates

GATHERED_MIN = 4
"""Fewer are judged one by one, which costs them less."""
PACED_MIN, PACE_SECONDS = 24, 0.006
"""After so many the next begin no sooner than this later, so that more gather. Few senders never wait."""
GROUP_MAX = 1_000
ALONE_SECONDS_MAX = 0.005
"""For so long a key's requests are judged one by one, then the rest of them is given back: other keys' wait for them."""
log = structlog.get_logger("valueverse.usage")


class Stored(NamedTuple):
    """Where an event is: in which batch, and where in it. `codes` is the JSON list of the metrics it feeds."""

    batch_id: int
    position: int
    codes: str


class Single:
    """A request of one event: its Authorization header and its body, and in the end where it is `stored`, or the `error`, or neither."""

    __slots__ = ("authorization", "body", "error", "stored", "waiting")

    def __init__(self, authorization: str, body: bytes, waiting: Any) -> None:
        self.authorization, self.body, self.waiting = authorization, body, waiting
        self.stored: Stored | None = None
        self.error: Exception | None = None


Admit = Callable[[str], Principal]
"""The key of an Authorization header, live and within its rate. Raises BillingError."""
Deliver = Callable[[Sequence[Single]], None]
"""Told of requests that have their outcome."""
_Judged = tuple[Columns | Lone, Sequence[str], Sequence[Single]]
_Begun = tuple[Pending, Sequence[str], Sequence[Single]]


class Together:
    """Judges and stores requests of one event, for one process; `now` is real time."""

    def __init__(
        self,
        directory: Directory,
        rates: Rates,
        usage_log: UsageLog,
        *,
        window: Window,
        now: Callable[[], datetime],
        admit: Admit,
        deliver: Deliver,
    ) -> None:
        self._directory, self._rates, self._log = directory, rates, usage_log
        self._window, self._now, self._admit, self._deliver = window, now, admit, deliver
        self._queue: queue.SimpleQueue[Single | None] = queue.SimpleQueue()
        self._paced_until = 0.0
        self._thread = threading.Thread(target=self._run, name="usage-together", daemon=True)

    def start(self) -> None:
        """Begin to take requests."""
        self._thread.start()

    def take(self, single: Single) -> None:
        """Judge the request and store it with those that come at the same time; `deliver` is called in a moment, by another thread.

        Raises Unavailable when too many wait.
        """
        if self._queue.qsize() >= WAITING_MAX:
            raise overrun()
        self._queue.put(single)

    def close(self) -> None:
        """Deliver what waits and stop."""
        self._queue.put(None)
        self._thread.join(APPEND_SECONDS_MAX)

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._gathered()
            if len(group) >= PACED_MIN:
                self._paced_until = time.monotonic() + PACE_SECONDS
            by_key: dict[str, list[Single]] = {}
            for single in group:
                by_key.setdefault(single.authorization, []).append(single)
            for begun in [begun for singles in by_key.values() for begun in self._begin(singles)]:
                self._finish(*begun)

    def _gathered(self) -> tuple[list[Single], bool]:
        """Everything that came, at least one request; and whether more may come."""
        single = self._queue.get()
        time.sleep(max(0.0, self._paced_until - time.monotonic()))
        group: list[Single] = []
        while single is not None:
            group.append(single)
            if len(group) >= GROUP_MAX:
                return group, True
            try:
                single = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _begin(self, singles: Sequence[Single]) -> list[_Begun]:
        """Judge requests of one key and send what is in order to the log; the others are given back, to be told what is wrong."""
        try:
            principal = self._admit(singles[0].authorization)
            own = accept.own_account(self._directory, principal)
            judged = self._judged(own, singles)
        except BillingError:
            judged = []
        except Exception:
            log.exception("single events could not be judged together")
            judged = []
        known = {id(single) for _, _, ones in judged for single in ones}
        if len(known) < len(singles):
            self._deliver([single for single in singles if id(single) not in known])
        return [begun for accepted, fed, ones in judged if (begun := self._logged(principal, accepted, fed, ones))]

    def _judged(self, own: Account | None, singles: Sequence[Single]) -> list[_Judged]:
        """The events in order and what each feeds: all as one batch, or each as its own, where they are few or one needs a closer look."""
        at, window = self._now(), self._window
        if len(singles) >= GATHERED_MIN:
            compiled.SCAN.get(wanted=True)
            lines = b"\n".join([single.body for single in singles])
            found = compiled.judge(self._directory, own, lines, Form.NDJSON, window=window, at=at, most=len(singles))
            if found is not None and len(found[0]) == len(singles):
                return [(*found, singles)]
        judged: list[_Judged] = []
        until = time.monotonic() + ALONE_SECONDS_MAX
        for single in singles:
            alone = lone.judge(self._directory, own, single.body, window=window, at=at)
            if alone is not None:
                judged.append((alone[0], (alone[1],), [single]))
            if time.monotonic() > until:
                break
        return judged

    def _logged(self, principal: Principal, accepted: Columns | Lone, fed: Sequence[str], singles: Sequence[Single]) -> _Begun | None:
        verdict = Verdict(len(singles), accepted, fed, (), principal.organization_id, principal.key_id, True)
        self._rates.take(principal.key_id, len(singles))
        try:
            return self._log.begin(verdict), fed, singles
        except BillingError as error:
            self._failed(singles, error)
        except Exception as error:
            log.exception("single events could not be sent to the log")
            self._failed(singles, error)
        return None

    def _finish(self, pending: Pending, fed: Sequence[str], singles: Sequence[Single]) -> None:
        """Tell the requests of one batch, once it is durable."""
        try:
            batch_id = pending.result()
            assert batch_id is not None, "every event of the batch was accepted"
        except BillingError as error:
            self._failed(singles, error)
            return
        except Exception as error:
            log.exception("single events could not be stored together")
            self._failed(singles, error)
            return
        for position, (single, codes) in enumerate(zip(singles, fed, strict=True)):
            single.stored = Stored(batch_id, position, codes)
        self._deliver(singles)

    def _failed(self, singles: Sequence[Single], error: Exception) -> None:
        for single in singles:
            single.error = error
        self._deliver(singles)
