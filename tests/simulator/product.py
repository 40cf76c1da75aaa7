"""Lives lived by the whole product on PostgreSQL, beside the model: two customers on one clock; runs, deaths and payments in any order.

After each settling the issued lines add up to what the model owes, the terms are the model's, and nothing is left to bill.
"""

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.catalog import publish
from core.catalog.models import PlanVersion
from core.db import db, transaction
from core.errors import BillingError
from core.identity.models import Organization, TestClock
from core.invoicing import draft, finalize, replay
from core.invoicing.models import Invoice, InvoiceLine, InvoiceStatus
from core.subscriptions import lifecycle, plan_change
from core.subscriptions.models import Subscription, SubscriptionTerm
from tests import factories
from tests.simulator import chance, wallet
from tests.simulator.house import House, event_of
from tests.simulator.kernel import Divergence
from tests.simulator.machines import Machines
from tests.simulator.model import Key, Life, Plan, Refused

BEGIN = datetime(2024, 1, 5, 10, 30, tzinfo=UTC)
STEPS = 40
LAST_LOOK = timedelta(days=chance.LATE_DAYS_MAX + 1)


class Customer:
    """One organization and the model of its running subscription; earlier subscriptions are kept to be checked again."""

    def __init__(self, organization: Organization, token: str, life: Life) -> None:
        self.id, self.token, self.life = organization.id, token, life
        self.subscription_id: uuid.UUID | None = None
        self.lives: dict[uuid.UUID, Life] = {}
        self.usage: dict[str, list[tuple[datetime, Decimal]]] = {metric: [] for metric in chance.METRICS}
        self.sent = 0


