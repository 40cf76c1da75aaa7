"""Actors of billing: rate a subscription, finalize a draft, carry an invoice run on. Each finds its work by state; twice does nothing."""

from __future__ import annotations

import uuid

import dramatiq

from core import clock
from core.audit import SYSTEM
from core.db import only_one, transaction
from core.errors import Conflict, NotFound
from core.invoicing import credit_expiry, draft, due, finalize, plan_moves, queries, run, simulation

RUN_MILLISECONDS_MAX = 6 * 3_600_000
BILLING_LOCK, FINALIZING_LOCK = 7_710_003, 7_710_004


@dramatiq.actor(throws=(NotFound,))
def bill_subscription(subscription_id: str) -> None:
    """Put what has fallen due on a draft."""
    with transaction() as session:
        now = clock.now(queries.subscriber(session, uuid.UUID(subscription_id)))
        draft.bill_many(session, [uuid.UUID(subscription_id)], as_of=now, actor=SYSTEM)


@dramatiq.actor(time_limit=RUN_MILLISECONDS_MAX)
def bill_due() -> None:
    """Rate whatever has fallen due in real time, set by set; a second one leaves it to the first."""
    with only_one(BILLING_LOCK) as more:
        last_id: uuid.UUID | None = None
        while more:
            with transaction() as session:
                found = due.to_bill(session, as_of=clock.now(), after_id=last_id)
                draft.bill_many(session, found.ids, as_of=clock.now(), actor=SYSTEM)
            last_id = found.last_id
            if last_id is None:
                return


@dramatiq.actor(time_limit=RUN_MILLISECONDS_MAX)
def finalize_due() -> None:
    """Finalize the drafts whose time has come, set by set; one that cannot be finalized is held back for a person."""
    with only_one(FINALIZING_LOCK) as more:
        while more:
            with transaction() as session:
                ids = due.to_finalize(session, at=clock.now())
                run.finalize_or_hold(session, ids, at=clock.now(), actor=SYSTEM)
            if not ids:
                return


@dramatiq.actor
def expire_credits() -> None:
    """Tell of credit that expires soon, take back what has expired; what is left over is rung for again."""
    with transaction() as session:
        now = clock.now()
        credit_expiry.look(session, credit_expiry.waiting(session, as_of=now), at=now)


@dramatiq.actor(throws=(NotFound, Conflict))
def finalize_invoice(invoice_id: str) -> None:
    """Make the draft a document that is owed."""
    with transaction() as session:
        now = clock.now(queries.owner(session, uuid.UUID(invoice_id)))
        finalize.finalize_invoice(session, uuid.UUID(invoice_id), at=now, actor=SYSTEM)


@dramatiq.actor(time_limit=RUN_MILLISECONDS_MAX, throws=(NotFound,))
def rate_run(run_id: str) -> None:
    """Rate everything that is due, set by set."""
    after: uuid.UUID | None = None
    while True:
        with transaction() as session:
            after = run.rate_set(session, uuid.UUID(run_id), after_id=after, at=clock.now(), actor=SYSTEM)
        if after is None:
            return


@dramatiq.actor(time_limit=RUN_MILLISECONDS_MAX, throws=(NotFound,))
def finalize_run(run_id: str) -> None:
    """Finalize the run's drafts, set by set, until none is left or somebody pauses it."""
    more = True
    while more:
        with transaction() as session:
            more = run.finalize_set(session, uuid.UUID(run_id), at=clock.now(), actor=SYSTEM)


@dramatiq.actor(time_limit=RUN_MILLISECONDS_MAX, throws=(NotFound,))
def run_simulation(simulation_id: str) -> None:
    """Price the simulation's segment, set by set."""
    more = True
    while more:
        with transaction() as session:
            more = simulation.run_set(session, uuid.UUID(simulation_id), at=clock.now())


@dramatiq.actor(time_limit=RUN_MILLISECONDS_MAX, throws=(NotFound,))
def run_plan_move(move_id: str) -> None:
    """Preview, move or take back, set by set, until a person is needed."""
    more = True
    while more:
        with transaction() as session:
            more = plan_moves.step(session, uuid.UUID(move_id), at=clock.now(), actor=SYSTEM)
