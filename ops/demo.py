"""The demo that `make run` loads on the first start: half a year of thirteen customers' lives, told through the product's own functions.

Nothing is inserted behind the core's back: usage goes through the log and the aggregator, invoices through billing runs as of their days,
cards through the payment provider. It ends with the self-check. The same seed tells the same story on every day it is loaded.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pyotp
import requests
from sqlalchemy import select

from core import audit, clock, selfcheck
from core.audit import Actor
from core.catalog import publish
from core.catalog import queries as catalog
from core.config import Settings
from core.db import transaction
from core.identity import keys, organizations, totp, users
from core.identity.models import OperatorRole, Role
from core.invoicing import draft, due, finalize, queries, run
from core.metering import metrics
from core.metering.directory import Principal
from core.money import exponent
from core.payments import external, methods
from core.payments import queries as payments
from core.payments.collect import collect
from core.payments.models import PaymentCustomer
from core.subscriptions import lifecycle, plan_change
from core.subscriptions.models import Subscription
from ops import demo_data, home
from ops.demo_data import CUSTOMERS, METRICS, OFFERS, RATES, SHOWCASE, UNDER_REVIEW, Customer
from ops.demo_usage import Account, Meter, misspell, use
from workers import app

SELLER = Actor("operator", "demo", "Mara Lindqvist")
PASSWORD = "ledger-lines-and-daylight"  # the demo's own, printed at every start
Say = Callable[[str], None]


def load(settings: Settings, say: Say) -> None:
    """Tell the whole story into an empty database; `say` gets a line of progress every few seconds."""
    now = clock.now()
    with app().app_context():
        logging.disable(logging.INFO)  # thousands of lines that only matter when something fails
        first = _month(now, -7)
        say("people, metrics, plans")
        logins = _people(first)
        _catalogue(first)
        meter = Meter(settings)
        try:
            _lives(meter, now, say, settings, logins)
            _let_bank_approve(settings)
        finally:
            meter.close()
        say("the run that waits for review")
        _run_under_review(now)
        with transaction() as session:
            audit.seal(session)
        say("checking the books")
        with transaction() as session:
            findings = selfcheck.run(session)
        if findings:
            raise RuntimeError(f"the demo broke a rule of the books: {findings[0].code}: {findings[0].what}")
    home.save_logins(settings.home, logins)


def _people(at: datetime) -> list[dict[str, str]]:
    """The operators, each with a second factor enrolled."""
    logins = []
    for who, email, name, role in (
        ("Finance admin", "finance@northlight.example", "Mara Lindqvist", OperatorRole.FINANCE),
        ("Approver", "approver@northlight.example", "Jonas Okafor", OperatorRole.FINANCE_APPROVER),
        ("Catalogue admin", "catalogue@northlight.example", "Ines Ferreira", OperatorRole.CATALOG_ADMIN),
    ):
        secret = totp.new_secret()
        with transaction() as session:
            user = users.create(session, email=email, name=name, password=PASSWORD, operator_role=role, actor=SELLER, at=at)
            if not totp.enroll(session, user, secret=secret, code=pyotp.TOTP(secret).at(at), actor=SELLER, at=at):
                raise RuntimeError("the second factor could not be enrolled")
        logins.append({"who": who, "path": "/admin/sign-in", "email": email, "password": PASSWORD, "totp_secret": secret})
    return logins


def _catalogue(at: datetime) -> None:
    with transaction() as session:
        for metric in METRICS:
            metrics.create(session, **metric, event_name=demo_data.EVENT, group_by=["project"], actor=SELLER, at=at)
        for offer in OFFERS:
            priced = list(zip(METRICS, offer.prices, strict=True))
            for currency, rate in RATES.items():
                publish.create_version(
                    session, code=_plan_code(offer.code, currency), name=offer.name, description=offer.description,
                    currency=currency,
                    billing_period="month", base_price=_listed(offer.base * rate, currency), trial_period_days=offer.trial_days,
                    prices=[{"metric": metric["code"], **_converted(price, rate)} for metric, price in priced],
                    actor=SELLER, at=at,
                )  # fmt: skip


def _lives(meter: Meter, now: datetime, say: Say, settings: Settings, logins: list[dict[str, str]]) -> None:
    """Month by month: who joins, what they use, what they are billed and pay."""
    accounts: list[Account] = []
    for back in range(-6, 1):
        begins, ends = _month(now, back), min(_month(now, back + 1), now)
        joining = [customer for customer in (*CUSTOMERS, *UNDER_REVIEW) if customer.months == -back]
        accounts += [_join(customer, now, begins, logins) for customer in joining]
        say(f"{begins:%B %Y}: {len(accounts)} customers")
        for account in accounts:
            use(meter, account, max(begins, account.began), ends, now)
        meter.settle()
        _bill(begins, ends, now, settings, accounts)
    _turns(accounts, now)
    misspell(meter, next(account for account in accounts if account.customer is SHOWCASE), now)


def _join(customer: Customer, now: datetime, begins: datetime, logins: list[dict[str, str]]) -> Account:
    """The account, its key, its card, its subscription."""
    at = begins if customer in CUSTOMERS else _same_day(now, -customer.months)
    if "trial" in customer.traits:
        at = now - timedelta(days=5)
    mail = f"finance@{customer.slug}.example"
    with transaction() as session:
        organization = organizations.create(
            session, name=customer.name, slug=customer.slug, external_id=f"crm-{customer.slug}", billing_email=mail,
            currency=customer.currency, timezone=customer.timezone, billing_address=customer.address, tax_id=customer.tax_id,
            auto_collect=True, actor=SELLER, at=at,
        )  # fmt: skip
        account = Account(customer, organization.id, at)
        key, _ = keys.create(
            session, organization_id=organization.id, name="prod", mode="test", scopes=["usage:write"], actor=SELLER, at=at
        )
        account.key = Principal(key.id, organization.id, frozenset({"usage:write"}), None, None)
        _members(session, account, at, logins)
    if customer.card:
        methods.attach(account.id, provider_token="pm_card_visa", at=at, actor=SELLER)
    with transaction() as session:
        anchor = "calendar" if customer in CUSTOMERS else "anniversary"
        started = lifecycle.start(
            session, account.id, plan=_plan_code(customer.offer, customer.currency), at=at, start_at=at, anchor=anchor, actor=SELLER,
            trial_period_days=None if "trial" in customer.traits else 0,
        )  # fmt: skip
        account.subscription_id = started.id
    return account


def _members(session: Any, account: Account, at: datetime, logins: list[dict[str, str]]) -> None:
    people = (
        [("Owner", "lena", "Lena Hartmann", Role.OWNER)]
        if account.customer is SHOWCASE
        else [("Owner", "owner", "Alex Morgan", Role.OWNER)]
    )
    if account.customer is SHOWCASE:
        people += [("Developer", "emre", "Emre Yıldız", Role.DEVELOPER), ("Viewer", "ruth", "Ruth Adeyemi", Role.VIEWER)]
    for who, name, full_name, role in people:
        email = f"{name}@{account.customer.slug}.example"
        user = users.create(session, email=email, name=full_name, password=PASSWORD, actor=SELLER, at=at)
        users.add_member(session, organization_id=account.id, user=user, role=role, actor=SELLER, at=at)
        if account.customer is SHOWCASE and role is Role.OWNER:
            logins.insert(0, {"who": f"Customer ({who.lower()})", "path": "/portal/sign-in", "email": email, "password": PASSWORD})


def _bill(begins: datetime, ends: datetime, now: datetime, settings: Settings, accounts: Sequence[Account]) -> None:
    """Everything that fell due in the month, at noon of the day it did; those under review wait for their run."""
    waiting = {account.subscription_id for account in accounts if account.customer in UNDER_REVIEW}
    day = begins.replace(hour=12)
    while day < ends:
        with transaction() as session:
            ids = due.to_bill(session, as_of=day).ids
            held = [entry for entry in ids if entry in waiting and (now - day) < timedelta(days=3)]
            made = draft.bill_many(session, [entry for entry in ids if entry not in held], as_of=day, actor=SELLER)
        with transaction() as session:
            issued = finalize.finalize_many(session, made, at=day, actor=SELLER)
        if day.day == 1 and day.month == now.month and day.year == now.year:
            _let_bank_decline(settings, accounts)
        _collect(day)
        if issued:
            _wire(issued, day, accounts)
        day += timedelta(days=1)


def _collect(at: datetime) -> None:
    with transaction() as session:
        ids = list(payments.due_invoice_ids(session, as_of=at))
    for invoice_id in ids:
        collect(invoice_id, at=at)


def _wire(issued: Sequence[uuid.UUID], day: datetime, accounts: Sequence[Account]) -> None:
    """Customers without a card pay by bank transfer a week later."""
    by_wire = {account.id for account in accounts if not account.customer.card}
    with transaction() as session:
        for invoice_id in issued:
            invoice = queries.any_invoice(session, invoice_id)
            if invoice.organization_id in by_wire and invoice.amount_due_minor and day + timedelta(days=7) < clock.now():
                external.record_external(
                    session, invoice.organization_id, invoice.id, amount_minor=invoice.amount_due_minor,
                    reference=f"SEPA {invoice.invoice_number}", at=day + timedelta(days=7), actor=SELLER,
                )  # fmt: skip


def _let_bank_decline(settings: Settings, accounts: Sequence[Account]) -> None:
    """This month the bank refuses the showcase's card, again and again; only a provider fake on this machine can be told so."""
    if urlsplit(settings.stripe_api_base).hostname not in {"127.0.0.1", "localhost"}:
        return
    declined = [account.id for account in accounts if "declined" in account.customer.traits]
    with transaction() as session:
        customers = session.scalars(select(PaymentCustomer.provider_customer_id).where(PaymentCustomer.organization_id.in_(declined))).all()
    for customer in customers:
        mode = {"match": {"customer": customer}, "mode": "decline:insufficient_funds"}
        requests.post(f"{settings.stripe_api_base}/_control/mode", json=mode, timeout=10).raise_for_status()


