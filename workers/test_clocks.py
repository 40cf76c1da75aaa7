"""Walking a test clock to where it was sent; each thing due on the way runs as it does in real time, one transaction at a time."""

from __future__ import annotations

import time
import uuid

import dramatiq

from core import clock, test_clocks
from core.audit import SYSTEM
from core.db import only_one, transaction
from core.errors import Conflict, Unavailable
from core.invoicing import credit_expiry, draft, finalize
from core.metering import queries as metering
from core.payments import standing
from core.test_clocks import Due
from workers.payments import collect

WALK_MILLISECONDS_MAX = 3_600_000
USAGE_SECONDS_MAX = 30
USAGE_POLL_SECONDS = 0.05
HELD_SECONDS_MAX = 10
"""How long a row that somebody else holds (a person at the portal, a payment coming in) may keep the clock waiting."""
WALKING_LOCK = 7_710_100


@dramatiq.actor(time_limit=WALK_MILLISECONDS_MAX)
def advance_test_clock(clock_id: str) -> None:
    """Stop at each instant at which something is due and carry it out; ends where the clock was sent, or says why it cannot."""
    walker = uuid.UUID(clock_id)
    while _is_sent(walker):
        with only_one(lock_of(walker)) as alone:
            if not alone:  # whoever walks it already also sees this request: it looks again after its walk
                return
            try:
                walk(walker)
            except Conflict as error:
                with transaction() as session:
                    test_clocks.fail(session, walker, error=error.message)


def lock_of(clock_id: uuid.UUID) -> int:
    """The advisory lock of the one who walks this clock."""
    return WALKING_LOCK + clock_id.int % 1_000_003


def walk(clock_id: uuid.UUID) -> None:
    """The whole way. A killed walker's successor goes on where it stopped: every act finds its work by state and is harmless twice."""
    before, since = None, 0.0
    while True:
        wait_for_usage()
        with transaction() as session:
            due = test_clocks.due_now(session, clock_id)
        if due and due == before:
            if time.monotonic() - since > HELD_SECONDS_MAX:
                raise Conflict(f"The clock cannot leave {due.at.isoformat()}: what is due there stays due. See the invoice run errors.")
            time.sleep(USAGE_POLL_SECONDS)
        if due:
            carry_out(due)
            before, since = due, since if due == before else time.monotonic()
            continue
        with transaction() as session:
            if not test_clocks.step(session, clock_id):
                return


def _is_sent(clock_id: uuid.UUID) -> bool:
    """Whether the clock still has a way to go. Asked again after the walk: who was sent away by the lock counted on this one."""
    with transaction() as session:
        return test_clocks.get(session, clock_id).advance_to is not None


def wait_for_usage() -> None:
    """Let the aggregator count what was accepted so far, so that no invoice on the way misses it."""
    accepted_before = clock.now()
    deadline = time.monotonic() + USAGE_SECONDS_MAX
    while True:
        with transaction() as session:
            if not metering.pending_before(session, accepted_before):
                return
        if time.monotonic() > deadline:
            raise Unavailable("Accepted usage has not been counted yet; is the aggregator running?")
        time.sleep(USAGE_POLL_SECONDS)


def carry_out(due: Due) -> None:
    """Finalize, rate, charge, review, as of the clock's instant; a subscription waits for its last draft, so drafts come first."""
    if due.draft_ids:
        with transaction() as session:
            finalize.finalize_many(session, due.draft_ids, at=due.at, actor=SYSTEM)
    elif due.subscription_ids:
        with transaction() as session:
            draft.bill_many(session, due.subscription_ids, as_of=due.at, actor=SYSTEM)
    elif due.invoice_ids:
        for invoice_id in due.invoice_ids:
            collect(invoice_id, at=due.at)
    elif due.standing_ids:
        with transaction() as session:
            for subscription_id in due.standing_ids:
                standing.review(session, subscription_id, at=due.at)
    else:
        with transaction() as session:
            credit_expiry.look(session, due.credit_ids, at=due.at)
