"""Changing limits: each change takes effect in its own transaction, stops and notices included."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.entitlements import watch
from core.entitlements.evaluate import evaluate
from core.entitlements.models import CapAction, FeatureOverride, LimitNotice, LimitState, SpendCap, UsageBlock
from core.errors import FieldError, Invalid, NotFound
from core.identity import queries as identity
from core.metering.models import LimitAction, LimitPeriod, LimitSource, Metric, UsageLimit

THRESHOLD_MAX = 1000
THRESHOLDS_MAX = 10
USUAL = (50, 80, 100)
FEATURE_LENGTH_MAX = 100


def set_limit(
    session: Session,
    organization_id: uuid.UUID,
    *,
    metric: Metric,
    value: Decimal,
    period: LimitPeriod,
    action: LimitAction,
    source: LimitSource,
    actor: Actor,
    at: datetime,
    now: datetime,
    thresholds: Collection[int] = USUAL,
) -> UsageLimit:
    """Set the limit of one source on a metric and period, replacing the one before. `at` is real time, `now` the customer's own.

    Raises Invalid. What is used already counts: a limit below it is reached at once.
    """
    if not value.is_finite() or value < 0:
        raise Invalid("The limit was not set.", errors=(FieldError("/value", "Give a number from 0."),))
    told = checked(thresholds)
    keys = {"organization_id": organization_id, "metric_id": metric.id, "period": period.value, "source": source.value}
    values: dict[str, Any] = {"limit_value": value, "action_on_exceed": action.value, "thresholds": told}
    before = session.scalar(select(UsageLimit.limit_value).filter_by(**keys))
    found = insert(UsageLimit).values(**keys, **values, created_at=now).on_conflict_do_update(index_elements=list(keys), set_=values)
    row_id = session.execute(found.returning(UsageLimit.id)).scalar_one()
    row = session.get_one(UsageLimit, row_id, populate_existing=True)
    audit.record(session, actor, "limit.set", row, at=now, metric=metric.code, source=source, period=period, **values)
    _look(session, organization_id, f"limit:{row_id}" if before != value else None, at=at, actor=actor)
    return row


def remove_limit(
    session: Session,
    organization_id: uuid.UUID,
    limit_id: uuid.UUID,
    *,
    source: LimitSource | None,
    actor: Actor,
    at: datetime,
    now: datetime,
) -> None:
    """Remove a limit, with `source` only one that this source set; NotFound."""
    row = session.get(UsageLimit, limit_id)
    if row is None or row.organization_id != organization_id or (source is not None and row.source != source):
        raise NotFound("There is no such limit.")
    audit.record(session, actor, "limit.removed", row, at=now, metric=row.metric.code, period=row.period, limit_value=row.limit_value)
    session.delete(row)
    session.flush()
    _look(session, organization_id, f"limit:{limit_id}", at=at, actor=actor)


def set_cap(
    session: Session,
    organization_id: uuid.UUID,
    *,
    amount_minor: int,
    action: CapAction,
    actor: Actor,
    at: datetime,
    now: datetime,
    thresholds: Collection[int] = USUAL,
) -> SpendCap:
    """Set the customer's spend cap (block) or spend alert (notify) for a billing period, net minor units of its currency. Invalid."""
    if amount_minor <= 0:
        raise Invalid("The amount was not set.", errors=(FieldError("/amount", "Give an amount above 0."),))
    told = checked(thresholds)
    currency = identity.organization(session, organization_id).currency
    keys = {"organization_id": organization_id, "action_on_exceed": action.value}
    values: dict[str, Any] = {"amount_minor": amount_minor, "currency": currency, "thresholds": told}
    before = session.scalar(select(SpendCap.amount_minor).filter_by(**keys))
    found = insert(SpendCap).values(**keys, **values, created_at=now).on_conflict_do_update(index_elements=list(keys), set_=values)
    row_id = session.execute(found.returning(SpendCap.id)).scalar_one()
    row = session.get_one(SpendCap, row_id, populate_existing=True)
    audit.record(session, actor, "spend_cap.set", row, at=now, action=action, **values)
    _look(session, organization_id, f"cap:{row_id}" if before != amount_minor else None, at=at, actor=actor)
    return row


