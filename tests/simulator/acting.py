"""What customers do in the product, each act beside its model: both do it or both refuse, and then their timelines are one."""

import random
import uuid
from collections.abc import Callable
from copy import deepcopy
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.catalog.models import PlanVersion
from core.db import transaction
from core.errors import BillingError
from core.invoicing import quote
from core.metering.corrections import events
from core.periods import Interval
from core.subscriptions import items, lifecycle, plan_change
from core.subscriptions.agreement import Contract, Phase
from core.subscriptions.models import Subscription, SubscriptionStatus
from tests.simulator import chance
from tests.simulator.comparing import Comparing, confirm_as_shown
from tests.simulator.held import Bond, Held, Plan, Refused
from tests.simulator.house import House, event_of
from tests.simulator.kernel import Divergence
from tests.simulator.machines import Machines
from tests.simulator.model import Life

IN_TROUBLE = (SubscriptionStatus.PAST_DUE, SubscriptionStatus.SUSPENDED)
"""In these the product refuses acts that the model, which knows no payments, would do."""


class Acting(Comparing, Machines):
    """The acts; `documents` are what is sold, by code."""

    house: House
    rng: random.Random
    documents: dict[str, dict[str, Any]]

    def settle(self) -> None:
        """Bill and compare."""
        raise NotImplementedError

    def use(self) -> None:
        """Usage is sent, sometimes twice."""
        customer = self.customer
        begun = [life.stretches[0].start for life in customer.lives.values() if life.stretches]
        if not begun:
            raise Refused
        self.uncounted = True
        sent = []
        for metric, at, quantity in chance.usage(self.rng, self.now, min(begun)):
            customer.sent += 1
            key = f"{customer.id}-{customer.sent}"
            customer.events[key] = metric, at, quantity
            sent.append(event_of(metric, key, at, quantity))
        for _ in range(self.rng.choice((1, 1, 2))):
            answer = self.house.metering.send(customer.token, sent)
            if answer["accepted"] != len(sent):
                raise Divergence(f"usage was refused: {answer}")

    def correct(self) -> None:
        """An event of an open cycle is amended, or voided."""
        customer, since = self.customer, self.now - timedelta(days=chance.LATE_DAYS_MAX - 1)
        recent = [key for key, (_, at, _) in customer.events.items() if at > since]
        if not recent:
            raise Refused
        key, more = self.rng.choice(recent), self.rng.choice((None, self.rng.randint(1, 900)))
        metric, at, quantity = customer.events.pop(key)
        if more is not None:
            customer.events[key] = metric, at, quantity + more
        self.count()

        def correct(session: Session) -> None:
            given: dict[str, Any] = {"reason": "it was wrong", "actor": SYSTEM, "at": self.now}
            if more is None:
                events.void(session, customer.id, key, **given)
            else:
                events.amend(session, customer.id, key, events.Amendment(quantity=str(quantity + more)), **given)

        self.alive(correct)

    def start(self) -> None:
        """Subscribe, at first or again once the last subscription is over; now and then with a ramp or a contract."""
        customer = self.customer
        if customer.life.stretches and not customer.life.is_over(self.now):
            raise Refused
        plan, trial = self._some_plan(), self.rng.choice((0, 0, 14))
        held = self._held(plan, None)
        ramp, bond = (
            self._ramp(plan, held),
            self.rng.choice((None, None, Bond("month", self.rng.choice((3, 12)), self.rng.choice((0, 30))))),
        )
        before = customer.life.ends if self._shares(plan) else None
        life = Life(customer.life.timezone, customer.life.currency, customer.life.mode, bond=bond)

        def begin(session: Session) -> uuid.UUID:
            phases = [
                Phase(at, session.get_one(PlanVersion, self.versions[next_plan.name]), units.units, _named(next_plan, units))
                for at, next_plan, units in ramp
            ]
            contract = Contract(Interval(bond.interval), bond.count, notice_days=bond.notice_days) if bond else None
            started = lifecycle.start(
                session, customer.id, plan=plan.name, at=self.now, actor=SYSTEM, quantity=held.units, trial_period_days=trial,
                anchor=life.mode, quantities=_named(plan, held), phases=phases, contract=contract,
            )  # fmt: skip
            return started.id

        self.settle()
        customer.subscription_id = self.alive(begin)
        life.start(self.now, plan, held, trial, before, ramp)
        customer.life = customer.lives[customer.subscription_id] = life
        self.compare_terms()

    def change(self) -> None:
        self._change(self._some_plan(), "now")

    def change_back_then(self) -> None:
        """A change that holds from a day that has passed."""
        self._change(self._some_plan(), chance.back_then(self.rng, self.customer.life, self.now))

    def change_at_period_end(self) -> None:
        self._change(self._some_plan(), "period_end")

    def seats(self) -> None:
        running = self.customer.life.at(self.now)
        if running is None:
            raise Refused
        self._change(running.plan, "now")

    def undo_change(self) -> None:
        self._act(lambda s, row: plan_change.undo_scheduled(s, row, at=self.now, actor=SYSTEM), lambda life: life.undo_change(self.now))

    def attach(self) -> None:
        """An add-on or a coupon."""
        wanted = self.rng.choice([code for code, document in self.documents.items() if document.get("kind")])
        plan, units = self._plan(wanted), Decimal(self.rng.randint(1, 5))
        if quoted := self.rng.random() < 0.4:
            self.sweep()

        def attach(session: Session, row: Subscription) -> None:
            given: dict[str, Any] = {"quantity": units, "at": self.now, "actor": SYSTEM}
            if quoted:
                version = session.get_one(PlanVersion, self.versions[wanted])
                shown = quote.create_for_add_on(session, self.customer.id, row.id, version=version, when="now", **given)
                confirm_as_shown(session, shown, self.now)
            else:
                items.attach(session, row, plan=wanted, **given)

        self._act(attach, lambda life: life.attach(self.now, plan, units))

    def hold_more(self) -> None:
        item, units = chance.item(self.rng, self.customer.life), Decimal(self.rng.randint(1, 5))
        place, row_id = self.customer.life.beside.index(item), self.item_id(item)
        self._act(
            lambda session, row: items.change_quantity(session, row, row_id, quantity=units, at=self.now, actor=SYSTEM),
            lambda life: life.hold_more(self.now, life.beside[place], units),
        )

    def detach(self) -> None:
        item, when = chance.item(self.rng, self.customer.life), self.rng.choice(("now", "period_end"))
        place, row_id = self.customer.life.beside.index(item), self.item_id(item)
        if not item.lasts(self.now):
            raise Refused
        self._act(
            lambda session, row: items.detach(session, row, row_id, when=when, at=self.now, actor=SYSTEM),
            lambda life: life.detach(self.now, life.beside[place], at_period_end=when == "period_end"),
        )

    def pause(self) -> None:
        until = chance.some_day(self.rng, self.now)
        self._act(lambda s, row: lifecycle.pause(s, row, at=self.now, actor=SYSTEM, until=until), lambda life: life.pause(self.now, until))

    def resume(self) -> None:
        then = chance.some_day(self.rng, self.now)
        self._act(lambda s, row: lifecycle.resume(s, row, at=self.now, actor=SYSTEM, when=then), lambda life: life.resume(self.now, then))

    def undo_resume(self) -> None:
        self._act(lambda s, row: lifecycle.undo_resume(s, row, at=self.now, actor=SYSTEM), lambda life: life.undo_resume(self.now))

    def suspend(self) -> None:
        """Access is taken away; what is owed stays as it is."""
        self._act(lambda s, row: lifecycle.suspend(s, row, at=self.now, actor=SYSTEM), None)

    def reinstate(self) -> None:
        self._act(lambda s, row: lifecycle.reinstate(s, row, at=self.now, actor=SYSTEM), None)

    def cancel(self) -> None:
        self._cancel("now")

    def cancel_at_period_end(self) -> None:
        self._cancel("period_end")

    def undo_cancel(self) -> None:
        self._act(lambda s, row: lifecycle.undo_cancel(s, row, at=self.now, actor=SYSTEM), lambda life: life.undo_cancel(self.now))

    def reactivate(self) -> None:
        """What is over comes back; everything up to now is settled first, so that its end is known."""
        self._act(lambda s, row: lifecycle.reactivate(s, row, at=self.now, actor=SYSTEM), lambda life: life.reactivate(self.now))

    def _change(self, plan: Plan, when: str | datetime) -> None:
        life = self.customer.life
        running = life.at(when if isinstance(when, datetime) else self.now)
        if running is None:
            raise Refused
        effective = when if isinstance(when, datetime) else self.now
        if when == "period_end":
            effective = life.cycle_end(running, self.now)
        held = self._held(plan, life.until_then(effective, self.now))
        if quoted := self.rng.random() < 0.4:
            self.sweep()  # a draft that a job is about to rate again would be finished first, with other lines than it had

        def change(session: Session, row: Subscription) -> None:
            to = session.get_one(PlanVersion, self.versions[plan.name])
            given: dict[str, Any] = {"to": to, "at": self.now, "actor": SYSTEM, "quantity": held.units, "quantities": _named(plan, held)}
            if quoted:
                shown = quote.create(session, self.customer.id, row.id, when=when, backdate=True, **given)
                confirm_as_shown(session, shown, self.now)
            else:
                holds_from = plan_change.effective_at(row, when, at=self.now, backdate=True)
                plan_change.apply(session, row, effective_at=holds_from, **given)

        self._act(change, lambda life: life.change(self.now, plan, held, effective))

    def _cancel(self, when: str, *, break_bond: bool = False) -> None:
        def cancel(session: Session, row: Subscription) -> None:
            lifecycle.cancel(session, row, at=self.now, actor=SYSTEM, when=when, break_contract=break_bond)

        self._act(cancel, lambda life: life.cancel(self.now, at_period_end=when == "period_end", break_bond=break_bond))

    def _act(self, act: Callable[[Session, Subscription], object], modelled: Callable[[Life], None] | None) -> None:
        """The product acts, or refuses, and so does the model; then the two timelines must be one."""
        customer, life = self.customer, deepcopy(self.customer.life)
        try:
            if modelled is not None:
                modelled(life)
            sensible = True
        except Refused:
            sensible = False
        try:
            status = self.alive(lambda session: self._acted(session, act))
        except BillingError as refused:
            with transaction() as session:
                excused = session.get_one(Subscription, customer.subscription_id).status in IN_TROUBLE
            if sensible and modelled is not None and not excused and refused.code not in ("already_subscribed", "already_billed"):
                why = f"{refused.message} {[fault.detail for fault in getattr(refused, 'errors', ())]}"
                raise Divergence(f"at {self.now} the product refused what makes sense: {why}") from refused
            raise Refused from refused
        if not sensible:
            raise Divergence(f"at {self.now} the product did what makes no sense; it is {status} now")
        customer.life = life
        customer.lives[customer.subscription_id] = life  # type: ignore[index]
        self.compare_terms()

    def _acted(self, session: Session, act: Callable[[Session, Subscription], object]) -> str:
        row = session.get_one(Subscription, self.customer.subscription_id)
        act(session, row)
        return row.status

    def _plan(self, code: str) -> Plan:
        return chance.plan(self.documents[code], self.customer.life.currency)

    def _some_plan(self) -> Plan:
        return self._plan(self.rng.choice([code for code, document in self.documents.items() if not document.get("kind")]))

    def _ramp(self, plan: Plan, held: Held) -> list[tuple[datetime, Plan, Held]]:
        at, ramp = self.now, []
        for _ in range(self.rng.choice((0, 0, 0, 1, 2))):
            at += timedelta(days=self.rng.randint(20, 90))
            plan = self._some_plan()
            held = Held(self._units(), Decimal(self.rng.choice((0, 3, 7))) if _has_seats(plan) else held.seats)
            ramp.append((at, plan, held))
        return ramp

    def _held(self, plan: Plan, running: Any) -> Held:
        """Other quantities; seats stay as they are under a plan that has no price for them."""
        seats = Decimal(self.rng.choice((0, 3, 7))) if _has_seats(plan) else running.held.seats if running else Decimal(0)
        return Held(self._units(), seats)

    def _shares(self, plan: Plan) -> bool:
        """Whether an earlier subscription of the customer had the plan or one of its metrics: then days are not billed twice."""
        had = [stretch.plan for life in self.customer.lives.values() for stretch in life.stretches]
        metered = {price.metric for price in plan.prices if price.metric}
        return any(old.name == plan.name or metered & {price.metric for price in old.prices} for old in had)

    def _units(self) -> Decimal:
        return Decimal(self.rng.randint(1, 30))


def _has_seats(plan: Plan) -> bool:
    return any(price.named == "seats" for price in plan.prices)


def _named(plan: Plan, held: Held) -> dict[str, Decimal]:
    return {"seats": held.seats} if _has_seats(plan) else {}
