"""The scheduler: `python -m workers.clock`. It finds work by its state and rings for the actors; it keeps nothing itself.

A message lost by the queue is rung for again, so a flushed or restarted Valkey costs seconds. Two schedulers at once are harmless: one
works, the other waits for the lock, and what is rung twice is done once.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dramatiq.errors import BrokerConnectionError
from redis.exceptions import RedisError

from core import audit, clock, config, jobs, test_clocks
from core.db import is_transient, only_one, transaction
from core.entitlements import reserve, watch
from core.identity import retention
from core.invoicing import credit_expiry, due, plan_moves, recount, run, simulation
from core.invoicing.models import RunStatus
from core.metering import keeping, sampling
from core.notifications import email
from core.notifications import queries as notifications
from core.payments import queries as payments
from core.payments import standing
from workers import app

log = logging.getLogger(__name__)

LOCK = 7_710_002
TICK_SECONDS = 0.25
AGAIN_SECONDS = 30.0
"""A job about one thing, rung for and not yet done, is rung for again only after this long."""
AGAIN_SECONDS_FOR_ALL = 2.0
"""The same for a job that does whatever is due; it has mostly been done by then, and there is more."""
URGENT_SECONDS = {"evaluate_limits": 0.25}
"""The same for jobs somebody's money waits for."""

Ring = tuple[str, tuple[str, ...]]
Find = Callable[[Any], Iterable[Ring]]


@dataclass
class Sweep:
    """One search, run every `seconds`; `finds` yields the jobs to ring for."""

    finds: Find
    seconds: float
    next_at: float = 0.0


@dataclass
class Bell:
    """Sends jobs, the same one not again for a while."""

    rung: dict[Ring, float] = field(default_factory=dict)

    def ring(self, rings: Iterable[Ring], now: float) -> int:
        """Send what has not been sent lately; returns how many were."""
        self.rung = {entry: at for entry, at in self.rung.items() if now - at < _pause(entry)}
        fresh = [entry for entry in rings if entry not in self.rung]
        for name, ids in fresh:
            jobs.send(name, *ids)
            self.rung[name, ids] = now
        return len(fresh)


def _pause(entry: Ring) -> float:
    return URGENT_SECONDS.get(entry[0], AGAIN_SECONDS if entry[1] else AGAIN_SECONDS_FOR_ALL)


def billing(session: Any) -> Iterable[Ring]:
    """Subscriptions and drafts whose time has come."""
    if due.to_bill(session, as_of=clock.now(), limit=100).ids:
        yield "bill_due", ()
    if due.to_finalize(session, at=clock.now(), limit=1):
        yield "finalize_due", ()


def mail(session: Any) -> Iterable[Ring]:
    """Facts nobody has been told, and mails that are due."""
    if notifications.facts_wait(session):
        yield "dispatch_outbox", ()
    if notifications.mail_is_due(session, now=clock.now()):
        yield "send_notifications", ()


def limits(session: Any) -> Iterable[Ring]:
    """Customers with limits whose usage was just counted."""
    if watch.touched(session):
        yield "evaluate_limits", ()


def watched(session: Any) -> Iterable[Ring]:
    """Customers whose plan has limits, and those nobody has looked at for a while."""
    watch.refresh(session, at=clock.now())
    return ()


def money(session: Any) -> Iterable[Ring]:
    """Invoices to charge, charges without an outcome, standings to review, events of the provider that nobody has handled."""
    now = clock.now()
    yield from (("collect_invoice", (str(found),)) for found in payments.due_invoice_ids(session, as_of=now))
    yield from (("resolve_transaction", (str(found),)) for found in payments.unresolved_ids(session, now=now))
    yield from (("review_standing", (str(found),)) for found in standing.waiting(session, as_of=now))
    yield from (("process_inbound", (str(found),)) for found in payments.pending_inbound(session, now=now))


def credits_expiring(session: Any) -> Iterable[Ring]:
    """Credit to be told of before it expires, or taken back."""
    if credit_expiry.waiting(session, as_of=clock.now(), limit=1):
        yield "expire_credits", ()


