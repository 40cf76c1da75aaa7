"""A customer with a life: four plans on offer, usage by project day by day, an invoice each month, all but the last one paid."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from core.audit import Actor
from core.catalog import publish
from core.identity import organizations
from core.identity.models import Organization
from core.invoicing import draft, finalize
from core.metering import metrics
from core.metering.models import Metric, usage_rollups
from core.payments import external
from core.periods import midnight
from core.subscriptions import lifecycle
from core.subscriptions.models import Subscription

SETUP = Actor("operator", "setup", "Mara Lindqvist")
ZONE = "Europe/Berlin"
PROJECTS = (("assistant-prod", "0.42"), ("doc-import", "0.24"), ("search-index", "0.18"), ("eval-nightly", "0.11"), ("staging", "0.05"))
METRICS = (("output_tokens", "Output tokens", 9_400_000), ("input_tokens", "Input tokens", 29_000_000), ("requests", "Requests", 38_000))
SEEDS = random.Random(20261122)


def tiered(*steps: tuple[str | None, str]) -> dict[str, Any]:
    """A graduated price from (up to, unit price) pairs."""
    return {"model": "graduated", "tiers": [{"up_to": up_to, "unit_price": price, "flat_fee": "0"} for up_to, price in steps]}


def packages(free: str, price: str) -> dict[str, Any]:
    """Requests in packages of 1,000 after the free ones."""
    return {"model": "package", "package_size": "1000", "package_price": price, "free_units": free, "rounding": "up"}


PLANS = (
    (
        "starter",
        "Starter",
        "0",
        [tiered((None, "0.0000064")), tiered((None, "0.0000016")), packages("100000", "0.06")],
        {"requests_per_minute": 300},
    ),
    (
        "build",
        "Build",
        "99.00",
        [
            tiered(("20000000", "0.0000048"), ("100000000", "0.000004"), (None, "0.0000032")),
            tiered(("100000000", "0.0000012"), ("500000000", "0.00000096"), (None, "0.0000008")),
            packages("1000000", "0.04"),
        ],
        {"requests_per_minute": 2000},
    ),
    (
        "scale",
        "Scale",
        "249.00",
        [
            tiered(("20000000", "0.0000038"), ("100000000", "0.0000031"), (None, "0.00000245")),
            tiered(("100000000", "0.00000095"), ("500000000", "0.0000008"), (None, "0.00000062")),
            packages("5000000", "0.03"),
        ],
        {"requests_per_minute": 6000},
    ),
    (
        "reserve",
        "Reserve",
        "1200.00",
        [tiered((None, "0.0000025")), tiered((None, "0.00000066")), packages("0", "0.02")],
        {"requests_per_minute": 20000},
    ),
)


@dataclass(frozen=True, slots=True)
class Story:
    """The customer and what it is subscribed to."""

    organization: Organization
    subscription: Subscription
    metrics: list[Metric]


def tell(session: Session, *, now: datetime, months: int = 4, name: str = "Quillmark GmbH", slug: str = "quillmark", **given: Any) -> Story:
    """Live `months` whole months and the running one up to `now`; the invoice of the last whole month is open."""
    first = _month(now, -months)
    made = [_metric(session, *metric, at=first) for metric in METRICS]
    _plans(session, first)
    details: dict[str, Any] = {
        "billing_address": {"line1": "Am Sandtorkai 48", "postal_code": "20457", "city": "Hamburg", "country": "DE"},
        "tax_id": "DE136695976",
        "billing_email": "finance@quillmark.example",
    }
    organization = organizations.create(
        session, name=name, slug=slug, currency="EUR", timezone=ZONE, actor=SETUP, at=first, **{**details, **given}
    )
    subscription = lifecycle.start(session, organization.id, plan="build", at=first, actor=SETUP, start_at=first, anchor="calendar")
    _use(session, organization, made, first, now)
    for ends in [_month(now, back) for back in range(-months, 1)]:
        _close(session, organization, subscription, at=ends + timedelta(minutes=30), pay=ends < _month(now, 0))
    return Story(organization, subscription, made)


def _close(session: Session, organization: Organization, subscription: Subscription, *, at: datetime, pay: bool) -> None:
    """The month's invoice, issued, and paid by transfer a day later."""
    found = draft.bill(session, subscription.id, as_of=at, actor=SETUP)
    if found is None:
        return
    issued = finalize.finalize_invoice(session, found.id, at=at, actor=SETUP)
    if pay and issued.amount_due_minor:
        day_after = at + timedelta(days=1)
        external.record_external(
            session,
            organization.id,
            issued.id,
            amount_minor=issued.amount_due_minor,
            reference=f"SEPA {issued.invoice_number}",
            at=day_after,
            actor=SETUP,
        )


def _metric(session: Session, code: str, name: str, _daily: int, *, at: datetime) -> Metric:
    return metrics.create(session, code=code, name=name, aggregation="sum", group_by=["project"], actor=SETUP, at=at)


def _plans(session: Session, at: datetime) -> None:
    for code, name, base, models, limits in PLANS:
        prices = [{"metric": metric[0], **model} for metric, model in zip(METRICS, models, strict=True)]
        publish.create_version(
            session,
            code=code,
            name=name,
            currency="EUR",
            billing_period="month",
            base_price=base,
            actor=SETUP,
            at=at,
            prices=prices,
            limits=limits,
        )


def _use(session: Session, organization: Organization, made: list[Metric], first: datetime, now: datetime) -> None:
    """Usage with the shape of working weeks and a slow growth, at 9 and 15 o'clock local time."""
    rows = []
    for number, day in enumerate(_days(first, now)):
        weekday = Decimal("0.4") if day.weekday() >= 5 else Decimal(1)
        for metric, (_, _, daily) in zip(made, METRICS, strict=True):
            size = daily * weekday * (100 + number // 3) / 100 * SEEDS.randint(80, 120) / 100
            for project, share in PROJECTS:
                for hour in (9, 15):
                    at = midnight(day, ZONE) + timedelta(hours=hour)
                    quantity = int(size * Decimal(share) / 2)
                    if at < now and quantity:
                        rows.append(rollup(organization, metric, at, project, quantity))
    session.execute(insert(usage_rollups), rows)


def rollup(organization: Organization, metric: Metric, at: datetime, project: str, quantity: int) -> dict[str, Any]:
    """An hour of usage as the aggregator would have left it."""
    moment = at + timedelta(minutes=10)
    return {
        "organization_number": organization.number,
        "metric_number": metric.number,
        "hour": at,
        "group_key": f'["{project}"]',
        "events": 10,
        "quantity": quantity,
        "first_at": moment,
        "last_at": moment,
        "last_batch": 1,
        "last_position": 0,
    }


def _days(first: datetime, now: datetime) -> Iterator[date]:
    day = (first + timedelta(hours=12)).date()
    while midnight(day, ZONE) < now:
        yield day
        day += timedelta(days=1)


def _month(now: datetime, offset: int) -> datetime:
    """The local first of the month `offset` months from now's."""
    total = now.year * 12 + now.month - 1 + offset
    return midnight(date(total // 12, total % 12 + 1, 1), ZONE)
