"""Prices agreed with one customer: a version of a plan that is never on offer, with some of its prices replaced or added."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.catalog.models import BillingMode, PlanVersion, PricingRule, VersionStatus
from core.catalog.plan_document import BASE, Price, read_prices
from core.catalog.publish import rule_of
from core.catalog.reader import Reader
from core.errors import Invalid
from core.metering.models import Metric
from core.periods import Interval
from core.pricing.rules import Flat
from core.pricing.terms import Kind

_COPIED = (
    "base_price", "billing_mode", "billing_period", "interval_count", "trial_period_days", "trial_end_without_method", "proration",
    "credit_policy", "features", "limits", "customers_may_pause",
)  # fmt: skip
_RULE_COPIED = (
    "code", "name", "kind", "metric_id", "model", "rules", "billing_mode", "licensed", "interval", "interval_count", "included", "covers",
    "overage_factor", "proration", "quantity_min", "quantity_max",
)  # fmt: skip


def negotiate(
    session: Session,
    version: PlanVersion,
    *,
    organization_id: uuid.UUID,
    currency: str,
    actor: Actor,
    at: datetime,
    base_price: Decimal | str | int | None = None,
    prices: Sequence[Mapping[str, object]] = (),
    pointer: str = "",
) -> PlanVersion:
    """A version for one organization: as `version` in `currency`, save `base_price` and the prices with the given codes.

    A price is written as in a plan; one with a code the plan does not have is added. Invalid with pointers below `pointer`.
    """
    metrics = {metric.code: metric for metric in session.scalars(select(Metric).where(Metric.archived_at.is_(None)))}
    given = _read(version, currency, base_price, prices, metrics, pointer)
    replaced = sorted(given)
    kept = [rule for rule in version.rules_in(currency) if rule.code not in given]
    number = 1 + (session.scalar(select(func.max(PlanVersion.version)).where(PlanVersion.plan_id == version.plan_id)) or 0)
    made = PlanVersion(
        **{name: getattr(version, name) for name in _COPIED},
        plan=version.plan,
        version=number,
        status=VersionStatus.NEGOTIATED,
        organization_id=organization_id,
        published_at=at,
        created_by=actor.label,
    )
    base = given[BASE].model if BASE in given else None
    if isinstance(base, Flat):
        made.base_price = base.flat_price
        if not base.flat_price:
            del given[BASE]  # as in a plan, a base price of 0 makes no price
    copied = [PricingRule(**{name: getattr(rule, name) for name in _RULE_COPIED}, position=rule.position) for rule in kept]
    places = {rule.code: rule.position for rule in version.rules_in(currency)}
    last = max(places.values(), default=-1)
    for code, price in given.items():
        last += code not in places
        copied.append(rule_of(price, places.get(code, last), metrics.get(price.metric_code or ""), version.plan.name, is_add_on=False))
    for rule in copied:
        rule.currency = None if currency == version.plan.currency else currency
    made.rules = sorted(copied, key=lambda rule: rule.position)
    session.add(made)
    session.flush()
    session.refresh(made)
    audit.record(session, actor, "plan.version_negotiated", made, at=at, code=version.plan.code, version=number, replaced=replaced)
    return made


def _read(
    version: PlanVersion,
    currency: str,
    base_price: Decimal | str | int | None,
    prices: Sequence[Mapping[str, object]],
    metrics: Mapping[str, Metric],
    pointer: str,
) -> dict[str, Price]:
    reader = Reader()
    known = {rule.code for rule in version.rules_in(currency)}
    read = read_prices(
        reader,
        f"{pointer}/prices",
        prices,
        metrics=metrics,
        default_mode=BillingMode(version.billing_mode),
        cycle=(Interval(version.billing_period), version.interval_count),
        known=known,
    )
    found = {price.code: price for price in read}
    if base_price is not None:
        amount = reader.amount(f"{pointer}/base_price", base_price, currency)
        found[BASE] = Price(BASE, "", Kind.RECURRING, None, Flat(amount), BillingMode(version.billing_mode))
    if not found:
        reader.fault(pointer or "/", "must replace at least one price")
    if reader.faults:
        raise Invalid("The agreement cannot hold like this.", errors=tuple(reader.faults))
    return found