def _let_bank_approve(settings: Settings) -> None:
    """From now on the card works again, so that the overdue invoice can be paid by its customer."""
    if urlsplit(settings.stripe_api_base).hostname in {"127.0.0.1", "localhost"}:
        requests.delete(f"{settings.stripe_api_base}/_control/mode", timeout=10).raise_for_status()


def _turns(accounts: Sequence[Account], now: datetime) -> None:
    """What some of them decided lately."""
    for account in accounts:
        with transaction() as session:
            subscription = session.get_one(Subscription, account.subscription_id)
            if "canceled" in account.customer.traits:
                lifecycle.cancel(session, subscription, at=now - timedelta(days=2), actor=SELLER, when="period_end", reason="Project ended")
            if "downgrade" in account.customer.traits:
                ends = plan_change.effective_at(subscription, "period_end", at=now)
                smaller = catalog.newest_version(session, _plan_code("build", account.customer.currency))
                plan_change.apply(session, subscription, to=smaller, at=now - timedelta(days=1), effective_at=ends, actor=SELLER)


def _run_under_review(now: datetime) -> None:
    """Rate what is due today into a run; some drafts are unlike the months before."""
    with transaction() as session:
        begun = run.start(session, as_of=now, actor=SELLER, at=now)
    after: uuid.UUID | None = None
    while True:
        with transaction() as session:
            after = run.rate_set(session, begun.id, after_id=after, at=now, actor=SELLER)
        if after is None:
            return


def _plan_code(offer: str, currency: str) -> str:
    return offer if currency == "EUR" else f"{offer}-{currency.lower()}"


def _listed(amount: Decimal, currency: str) -> str:
    return f"{amount.quantize(Decimal(1).scaleb(-exponent(currency))):f}"


def _converted(price: Any, rate: Decimal) -> Any:
    """The price list of another currency: unit prices, package prices and fees times the rate."""
    if isinstance(price, list):
        return [_converted(item, rate) for item in price]
    if isinstance(price, dict):
        priced = {"unit_price", "package_price", "flat_fee"}
        return {name: f"{Decimal(value) * rate:f}" if name in priced else _converted(value, rate) for name, value in price.items()}
    return price


def _month(at: datetime, later: int) -> datetime:
    year, month = divmod(at.year * 12 + at.month - 1 + later, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def _same_day(now: datetime, later: int) -> datetime:
    """Today's day of the month, `later` months on, a month without it giving its 28th."""
    start = _month(now, later)
    return start.replace(day=min(now.day, 28), hour=9)
