"""Comparing our payments with the provider's list of charges: every difference is named, none is mended silently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from core.db import transaction
from core.payments.gateways.base import ChargeOutcome, ChargeStatus
from core.payments.models import BillingTransaction, PaymentMethod, TransactionStatus, TransactionType
from core.payments.provider import STRIPE, gateway

OVERLAP = timedelta(hours=1)
"""Rows made this much before the window are known too: the two machines' clocks differ, and a charge follows its row."""


@dataclass(frozen=True, slots=True)
class Booked:
    """A charge as we know it; amounts in minor units."""

    id: str
    provider_id: str | None
    status: str
    amount_minor: int
    currency: str
    refunded_minor: int


@dataclass(frozen=True, slots=True)
class Difference:
    """`kind`: missing_here, missing_there, amount, currency, status or refunded."""

    kind: str
    transaction_id: str | None
    provider_id: str | None
    ours: str
    theirs: str


def differences(*, since: datetime, until: datetime, provider: str = STRIPE) -> list[Difference]:
    """What differs for charges made in [since, until) of machine time. Call it outside of a transaction."""
    theirs = list(gateway(provider).list_charges(since, until))
    with transaction() as session:
        refunds = (
            select(BillingTransaction.refunded_transaction_id, BillingTransaction.amount_minor)
            .where(BillingTransaction.type == TransactionType.REFUND, BillingTransaction.status == TransactionStatus.SUCCEEDED)
            .where(BillingTransaction.provider == provider)
        )
        refunded: dict[object, int] = {}
        for charge_id, amount in session.execute(refunds):
            refunded[charge_id] = refunded.get(charge_id, 0) + amount
        rows = session.scalars(
            select(BillingTransaction).where(
                BillingTransaction.provider == provider,
                BillingTransaction.type == TransactionType.CHARGE,
                BillingTransaction.updated_at >= since - OVERLAP,
            )
        ).all()
        ours = [
            Booked(str(row.id), row.provider_transaction_id, row.status, row.amount_minor, row.currency, refunded.get(row.id, 0))
            for row in rows
        ]
    return compare(ours, theirs)


def compare(ours: Iterable[Booked], theirs: Iterable[ChargeOutcome]) -> list[Difference]:
    """Pair by attempt, else by the provider's id. Charges that name no attempt of ours and were never ours are reported as missing here."""
    by_id = {booked.id: booked for booked in ours}
    by_provider_id = {booked.provider_id: booked for booked in by_id.values() if booked.provider_id}
    found: list[Difference] = []
    seen: set[str] = set()
    for charge in theirs:
        booked = by_id.get(charge.attempt_id or "") or by_provider_id.get(charge.provider_id or "")
        if booked is None:
            if charge.status is ChargeStatus.SUCCEEDED:
                found.append(Difference("missing_here", None, charge.provider_id, "", f"{charge.amount_minor} {charge.currency}"))
            continue
        seen.add(booked.id)
        found += _between(booked, charge)
    return found + [
        Difference("missing_there", booked.id, booked.provider_id, booked.status, "")
        for booked in by_id.values()
        if booked.id not in seen and booked.status == TransactionStatus.SUCCEEDED
    ]


def _between(ours: Booked, theirs: ChargeOutcome) -> list[Difference]:
    pairs: list[tuple[str, object, object]] = [
        ("status", ours.status == TransactionStatus.SUCCEEDED, theirs.status is ChargeStatus.SUCCEEDED),
        ("currency", ours.currency, theirs.currency),
    ]
    if theirs.status is ChargeStatus.SUCCEEDED:
        pairs += [("amount", ours.amount_minor, theirs.amount_minor), ("refunded", ours.refunded_minor, theirs.refunded_minor)]
    return [Difference(kind, ours.id, theirs.provider_id, str(one), str(other)) for kind, one, other in pairs if one != other]


def undetached(*, provider: str = STRIPE) -> list[tuple[object, str]]:
    """Removed payment methods that the provider still keeps: (id, the provider's id), for `methods.detach`."""
    with transaction() as session:
        rows = session.execute(
            select(PaymentMethod.id, PaymentMethod.provider_payment_method_id).where(
                PaymentMethod.provider == provider, PaymentMethod.removed_at.is_not(None), ~PaymentMethod.extra.has_key("detached")
            )
        )
        return [(row.id, row.provider_payment_method_id) for row in rows]