def remove_cap(session: Session, organization_id: uuid.UUID, cap_id: uuid.UUID, *, actor: Actor, at: datetime, now: datetime) -> None:
    """Remove a spend cap or alert; NotFound."""
    row = session.get(SpendCap, cap_id)
    if row is None or row.organization_id != organization_id:
        raise NotFound("There is no such spend cap.")
    audit.record(session, actor, "spend_cap.removed", row, at=now, action=row.action_on_exceed, amount_minor=row.amount_minor)
    session.delete(row)
    session.flush()
    _look(session, organization_id, f"cap:{cap_id}", at=at, actor=actor)


def set_feature(
    session: Session, organization_id: uuid.UUID, *, feature: str, value: bool | int | str, actor: Actor, now: datetime
) -> FeatureOverride:
    """Agree on a feature with one customer, whatever its plan says; Invalid."""
    if not 1 <= len(feature) <= FEATURE_LENGTH_MAX:
        raise Invalid(
            "The feature was not set.", errors=(FieldError("/feature", f"Give a name of at most {FEATURE_LENGTH_MAX} characters."),)
        )
    keys = {"organization_id": organization_id, "feature": feature}
    found = insert(FeatureOverride).values(**keys, value=value, created_at=now)
    session.execute(found.on_conflict_do_update(index_elements=list(keys), set_={"value": value}))
    organization = identity.organization(session, organization_id)
    audit.record(session, actor, "feature.set", organization, at=now, organization_id=organization_id, feature=feature, value=value)
    return session.get_one(FeatureOverride, (organization_id, feature), populate_existing=True)


def remove_feature(session: Session, organization_id: uuid.UUID, *, feature: str, actor: Actor, now: datetime) -> None:
    """Let the plan decide again; NotFound."""
    gone = delete(FeatureOverride).where(FeatureOverride.organization_id == organization_id, FeatureOverride.feature == feature)
    if not session.execute(gone.returning(FeatureOverride.feature)).all():
        raise NotFound("This feature is not agreed otherwise than the plan says.")
    organization = identity.organization(session, organization_id)
    audit.record(session, actor, "feature.removed", organization, at=now, organization_id=organization_id, feature=feature)


def checked(thresholds: Collection[int]) -> list[int]:
    """Thresholds in order, each once; Invalid."""
    found = sorted(set(thresholds))
    if len(found) > THRESHOLDS_MAX or any(not 1 <= value <= THRESHOLD_MAX for value in found):
        detail = f"Give at most {THRESHOLDS_MAX} percentages from 1 to {THRESHOLD_MAX}."
        raise Invalid("The thresholds were not set.", errors=(FieldError("/thresholds", detail),))
    return found


def states(session: Session, organization_id: uuid.UUID, *, limit: int = 50) -> Sequence[LimitState]:
    """Windows in which a limit was reached, newest first."""
    row = LimitState
    wanted = select(row).where(row.organization_id == organization_id, row.reached_at.is_not(None))
    return session.scalars(wanted.order_by(row.reached_at.desc()).limit(limit)).all()


def stops(session: Session, organization_id: uuid.UUID, *, now: datetime) -> Sequence[UsageBlock]:
    """What is refused at the customer's instant `now`."""
    row = UsageBlock
    holds: Any = row.window_end.is_(None) | (row.window_end > now)
    return session.scalars(select(row).where(row.organization_id == organization_id, holds).order_by(row.subject)).all()


def _look(session: Session, organization_id: uuid.UUID, changed: str | None, *, at: datetime, actor: Actor) -> None:
    """Evaluate now. The thresholds of a limit that `changed` are told anew: they are other amounts."""
    if changed is not None:
        session.execute(delete(LimitNotice).where(LimitNotice.organization_id == organization_id, LimitNotice.subject == changed))
    watch.add(session, organization_id, at=at)
    evaluate(session, [organization_id], at=at, actor=actor)
