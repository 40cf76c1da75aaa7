"""The machines around simulated lives: a clock that stops where something is due, sweeps in any order, processes that die."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core import test_clocks
from core.audit import SYSTEM
from core.db import transaction
from core.identity.models import TestClock
from core.invoicing import credit_expiry, draft, finalize
from core.payments import standing
from core.test_clocks import Due
from tests.simulator import wallet
from tests.simulator.house import House, Killed
from tests.simulator.kernel import Divergence

ROUNDS_MAX = 200


class Machines:
    """What a world's sweeps and clock do. `uncounted` says that usage was sent which the aggregator may not have counted yet."""

    house: House
    rng: random.Random
    now: datetime
    clock_id: uuid.UUID
    uncounted = False

    def sweep(self) -> None:
        """The scheduler's work at this moment, in any order, until nothing is due."""
        self.count()
        parts = [self._bill_due, self._finalize_due, self._collect_due, self._review_due, self._expire_due]
        for _ in range(ROUNDS_MAX):
            with transaction() as session:
                due = test_clocks.due_now(session, self.clock_id)
            if not due:
                return
            self.rng.shuffle(parts)
            for part in parts:
                part(due)
        raise Divergence(f"at {self.now} this stays due whatever is done: {due}")

    def count(self) -> None:
        """Wait until what was sent is counted."""
        if self.uncounted:
            self.house.counted()
            self.uncounted = False

    def alive(self, work: Callable[[Session], Any]) -> Any:
        """One transaction that may be killed at any statement, and is then tried again, as the queue would."""
        if self.rng.random() < 0.15:
            self.house.executioner.left = self.rng.randint(1, 25)
            try:
                with transaction() as session:
                    return work(session)
            except Killed:
                pass
            finally:
                self.house.executioner.left = 0
        with transaction() as session:
            return work(session)

    def pass_until(self, moment: datetime, *, idle: bool = False) -> None:
        """Let time pass from stop to stop, or all at once while the machines are down."""
        if not idle:
            self.sweep()
        with transaction() as session:
            clock = session.get_one(TestClock, self.clock_id)
            clock.advance_to = moment
            if idle:
                clock.frozen_time, clock.advance_to = moment, None
        while not idle and self._step():
            self.sweep()
        self.now = moment

    def _step(self) -> bool:
        with transaction() as session:
            goes_on = test_clocks.step(session, self.clock_id)
            self.now = session.get_one(TestClock, self.clock_id).frozen_time
        return goes_on

    def _bill_due(self, due: Due) -> None:
        if due.subscription_ids:
            self.alive(lambda session: draft.bill_many(session, due.subscription_ids, as_of=self.now, actor=SYSTEM))

    def _finalize_due(self, due: Due) -> None:
        if due.draft_ids:
            self.alive(lambda session: finalize.finalize_many(session, due.draft_ids, at=self.now, actor=SYSTEM))

    def _collect_due(self, due: Due) -> None:
        for invoice_id in due.invoice_ids:
            wallet.collect(self, invoice_id)

    def _review_due(self, due: Due) -> None:
        for subscription_id in due.standing_ids:
            self.alive(lambda session, wanted=subscription_id: standing.review(session, wanted, at=self.now))

    def _expire_due(self, due: Due) -> None:
        if due.credit_ids:
            self.alive(lambda session: credit_expiry.look(session, due.credit_ids, at=self.now))
