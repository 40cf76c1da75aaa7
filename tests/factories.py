"""Rows for tests, written straight into the tables: plain functions with sensible defaults and overrides by keyword."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.catalog.models import PlanVersion, PricingRule, SubscriptionPlan
from core.identity.models import Organization
from core.metering.models import Metric, usage_rollups
from core.subscriptions.models import Subscription, SubscriptionTerm

START = datetime(2026, 6, 1, tzinfo=UTC)
_numbers = itertools.count(1)


def make_organization(session: Session, **given: Any) -> Organization:
    """A customer in Germany that pays in euros and lives in UTC; 0 % tax unless `tax_rate_percent` says otherwise."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "name": f"Customer {number}",
        "slug": f"customer-{number}-{uuid.uuid4().hex[:6]}",
        "billing_email": f"billing{number}@customer.example",
        "currency": "EUR",
        "timezone": "UTC",
        "billing_address": {"line1": "Kantstraße 1", "postal_code": "10623", "city": "Berlin", "country": "DE"},
        "tax_rate_percent": Decimal(0),
    }
    organization = Organization(**{**values, **given})
    session.add(organization)
    session.flush()
    return organization


def make_metric(session: Session, code: str = "calls", **given: Any) -> Metric:
    """A metric that sums the quantity of the events of its own name."""
    metric = Metric(
        **{"code": f"{code}-{next(_numbers)}", "name": code.capitalize(), "unit": code, "aggregation": "sum", "event_name": code, **given}
    )
    session.add(metric)
    session.flush()
    return metric


def use(session: Session, organization: Organization, metric: Metric, at: datetime, quantity: int | str) -> None:
    """Counted usage of `quantity` in the hour of `at`, added to what is there, as the aggregator would have left it."""
    hour = at.replace(minute=0, second=0, microsecond=0)
    row = {
        "organization_number": organization.number,
        "metric_number": metric.number,
        "hour": hour,
        "events": 1,
        "quantity": Decimal(quantity),
    }
    added = insert(usage_rollups).values(**row, first_at=at, last_at=at, last_batch=1, last_position=0)
    session.execute(
        added.on_conflict_do_update(
            index_elements=["organization_number", "metric_number", "hour", "group_key"],
            set_={"quantity": usage_rollups.c.quantity + added.excluded.quantity, "events": usage_rollups.c.events + 1},
        )
    )


def make_plan(
    session: Session,
    *,
    base_price: str = "100.00",
    billing_mode: str = "in_advance",
    prices: Sequence[tuple[Metric, Mapping[str, Any]]] = (),
    currency: str = "EUR",
    **given: Any,
) -> PlanVersion:
    """A live monthly plan: `base_price` by `billing_mode`, then a usage price in arrears for each (metric, model)."""
    number = next(_numbers)
    plan = SubscriptionPlan(code=f"plan-{number}", name=f"Plan {number}", currency=currency)
    values: dict[str, Any] = {
        "version": 1,
        "status": "live",
        "billing_period": "month",
        "interval_count": 1,
        "proration": "seconds",
        "credit_policy": "credit",
    }
    version = PlanVersion(plan=plan, base_price=Decimal(base_price), billing_mode=billing_mode, **{**values, **given})
    flat = {"model": "flat", "flat_price": base_price}
    version.rules.append(
        PricingRule(code="base", name="Base fee", kind="recurring", model="flat", rules=flat, billing_mode=billing_mode, position=0)
    )
    for position, (metric, model) in enumerate(prices, start=1):
        version.rules.append(
            PricingRule(
                code=metric.code,
                name=metric.name,
                kind="usage",
                metric=metric,
                model=model["model"],
                rules=dict(model),
                billing_mode="in_arrears",
                position=position,
            )
        )
    session.add(version)
    session.flush()
    return version


def make_subscription(
    session: Session, organization: Organization, version: PlanVersion, *, start_at: datetime = START, quantity: int = 1, **given: Any
) -> Subscription:
    """A subscription with one open term from `start_at`, anchored on its day, due at once."""
    subscription = Subscription(
        organization_id=organization.id,
        plan=version.plan,
        status="active",
        currency=organization.currency,
        anchor_mode="anniversary",
        started_at=start_at,
        next_bill_at=start_at,
        **given,
    )
    session.add(subscription)
    session.flush()
    add_term(session, subscription, version, start_at=start_at, timezone=organization.timezone, quantity=quantity)
    return subscription


def add_term(
    session: Session,
    subscription: Subscription,
    version: PlanVersion,
    *,
    start_at: datetime,
    end_at: datetime | None = None,
    timezone: str = "UTC",
    quantity: int = 1,
    **given: Any,
) -> SubscriptionTerm:
    """A term of `subscription` from `start_at` up to `end_at`, anchored on its own first day unless `anchor_day` is given."""
    term = SubscriptionTerm(
        organization_id=subscription.organization_id,
        subscription_id=subscription.id,
        plan_version=version,
        start_at=start_at,
        end_at=end_at,
        quantity=Decimal(quantity),
        timezone=timezone,
        interval=version.billing_period,
        interval_count=version.interval_count,
        **{"anchor_day": start_at.astimezone(ZoneInfo(timezone)).date(), **given},
    )
    session.add(term)
    session.flush()
    return term