class World(Machines):
    """Two customers of one seed in a house."""

    def __init__(self, house: House, seed: int) -> None:
        self.house, self.rng = house, random.Random(seed)
        self.now = BEGIN + timedelta(days=self.rng.uniform(0, 360))
        currency = self.rng.choice(("EUR", "EUR", "JPY", "KWD"))
        self.plans: dict[str, Plan] = {}
        self.versions: dict[str, uuid.UUID] = {}
        self.rule_names: dict[str, tuple[str, str]] = {}
        with transaction() as session:
            clock = TestClock(frozen_time=self.now, name=f"seed {seed}")
            session.add(clock)
            self._sell(session, seed, currency)
            made = [self._sign_up(session, f"seed-{seed}-{n}-{uuid.uuid4().hex[:8]}", clock, currency) for n in range(2)]
            self.clock_id = clock.id
        self.customers = [
            Customer(organization, house.metering._key(db.session(), organization.id), self._life(organization)) for organization in made
        ]
        db.session.commit()
        self.customer = self.customers[0]
        for _ in self._each():
            self.start()

    def live(self, steps: int = STEPS) -> None:
        """Do whatever chance has in mind, then end everything, let the last late usage in, and compare for the last time."""
        for _ in range(steps):
            self.customer = self.rng.choice(self.customers)
            with suppress(Refused):
                name = chance.act(self.rng, {name: weight for name, (weight, _) in wallet.ACTS.items()})
                if name in wallet.ACTS:
                    wallet.ACTS[name][1](self)
                else:
                    getattr(self, name)()
        for _ in self._each():
            with suppress(Refused):
                self.cancel()
            self.settle()
        self.pass_until(self.now + LAST_LOOK)
        for _ in self._each():
            self.settle()
            wallet.compare(self)
            self._replay()

    def _each(self) -> Iterator[Customer]:
        """One customer after the other, each in turn the one who acts."""
        for customer in self.customers:
            self.customer = customer
            yield customer

    def wait(self) -> None:
        """Time passes; what falls due is done, or waits for days as in an outage."""
        self.pass_until(chance.later(self.rng, self.customer.life, self.now), idle=self.rng.random() < 0.3)

    def use(self) -> None:
        """Usage is sent, sometimes twice."""
        customer = self.customer
        if not customer.lives:
            raise Refused
        self.uncounted = True
        events = []
        since = min(life.stretches[0].start for life in customer.lives.values() if life.stretches) if customer.life.stretches else self.now
        for metric, at, quantity in chance.usage(self.rng, self.now, since):
            customer.usage[metric].append((at, quantity))
            customer.sent += 1
            events.append(event_of(metric, f"{customer.id}-{customer.sent}", at, quantity))
        for _ in range(self.rng.choice((1, 1, 2))):
            answer = self.house.metering.send(customer.token, events)
            if answer["accepted"] != len(events):
                raise Divergence(f"usage was refused: {answer}")

    def start(self) -> None:
        """Subscribe, at first or again once the last subscription is over."""
        customer = self.customer
        if customer.life.stretches and not customer.life.is_over(self.now):
            raise Refused
        plan, units, trial = self.rng.choice(list(self.plans.values())), self._units(), self.rng.choice((0, 0, 14))
        before, customer_life = customer.life.ends, Life(customer.life.timezone, customer.life.currency, customer.life.mode)

        def begin(session: Session) -> uuid.UUID:
            started = lifecycle.start(
                session, customer.id, plan=plan.name, at=self.now, actor=SYSTEM, quantity=units, trial_period_days=trial,
                anchor=customer.life.mode,
            )  # fmt: skip
            return started.id

        self.settle()
        customer.subscription_id = self.alive(begin)
        customer_life.start(self.now, plan, units, trial, before if self._shares(plan) else None)
        customer.life = customer.lives[customer.subscription_id] = customer_life
        self._compare_terms()

    def change(self) -> None:
        self._change(self.rng.choice(list(self.plans.values())), "now")

    def change_at_period_end(self) -> None:
        self._change(self.rng.choice(list(self.plans.values())), "period_end")

    def seats(self) -> None:
        running = self.customer.life.at(self.now)
        if running is None:
            raise Refused
        self._change(running.plan, "now")

    def pause(self) -> None:
        self._act(lambda session, row: lifecycle.pause(session, row, at=self.now, actor=SYSTEM), lambda life: life.pause(self.now))

    def resume(self) -> None:
        self._act(lambda session, row: lifecycle.resume(session, row, at=self.now, actor=SYSTEM), lambda life: life.resume(self.now))

    def cancel(self) -> None:
        self._cancel("now")

    def cancel_at_period_end(self) -> None:
        self._cancel("period_end")

    def undo_cancel(self) -> None:
        def undo(session: Session, row: Subscription) -> None:
            lifecycle.undo_cancel(session, row, at=self.now, actor=SYSTEM)

        self._act(undo, lambda life: life.undo_cancel(self.now))

    def settle(self) -> None:
        """Everything due is billed and finalized, and this very moment too: then bills and model agree, and a second look finds nothing."""
        self.sweep()
        for subscription_id in self.customer.lives:
            self.alive(lambda session, wanted=subscription_id: self._bill_now(session, wanted))
            self._compare_lines(subscription_id)
            with transaction() as session:
                if draft.bill(session, subscription_id, as_of=self.now, actor=SYSTEM) is not None:
                    raise Divergence(f"a second run found something to bill on {subscription_id}")

    def _bill_now(self, session: Session, subscription_id: uuid.UUID) -> None:
        drafted = draft.bill(session, subscription_id, as_of=self.now, actor=SYSTEM)
        if drafted is not None:
            finalize.finalize_invoice(session, drafted.id, at=self.now, actor=SYSTEM)

    def _change(self, plan: Plan, when: str) -> None:
        units = self._units()
        effective: list[datetime] = []

        def change(session: Session, row: Subscription) -> None:
            effective.append(plan_change.effective_at(row, when, at=self.now))
            to = session.get_one(PlanVersion, self.versions[plan.name])
            plan_change.apply(session, row, to=to, at=self.now, actor=SYSTEM, quantity=units, effective_at=effective[-1])

        self._act(change, lambda life: life.change(effective[-1], plan, units))

    def _cancel(self, when: str) -> None:
        def cancel(session: Session, row: Subscription) -> None:
            lifecycle.cancel(session, row, at=self.now, actor=SYSTEM, when=when)

        self._act(cancel, lambda life: life.cancel(self.now, at_period_end=when == "period_end"))

    def _act(self, act: Callable[[Session, Subscription], object], modelled: Callable[[Life], None]) -> None:
        """The product acts, or refuses; when it acts, so does the model, and the two timelines must be one."""
        customer = self.customer
        try:
            self.alive(lambda session: act(session, session.get_one(Subscription, customer.subscription_id)))
        except BillingError as refused:
            raise Refused from refused
        try:
            modelled(customer.life)
        except Refused:
            raise Divergence(f"at {self.now} the product did what makes no sense") from None
        self._compare_terms()

    def _compare_terms(self) -> None:
        """What is stored as terms is what the model has lived and plans to."""
        with transaction() as session:
            rows = session.scalars(
                select(SubscriptionTerm)
                .where(SubscriptionTerm.subscription_id == self.customer.subscription_id)
                .order_by(SubscriptionTerm.start_at)
            ).all()
            stored = [(row.start_at, row.end_at, row.plan_version_id, row.quantity, row.is_trial) for row in rows]
        expected = [(s.start, s.end, self.versions[s.plan.name], s.quantity, s.is_trial) for s in self.customer.life.stretches]
        if stored != expected:
            raise Divergence(f"at {self.now} the terms are {stored}, they should be {expected}")

    def _compare_lines(self, subscription_id: uuid.UUID) -> None:
        """Issued lines add up to what is owed; under a plan that gives nothing back they may be more, never less."""
        customer = self.customer
        line = InvoiceLine
        with transaction() as session:
            rows = session.execute(
                select(line.pricing_rule_id, line.cycle_start, func.sum(line.amount_minor))
                .join(Invoice, Invoice.id == line.invoice_id)
                .where(line.subscription_id == subscription_id, Invoice.status.not_in((InvoiceStatus.DRAFT, InvoiceStatus.VOID)))
                .group_by(line.pricing_rule_id, line.cycle_start)
            ).all()
        billed: dict[Key, int] = {(*self.rule_names[str(rule)], start): int(minor) for rule, start, minor in rows}
        owed = customer.lives[subscription_id].owed(self.now, customer.usage)
        for key in sorted(billed.keys() | owed.keys()):
            minor, owes = billed.get(key, 0), owed.get(key)
            wanted = owes.minor if owes else 0
            kept = owes is not None and not owes.credits and minor > wanted
            if minor != wanted and not kept:
                raise Divergence(f"at {self.now} {key} of {subscription_id} is billed {minor}, owed {wanted}")

    def _replay(self) -> None:
        """Every issued invoice comes out again, figure by figure, from what is stored with it."""
        with transaction() as session:
            issued = select(Invoice.id).where(Invoice.organization_id == self.customer.id, Invoice.finalized_at.is_not(None))
            for invoice_id in session.scalars(issued):
                again = replay.replay(session, self.customer.id, invoice_id)
                if again.differences or again.unpriced:
                    raise Divergence(f"replay of {again.number}: {again.differences} {again.unpriced}")

    def _sell(self, session: Session, seed: int, currency: str) -> None:
        """Publish the seed's plans."""
        for n in range(3):
            document = chance.document(self.rng, f"seed-{seed}-plan-{n}", currency)
            version = publish.create_version(session, **document, actor=SYSTEM, at=self.now)
            self.plans[document["code"]] = chance.plan(document)
            self.versions[document["code"]] = version.id
            codes = {metric_id: code for code, metric_id in self.house.metric_ids.items()}
            for rule in version.rules:
                self.rule_names[str(rule.id)] = (document["code"], codes.get(rule.metric_id, "base") if rule.metric_id else "base")

    def _sign_up(self, session: Session, slug: str, clock: TestClock, currency: str) -> Organization:
        rate = Decimal(self.rng.choice((0, 19)))
        zone = self.rng.choice(chance.ZONES)
        return factories.make_organization(session, slug=slug, test_clock=clock, currency=currency, timezone=zone, tax_rate_percent=rate)

    def _life(self, organization: Organization) -> Life:
        return Life(organization.timezone, organization.currency, self.rng.choice(("anniversary", "calendar")))

    def _shares(self, plan: Plan) -> bool:
        """Whether an earlier subscription of the customer had the plan or one of its metrics: then days are not billed twice."""
        had = [stretch.plan for life in self.customer.lives.values() for stretch in life.stretches]
        metered = {price.metric for price in plan.prices if price.metric}
        return any(old.name == plan.name or metered & {price.metric for price in old.prices} for old in had)

    def _units(self) -> Decimal:
        return Decimal(self.rng.randint(1, 30))