def documents(session: Any) -> Iterable[Ring]:
    """Invoices without their PDF."""
    yield from (("render_invoice_pdf", (str(found),)) for found in due.to_print(session))


def long_work(session: Any) -> Iterable[Ring]:
    """Invoice runs, price simulations, moves to a plan version and test clocks that somebody set going and that are not there yet."""
    names = {RunStatus.RATING.value: "rate_run", RunStatus.FINALIZING.value: "finalize_run"}
    yield from ((names[entry.status], (str(entry.id),)) for entry in run.unfinished(session))
    yield from (("run_simulation", (str(found),)) for found in simulation.unfinished(session))
    yield from (("run_plan_move", (str(found),)) for found in plan_moves.unfinished(session))
    yield from (("advance_test_clock", (str(found),)) for found in test_clocks.advancing(session))


def provider(_: Any) -> Iterable[Ring]:
    """The payment provider's records against ours, whatever was lost on the way."""
    if config.current().stripe_api_key:
        yield "reconcile_provider", ()


def upkeep(session: Any) -> Iterable[Ring]:
    """Seal the audit trail; give up on mails that a killed process left half sent."""
    audit.seal(session)
    email.give_up_on_silent(session, now=clock.now())
    return ()


def proof(session: Any) -> Iterable[Ring]:
    """Count an hour of some customers' usage anew and compare it with their invoices; what differs is logged, audited and shown."""
    sampling.steady(session)
    days = config.current().adjustment_days

    def billed(start: datetime, end: datetime, numbers: Sequence[int]) -> Sequence[sampling.Told]:
        found = recount.compare(session, start=start, end=end, at=clock.now(), adjustment_days=days, organization_numbers=numbers)
        return found.differences

    sampling.sample(session, at=clock.now(), billed=billed)
    sampling.forget(session, at=clock.now())
    return ()


def keeping_time(session: Any) -> Iterable[Ring]:
    """The daily run of archiving and purging usage."""
    hour = config.current().usage_keeping_hour
    if hour is not None and keeping.is_due(session, hour=hour, at=clock.now()):
        yield "keep_usage", ()


def expiry(session: Any) -> Iterable[Ring]:
    """Delete what has been kept long enough: sign-ins, guesses, answers under idempotency keys."""
    retention.purge(session, at=clock.now())
    reserve.forget(session, at=clock.now())
    return ()


def sweeps() -> list[Sweep]:
    """Every search and how often it is made."""
    return [
        Sweep(limits, 0.25),
        Sweep(mail, 1),
        Sweep(billing, 1),
        Sweep(money, 2),
        Sweep(upkeep, 3),
        Sweep(watched, 10),
        Sweep(documents, 10),
        Sweep(credits_expiring, 10),
        Sweep(long_work, 10),
        Sweep(keeping_time, 60),
        Sweep(expiry, 3600),
        Sweep(proof, 3600),
        Sweep(provider, 3600),
    ]


def tick(searches: Iterable[Sweep], bell: Bell, *, now: float) -> int:
    """Make the searches that are due; returns how many jobs were rung for. A search that fails is logged and made again."""
    with only_one(LOCK) as mine:
        return sum(_sweep(sweep, bell, now) for sweep in searches if sweep.next_at <= now) if mine else 0


def _sweep(sweep: Sweep, bell: Bell, now: float) -> int:
    sweep.next_at = now + sweep.seconds
    try:
        with transaction() as session:
            rings = list(sweep.finds(session))
        return bell.ring(rings, now)
    except (RedisError, BrokerConnectionError) as error:
        log.warning("the queue is away (%s); the work stays where it is", error)
    return 0


def main() -> None:
    """Sweep until told to stop."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    searches, bell = sweeps(), Bell()
    log.info("scheduler started")
    while not stop.wait(TICK_SECONDS):
        try:
            with app().app_context():
                tick(searches, bell, now=time.monotonic())
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("the database is away (%s); trying again", error)


if __name__ == "__main__":
    main()
