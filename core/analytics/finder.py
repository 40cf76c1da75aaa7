"""One box that finds everything: accounts, invoices, subscriptions, payments, cards, keys and events. For operators only."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core.analytics.accounts import named
from core.errors import Invalid
from core.identity.models import ApiKey, Organization
from core.identity.queries import as_uuid
from core.invoicing.models import Invoice
from core.metering import queries as metering
from core.metering.lookup import among_stored
from core.metering.models import usage_event_names, usage_events
from core.metering.sums import organizations as numbers
from core.payments.models import BillingTransaction, PaymentMethod
from core.subscriptions.models import Subscription

HITS_MAX = 10
LAST_FOUR = 4
PREFIX_LENGTH_MAX = 24


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing found. `kind`: account, invoice, subscription, payment, method, key or event; `id` is what its page is opened with."""

    kind: str
    id: str
    organization_id: uuid.UUID
    title: str
    detail: str
    exact: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, exact hits first. `events_skipped`: there were too many events to look through in time."""

    hits: tuple[Hit, ...]
    events_skipped: bool = False

    @property
    def only(self) -> Hit | None:
        """The one exact hit, if there is exactly one."""
        exact = [hit for hit in self.hits if hit.exact]
        return exact[0] if len(exact) == 1 else None


def find(session: Session, words: str) -> Found:
    """Everything that goes by `words`, at most HITS_MAX of a kind. Events are looked for only when nothing else goes by exactly this."""
    words = words.strip()
    if not words:
        return Found(())
    looks: tuple[Callable[[Session, str], Sequence[Hit]], ...] = (_accounts, _invoices, _subscriptions, _payments, _methods, _keys)
    hits = [hit for look in looks for hit in look(session, words)]
    skipped = False
    if not any(hit.exact for hit in hits):
        events, skipped = _events(session, words)
        hits.extend(events)
    return Found(tuple(sorted(hits, key=lambda hit: not hit.exact)), skipped)


def _accounts(session: Session, words: str) -> Sequence[Hit]:
    named_or_id = or_(named(words), Organization.id == as_uuid(words))
    rows = session.scalars(select(Organization).where(named_or_id).order_by(Organization.name).limit(HITS_MAX)).all()
    own = {words.lower(), words.replace(" ", "").lower()}
    return [
        Hit("account", str(row.id), row.id, row.name, row.billing_email, bool(own & {name.lower() for name in _names(row) if name}))
        for row in rows
    ]


def _names(row: Organization) -> tuple[str | None, ...]:
    return (row.name, row.slug, row.external_id, row.billing_email, row.tax_id, str(row.id))


def _invoices(session: Session, words: str) -> Sequence[Hit]:
    by = or_(Invoice.invoice_number.icontains(words, autoescape=True), Invoice.po_number == words, Invoice.id == as_uuid(words))
    wanted = select(Invoice, Organization.name).join(Organization, Organization.id == Invoice.organization_id).where(by)
    rows = session.execute(wanted.order_by(Invoice.id.desc()).limit(HITS_MAX)).all()
    return [
        Hit(
            "invoice",
            str(invoice.id),
            invoice.organization_id,
            invoice.invoice_number or "Draft",
            f"{name}, {invoice.status}",
            words.lower() in {(invoice.invoice_number or "").lower(), str(invoice.id)},
        )
        for invoice, name in rows
    ]


def _subscriptions(session: Session, words: str) -> Sequence[Hit]:
    by = or_(Subscription.external_id == words, Subscription.id == as_uuid(words))
    wanted = select(Subscription, Organization.name).join(Organization, Organization.id == Subscription.organization_id).where(by)
    rows = session.execute(wanted.order_by(Subscription.id.desc()).limit(HITS_MAX)).all()
    return [Hit("subscription", str(row.id), row.organization_id, f"{row.plan.name}, {row.status}", name, True) for row, name in rows]


def _payments(session: Session, words: str) -> Sequence[Hit]:
    by = or_(
        BillingTransaction.provider_transaction_id == words, BillingTransaction.reference == words, BillingTransaction.id == as_uuid(words)
    )
    wanted = select(BillingTransaction, Organization.name).join(Organization, Organization.id == BillingTransaction.organization_id)
    rows = session.execute(wanted.where(by).order_by(BillingTransaction.id.desc()).limit(HITS_MAX)).all()
    return [
        Hit(
            "payment",
            str(row.invoice_id or row.organization_id),
            row.organization_id,
            f"{row.type.capitalize()} {row.status}",
            name,
            row.invoice_id is not None,
        )
        for row, name in rows
    ]


def _methods(session: Session, words: str) -> Sequence[Hit]:
    if len(words) != LAST_FOUR or not words.isascii() or not words.isdigit():
        return []
    saved = PaymentMethod.last_four == words, PaymentMethod.removed_at.is_(None)
    wanted = select(PaymentMethod, Organization.name).join(Organization, Organization.id == PaymentMethod.organization_id).where(*saved)
    rows = session.execute(wanted.order_by(PaymentMethod.id.desc()).limit(HITS_MAX)).all()
    return [
        Hit(
            "method",
            str(row.organization_id),
            row.organization_id,
            f"{(row.brand or row.type).capitalize()} •• {row.last_four}",
            name,
            False,
        )
        for row, name in rows
    ]


def _keys(session: Session, words: str) -> Sequence[Hit]:
    if not words.startswith("vv_") or len(words) > PREFIX_LENGTH_MAX:
        return []
    wanted = select(ApiKey, Organization.name).join(Organization, Organization.id == ApiKey.organization_id)
    rows = session.execute(wanted.where(ApiKey.prefix.startswith(words, autoescape=True)).limit(HITS_MAX)).all()
    return [
        Hit("key", str(key.organization_id), key.organization_id, key.prefix, f"{name}, {key.name}", False)
        for key, name in rows
        if key.organization_id is not None
    ]


def _events(session: Session, words: str) -> tuple[Sequence[Hit], bool]:
    """Counted events with this idempotency key, of any account; (hits, whether it took too long).

    The log knows at once where a key's event is; what is older than the log is looked for among all events, for a moment.
    """
    logged = metering.by_key(session, words)
    if logged:
        return _hits(session, words, [(event.event_name, owner) for owner, event in logged[:HITS_MAX]]), False
    wanted = (
        select(usage_event_names.c.name, numbers.c.id)
        .join(usage_event_names, usage_event_names.c.number == usage_events.c.event_number)
        .join(numbers, numbers.c.number == usage_events.c.organization_number)
        .where(usage_events.c.idempotency_key == words)
        .limit(HITS_MAX)
    )
    try:
        with among_stored(session):
            rows = [(row[0], row[1]) for row in session.execute(wanted)]
    except Invalid:
        return [], True
    return _hits(session, words, rows), False


def _hits(session: Session, words: str, rows: Sequence[tuple[str, uuid.UUID]]) -> Sequence[Hit]:
    """Events by their names and owners."""
    owners = {owner for _, owner in rows}
    names = {row.id: row.name for row in session.scalars(select(Organization).where(Organization.id.in_(owners)))} if owners else {}
    return [Hit("event", words, owner, name, names[owner], True) for name, owner in rows]
