"""Publishing: a checked plan becomes a new immutable version; what runs on older versions keeps them."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.catalog.models import PlanKind, PlanVersion, PricingRule, SubscriptionPlan, VersionStatus
from core.catalog.plan_document import BASE, Plan, Price, read_plan
from core.db import new_id
from core.errors import FieldError, Invalid
from core.metering.models import Metric
from core.pricing.models import name_of, to_json
from core.pricing.rules import Flat, PerUnit
from core.pricing.terms import Kind


def create_version(
    session: Session,
    *,
    code: str,
    name: str,
    currency: str,
    billing_period: str,
    base_price: Decimal | str | int,
    actor: Actor,
    at: datetime,
    interval_count: int = 1,
    billing_mode: str | None = None,
    trial_period_days: int = 0,
    prices: Sequence[Mapping[str, object]] = (),
    proration: str | None = None,
    credit_policy: str | None = None,
    description: str | None = None,
    features: Mapping[str, object] | None = None,
    limits: Mapping[str, object] | None = None,
    metadata: Mapping[str, object] | None = None,
    is_public: bool | None = None,
    kind: str | None = None,
    duration_cycles: int | None = None,
    currencies: Mapping[str, object] | None = None,
    trial_end_without_method: str | None = None,
    customers_may_pause: bool | None = None,
) -> PlanVersion:
    """Publish the next version of the plan `code`, creating the plan with version 1; the version before it is retired.

    `base_price` is in major units per billing period and is charged as `billing_mode` says (default in advance). `currencies` maps
    further currencies to their base price and prices. `kind` says whether it is a plan, an add-on or a coupon, which holds for
    `duration_cycles` billing periods (None: for good).
    Raises Invalid with a JSON pointer for every fault, such as /prices/0/tiers/1/up_to.
    """
    metrics = metrics_by_code(session)
    document = {
        "code": code, "name": name, "description": description, "currency": currency, "billing_period": billing_period,
        "interval_count": interval_count, "base_price": base_price, "billing_mode": billing_mode, "trial_period_days": trial_period_days,
        "prices": prices, "proration": proration, "credit_policy": credit_policy, "features": features, "limits": limits,
        "metadata": metadata, "is_public": is_public, "kind": kind, "duration_cycles": duration_cycles, "currencies": currencies,
        "trial_end_without_method": trial_end_without_method, "customers_may_pause": customers_may_pause,
    }  # fmt: skip
    checked = read_plan(document, metrics)
    plan = _plan(session, checked)
    number = 1 + (session.scalar(select(func.max(PlanVersion.version)).where(PlanVersion.plan_id == plan.id)) or 0)
    session.execute(
        update(PlanVersion)
        .where(PlanVersion.plan_id == plan.id, PlanVersion.status == VersionStatus.LIVE)
        .values(status=VersionStatus.RETIRED)
    )
    version = _version(checked, number, created_by=actor.label, at=at)
    version.plan = plan
    version.rules = _rules(checked, metrics)
    session.add(version)
    session.flush()
    audit.record(session, actor, "plan.version_published", version, at=at, code=plan.code, version=number, currency=plan.currency)
    return version


def unpublished(session: Session, document: Mapping[str, object]) -> PlanVersion:
    """The version a document would be published as, to compute with: it belongs to no session and is never stored. Invalid as above."""
    metrics = metrics_by_code(session)
    checked = read_plan(document, metrics)
    version = _version(checked, 0, created_by="", at=None)
    version.id, version.status = new_id(), VersionStatus.DRAFT
    version.plan = SubscriptionPlan(code=checked.code, name=checked.name, currency=checked.currency, kind=checked.kind)
    version.rules = _rules(checked, metrics)
    for rule in version.rules:
        rule.id, rule.metric_id = new_id(), rule.metric.id if rule.metric else None
    return version


PLAN_KEYS = frozenset(inspect.signature(create_version).parameters) - {"session", "actor", "at"}
"""The keys of a plan document."""


def metrics_by_code(session: Session) -> dict[str, Metric]:
    """The metrics that prices may read."""
    return {metric.code: metric for metric in session.scalars(select(Metric).where(Metric.archived_at.is_(None)))}


def _plan(session: Session, checked: Plan) -> SubscriptionPlan:
    """The plan's row, locked: versions of one plan are published one after the other."""
    values = {
        "code": checked.code, "name": checked.name, "description": checked.description, "currency": checked.currency,
        "is_public": checked.is_public, "metadata": checked.metadata, "kind": checked.kind,
    }  # fmt: skip
    table = SubscriptionPlan.__table__
    session.execute(insert(table).values(values).on_conflict_do_nothing(index_elements=["code"]))  # type: ignore[arg-type]
    plan = session.scalars(
        select(SubscriptionPlan)
        .where(SubscriptionPlan.code == checked.code)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one()
    if plan.currency != checked.currency:
        detail = f"the plan is in {plan.currency}; publish a plan in {checked.currency} under a code of its own"
        raise Invalid("The currency of a plan does not change.", errors=(FieldError("/currency", detail),))
    if plan.kind != checked.kind:
        detail = f'"{plan.code}" is a {plan.kind}; publish a {checked.kind} under a code of its own'
        raise Invalid("What a plan is does not change.", errors=(FieldError("/kind", detail),))
    plan.name, plan.description, plan.is_public, plan.extra = checked.name, checked.description, checked.is_public, checked.metadata
    return plan


def _version(checked: Plan, number: int, *, created_by: str, at: datetime | None) -> PlanVersion:
    return PlanVersion(
        version=number,
        status=VersionStatus.LIVE,
        base_price=checked.base_price,
        billing_mode=checked.billing_mode,
        billing_period=checked.billing_period,
        interval_count=checked.interval_count,
        trial_period_days=checked.trial_period_days,
        trial_end_without_method=checked.trial_end_without_method,
        proration=checked.proration,
        credit_policy=checked.credit_policy,
        features=checked.features,
        limits=checked.limits,
        published_at=at,
        created_by=created_by,
        duration_cycles=checked.duration_cycles,
        customers_may_pause=checked.customers_may_pause,
    )


def _rules(checked: Plan, metrics: Mapping[str, Metric]) -> list[PricingRule]:
    prices = list(checked.prices)
    if checked.base_price:
        prices.insert(0, Price(BASE, checked.name, Kind.RECURRING, None, Flat(checked.base_price), checked.billing_mode))
    return [
        rule_of(
            price,
            position,
            metrics[price.metric_code] if price.metric_code else None,
            checked.name,
            is_add_on=checked.kind is PlanKind.ADD_ON,
        )
        for position, price in enumerate(prices)
    ]


def rule_of(price: Price, position: int, metric: Metric | None, plan_name: str, *, is_add_on: bool) -> PricingRule:
    """A checked price as it is stored, at a position among the others."""
    said, model = price.conditions, price.model
    if is_add_on and price.code == BASE and isinstance(model, Flat):
        model = PerUnit(model.flat_price)  # a base price of an add-on is for one of it
    default = plan_name if price.code == BASE else metric.name if metric else price.code.replace("_", " ").capitalize()
    return PricingRule(
        code=price.code,
        name=price.name or default,
        kind=price.kind,
        metric=metric,
        model=name_of(model),
        rules=to_json(model),
        billing_mode=price.billing_mode,
        position=position,
        licensed=said.licensed,
        interval=said.cycle[0] if said.cycle else None,
        interval_count=said.cycle[1] if said.cycle else None,
        included=said.included,
        covers=list(said.covers) if said.covers is not None else None,
        overage_factor=said.overage_factor,
        quantity_min=said.quantity_min,
        quantity_max=said.quantity_max,
        proration=said.proration,
        currency=price.currency,
    )


def set_active(session: Session, plan_id: uuid.UUID, *, active: bool, actor: Actor, at: datetime) -> SubscriptionPlan:
    """Offer the plan to new subscriptions or stop offering it; running subscriptions are not touched."""
    plan = session.get_one(SubscriptionPlan, plan_id, with_for_update={"key_share": True}, populate_existing=True)
    if plan.is_active != active:
        plan.is_active = active
        audit.record(session, actor, "plan.offered" if active else "plan.withdrawn", plan, at=at, code=plan.code)
    return plan
