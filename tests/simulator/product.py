"""Lives lived by the whole product on PostgreSQL, beside the model: two customers on one clock; runs, deaths and payments in any order.

After each settling the issued lines add up to what the model owes, the terms are the model's, and nothing is left to bill.
"""

import random
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.catalog import publish
from core.db import db, transaction
from core.identity.models import Organization, TestClock
from core.invoicing import draft, finalize
from tests import factories
from tests.simulator import chance, lots, wallet
from tests.simulator.acting import Acting
from tests.simulator.comparing import Customer
from tests.simulator.held import Refused
from tests.simulator.house import House
from tests.simulator.kernel import Divergence
from tests.simulator.model import Life

BEGIN = datetime(2024, 1, 5, 10, 30, tzinfo=UTC)
STEPS = 40
LAST_LOOK = timedelta(days=chance.LATE_DAYS_MAX + 1)
ACTS = {"suspend": 2, "reinstate": 3}
"""What the product can do beyond the kernel, with its weight."""


class World(Acting):
    """Two customers of one seed in a house."""

    def __init__(self, house: House, seed: int) -> None:
        self.house, self.rng = house, random.Random(seed)
        self.now = BEGIN + timedelta(days=self.rng.uniform(0, 360))
        self.currencies = self.rng.sample(("EUR", "JPY", "KWD"), 2)
        self.documents: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, uuid.UUID] = {}
        self.rule_names: dict[str, tuple[str, str]] = {}
        with transaction() as session:
            clock = TestClock(frozen_time=self.now, name=f"seed {seed}")
            session.add(clock)
            self._sell(session, seed)
            made = [self._sign_up(session, f"seed-{seed}-{n}-{uuid.uuid4().hex[:8]}", clock) for n in range(2)]
            self.clock_id = clock.id
        self.customers = [
            Customer(organization.id, house.metering._key(db.session(), organization.id), self._life(organization)) for organization in made
        ]
        db.session.commit()
        self.wallets = {customer.id: lots.Wallet(customer.id) for customer in self.customers}
        self.customer = self.customers[0]
        for _ in self._each():
            self.start()

    def live(self, steps: int = STEPS) -> None:
        """Do whatever chance has in mind, then end everything, let the last late usage in, and compare for the last time."""
        for _ in range(steps):
            self.customer = self.rng.choice(self.customers)
            with suppress(Refused):
                name = chance.act(self.rng, {**ACTS, **{name: weight for name, (weight, _) in wallet.ACTS.items()}})
                if name in wallet.ACTS:
                    wallet.ACTS[name][1](self)
                else:
                    getattr(self, name)()
        for _ in self._each():
            with suppress(Refused):
                self._cancel("now", break_bond=True)
            self.settle()
        self.pass_until(self.now + LAST_LOOK)
        for _ in self._each():
            self.settle()
            wallet.compare(self)
            self.compare_replays()

    def _each(self) -> Iterator[Customer]:
        """One customer after the other, each in turn the one who acts."""
        for customer in self.customers:
            self.customer = customer
            yield customer

    def wait(self) -> None:
        """Time passes; what falls due is done, or waits for days as in an outage."""
        self.pass_until(chance.later(self.rng, self.customer.life, self.now), idle=self.rng.random() < 0.3)

    def settle(self) -> None:
        """Everything due is billed and finalized, and this very moment too: then bills and model agree, and a second look finds nothing."""
        self.sweep()
        for subscription_id in self.customer.lives:
            self.alive(lambda session, wanted=subscription_id: self._bill_now(session, wanted))
            self.compare_lines(subscription_id)
            with transaction() as session:
                if draft.bill(session, subscription_id, as_of=self.now, actor=SYSTEM) is not None:
                    raise Divergence(f"a second run found something to bill on {subscription_id}")
        self.wallets[self.customer.id].observe()

    def _bill_now(self, session: Session, subscription_id: uuid.UUID) -> None:
        drafted = draft.bill(session, subscription_id, as_of=self.now, actor=SYSTEM)
        if drafted is not None:
            finalize.finalize_invoice(session, drafted.id, at=self.now, actor=SYSTEM)

    def _sell(self, session: Session, seed: int) -> None:
        """Publish the seed's plans, an add-on and two coupons, each in both currencies."""
        own, other = self.currencies
        made = [chance.with_conditions(self.rng, chance.document(self.rng, f"seed-{seed}-plan-{n}", own)) for n in range(3)]
        made.append(chance.add_on(self.rng, f"seed-{seed}-add-on", own))
        made += [chance.coupon(self.rng, f"seed-{seed}-coupon-{n}", own) for n in range(2)]
        for plain in made:
            document = chance.sold_in(self.rng, plain, other)
            version = publish.create_version(session, **document, actor=SYSTEM, at=self.now)
            self.documents[document["code"]] = document
            self.versions[document["code"]] = version.id
            self.rule_names |= {str(rule.id): (document["code"], rule.code) for rule in version.rules}

    def _sign_up(self, session: Session, slug: str, clock: TestClock) -> Organization:
        rate, currency = Decimal(self.rng.choice((0, 19))), self.rng.choice(self.currencies)
        zone = self.rng.choice(chance.ZONES)
        return factories.make_organization(session, slug=slug, test_clock=clock, currency=currency, timezone=zone, tax_rate_percent=rate)

    def _life(self, organization: Organization) -> Life:
        return Life(organization.timezone, organization.currency, self.rng.choice(("anniversary", "calendar")))
