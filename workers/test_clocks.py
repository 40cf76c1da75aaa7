"""Walking a test clock to where it was sent; each thing due on the way runs as it does in real time, one transaction at a time."""

from __future__ import annotations

import time
import uuid

import dramatiq

from core import clock, test_clocks
from core.audit import SYSTEM
from core.db import transaction
from core.errors import Conflict, Unavailable
from core.invoicing import draft, finalize
from core.metering import queries as metering
from core.test_clocks import Due
from workers.payments import collect

WALK_MILLISECONDS_MAX = 3_600_000
USAGE_SECONDS_MAX = 30
USAGE_POLL_SECONDS = 0.05


@dramatiq.actor(time_limit=WALK_MILLISECONDS_MAX)
def advance_test_clock(clock_id: str) -> None:
    """Stop at each instant at which something is due and carry it out; ends where the clock was sent, or says why it cannot."""
    walker = uuid.UUID(clock_id)
    try:
        walk(walker)
    except Conflict as error:
        with transaction() as session:
            test_clocks.fail(session, walker, error=error.message)


def walk(clock_id: uuid.UUID) -> None:
    """The whole way. Two walkers on one clock only do each other's work: every act finds its work by state and is harmless twice."""
    before = None
    while True:
        wait_for_usage()
        with transaction() as session:
            due = test_clocks.due_now(session, clock_id)
        if due and due == before:
            raise Conflict(f"The clock cannot leave {due.at.isoformat()}: what is due there stays due. See the invoice run errors.")
        if due:
            carry_out(due)
            before = due
            continue
        with transaction() as session:
            if not test_clocks.step(session, clock_id):
                return


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
    """Finalize, rate, charge, as of the clock's instant; a subscription waits for its last draft, so drafts come first."""
    if due.draft_ids:
        with transaction() as session:
            finalize.finalize_many(session, due.draft_ids, at=due.at, actor=SYSTEM)
    elif due.subscription_ids:
        with transaction() as session:
            draft.bill_many(session, due.subscription_ids, as_of=due.at, actor=SYSTEM)
    else:
        for invoice_id in due.invoice_ids:
            collect(invoice_id, at=due.at)
