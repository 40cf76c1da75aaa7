"""The money side of a simulated life: cards that work or do not, charges whose answer is lost, refunds, invoices taken back, credit."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import config
from core.audit import SYSTEM
from core.db import transaction
from core.errors import BillingError
from core.identity.models import Organization
from core.invoicing import grants, void
from core.invoicing.credit_models import AccountCredit
from core.invoicing.models import Invoice, InvoiceLine, InvoiceStatus
from core.payments import collect as collecting
from core.payments import methods, refund, resolve
from core.payments.models import LIVE, BillingTransaction, PaymentCustomer, TransactionStatus, TransactionType
from tests.simulator.held import Refused
from tests.simulator.house import Killed, real_now
from tests.simulator.kernel import Divergence

if TYPE_CHECKING:
    from tests.simulator.product import World

CARDS = ("pm_card_visa", "pm_card_mastercard", "pm_card_chargeCustomerFail")
TROUBLE = ("charge_then_drop", "charge_then_500", "drop_before_charge", "429", "decline:insufficient_funds", "decline:lost_card")
A_MINUTE_AND_MORE = timedelta(minutes=30)


def card(world: World) -> None:
    """Save a card; what waited for one is charged."""
    methods.attach(world.customer.id, provider_token=world.rng.choice(CARDS), at=world.now, actor=SYSTEM)


def pay(world: World) -> None:
    """Somebody pays one of the open invoices, in a bad moment now and then."""
    invoice = _some(world, select(Invoice.id).where(Invoice.organization_id == world.customer.id, Invoice.status == InvoiceStatus.OPEN))
    _in_trouble(world, lambda: collecting.pay(world.customer.id, invoice, at=world.now, actor=SYSTEM))


def collect(world: World, invoice_id: uuid.UUID) -> None:
    """The scheduled try."""
    _in_trouble(world, lambda: collecting.collect(invoice_id, at=world.now))


def refund_some(world: World) -> None:
    """Give a payment back, whole or in part."""
    charged = select(BillingTransaction.id).where(
        BillingTransaction.organization_id == world.customer.id,
        BillingTransaction.type == TransactionType.CHARGE,
        BillingTransaction.status == TransactionStatus.SUCCEEDED,
    )
    charge_id = _some(world, charged)
    part = world.rng.choice((None, 1, world.rng.randint(1, 5000)))
    _in_trouble(world, lambda: refund.refund(world.customer.id, charge_id, reason="asked", at=world.now, actor=SYSTEM, amount_minor=part))


def take_back(world: World) -> None:
    """Void an open invoice and bill again: what it billed is owed still, as far as its cycles are not closed for good."""
    closed = world.now - timedelta(days=config.current().adjustment_days)
    old = select(InvoiceLine.invoice_id).where(InvoiceLine.organization_id == world.customer.id, InvoiceLine.cycle_end <= closed)
    invoices = select(Invoice.id).where(Invoice.organization_id == world.customer.id, Invoice.status == InvoiceStatus.OPEN)
    invoice = _some(world, invoices.where(Invoice.id.not_in(old)))
    purse = world.wallets[world.customer.id]
    purse.observe()
    with suppress(BillingError):
        world.alive(lambda session: void.void_invoice(session, invoice, at=world.now, actor=SYSTEM, reason="a mistake"))
        purse.voided(invoice, world.now)
    world.settle()


def grant(world: World) -> None:
    """Credit is granted, for good or for some weeks."""
    rng, purse = world.rng, world.wallets[world.customer.id]
    expires = rng.choice((None, world.now + timedelta(days=rng.uniform(1, 60))))
    given = {"amount_minor": rng.randint(1, 30_000), "name": "Sorry", "priority": rng.choice((10, 50)), "expires_at": expires}
    purse.observe()

    def granted(session: Session) -> AccountCredit:
        organization = session.get_one(Organization, world.customer.id)
        return grants.grant(session, organization, **given, at=world.now, actor=SYSTEM)

    purse.granted(world.alive(granted))


ACTS: dict[str, tuple[int, Callable[[World], None]]] = {
    "card": (3, card),
    "pay": (6, pay),
    "refund": (3, refund_some),
    "void": (3, take_back),
    "grant": (3, grant),
}
"""By name: weight and act."""


def compare(world: World) -> None:
    """The provider's own record of the customer's money is ours, movement by movement."""
    customer = world.customer
    with transaction() as session:
        known = session.scalar(select(PaymentCustomer.provider_customer_id).where(PaymentCustomer.organization_id == customer.id))
        rows = session.scalars(select(BillingTransaction).where(BillingTransaction.organization_id == customer.id)).all()
        ours = sorted((row.type, row.amount_minor, row.currency) for row in rows if row.status == TransactionStatus.SUCCEEDED)
        undecided = [row.id for row in rows if row.status in LIVE]
    charges = [charge for charge in world.house.provider.charges() if charge["customer"] == known]
    names = {charge["charge"] for charge in charges}
    theirs = [("charge", charge["amount"], charge["currency"].upper()) for charge in charges]
    theirs += [("refund", back["amount"], back["currency"].upper()) for back in world.house.provider.refunds() if back["charge"] in names]
    world.wallets[customer.id].compare(world.now)
    if undecided or ours != sorted(theirs):
        raise Divergence(f"the provider moved {sorted(theirs)}, the books say {ours}, undecided: {undecided}")


def _some(world: World, ids: object) -> uuid.UUID:
    with transaction() as session:
        found = sorted(session.scalars(ids))  # type: ignore[call-overload]
    if not found:
        raise Refused
    chosen: uuid.UUID = world.rng.choice(found)
    return chosen


def _in_trouble(world: World, work: Callable[[], object]) -> None:
    """Do it, while the provider fails or the process dies now and then; then find out what became of it, as the sweep does."""
    house, rng = world.house, world.rng
    if rng.random() < 0.25:
        house.provider.mode(rng.choice(TROUBLE), next=1)
    if rng.random() < 0.15:
        house.executioner.left = rng.randint(1, 40)
    try:
        with suppress(BillingError, Killed):
            work()
    finally:
        house.executioner.left = 0
        house.provider.heal()
    with transaction() as session:
        wanted = BillingTransaction.organization_id.in_([customer.id for customer in world.customers])
        lost = session.scalars(select(BillingTransaction.id).where(wanted, BillingTransaction.status.in_(LIVE))).all()
    for transaction_id in lost:
        now = real_now() + A_MINUTE_AND_MORE
        resolve.resolve(transaction_id, now=now)
        refund.resolve(transaction_id, now=now)
