"""Reading the catalogue: plans, their versions, the version a new subscription gets. Everything a page shows is loaded."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from core.catalog.models import PlanKind, PlanVersion, PricingRule, SubscriptionPlan, VersionStatus
from core.catalog.reader import did_you_mean
from core.errors import NotFound

PAGE_SIZE_MAX = 200


def newest_version(session: Session, code: str) -> PlanVersion:
    """The live version of the plan `code`, with its rules and metrics; NotFound, naming codes that look alike."""
    version = session.scalars(
        select(PlanVersion)
        .join(SubscriptionPlan, SubscriptionPlan.id == PlanVersion.plan_id)
        .where(SubscriptionPlan.code == code, SubscriptionPlan.is_active, PlanVersion.status == VersionStatus.LIVE)
    ).one_or_none()
    if version is None:
        codes = session.scalars(select(SubscriptionPlan.code).where(SubscriptionPlan.is_active)).all()
        raise NotFound(f'There is no plan "{code[:100]}"{did_you_mean(code, codes)}')
    return version


def version(session: Session, version_id: uuid.UUID) -> PlanVersion:
    """One version with its plan, rules and metrics; NotFound."""
    found = session.get(PlanVersion, version_id)
    if found is None:
        raise NotFound("There is no such plan version.")
    return found


def offered_version(session: Session, plan: str | uuid.UUID) -> PlanVersion:
    """The version that `plan` names: the code or id of a plan (its live version), or the id of a version. NotFound."""
    named = _uuid(plan)
    if named is None:
        return newest_version(session, str(plan))
    found = session.scalars(
        select(PlanVersion)
        .where((PlanVersion.id == named) | ((PlanVersion.plan_id == named) & (PlanVersion.status == VersionStatus.LIVE)))
        .limit(1)
    ).one_or_none()
    if found is None or not found.plan.is_active:
        raise NotFound(f'There is no plan "{plan}".')
    return found


def plan(session: Session, code: str) -> SubscriptionPlan:
    """A plan, by code or id, with all its versions and their rules; NotFound."""
    by = SubscriptionPlan.id == named if (named := _uuid(code)) else SubscriptionPlan.code == code
    found = session.scalars(
        select(SubscriptionPlan).where(by).options(selectinload(SubscriptionPlan.versions)).execution_options(populate_existing=True)
    ).one_or_none()
    if found is None:
        raise NotFound(f'There is no plan "{code[:100]}".')
    return found


def plans(
    session: Session, *, active: bool | None = True, public: bool | None = None, after: str = "", limit: int = 50
) -> Sequence[SubscriptionPlan]:
    """Plans by code with their versions, `limit` of them behind the code `after`; `active`, `public` None: either."""
    wanted = select(SubscriptionPlan).where(SubscriptionPlan.code > after).options(selectinload(SubscriptionPlan.versions))
    if active is not None:
        wanted = wanted.where(SubscriptionPlan.is_active.is_(active))
    if public is not None:
        wanted = wanted.where(SubscriptionPlan.is_public.is_(public))
    wanted = wanted.order_by(SubscriptionPlan.code).limit(min(limit, PAGE_SIZE_MAX)).execution_options(populate_existing=True)
    return session.scalars(wanted).all()


def live_versions(session: Session, *, currency: str, public: bool | None = True) -> Sequence[PlanVersion]:
    """The version on offer of each plan in `currency`, cheapest base price first: the columns of a plan comparison."""
    wanted = (
        select(PlanVersion)
        .join(SubscriptionPlan, SubscriptionPlan.id == PlanVersion.plan_id)
        .where(PlanVersion.status == VersionStatus.LIVE, SubscriptionPlan.is_active, SubscriptionPlan.kind == PlanKind.PLAN)
        .where((SubscriptionPlan.currency == currency) | PlanVersion.rules.any(PricingRule.currency == currency))
        .order_by(PlanVersion.base_price, SubscriptionPlan.code)
    )
    if public is not None:
        wanted = wanted.where(SubscriptionPlan.is_public.is_(public))
    return session.scalars(wanted).all()


def attachable(session: Session, currency: str) -> Sequence[PlanVersion]:
    """The versions on offer of the add-ons and coupons sold in `currency`, by name."""
    wanted = (
        select(PlanVersion)
        .join(SubscriptionPlan, SubscriptionPlan.id == PlanVersion.plan_id)
        .where(PlanVersion.status == VersionStatus.LIVE, SubscriptionPlan.is_active, SubscriptionPlan.kind != PlanKind.PLAN)
        .where((SubscriptionPlan.currency == currency) | PlanVersion.rules.any(PricingRule.currency == currency))
        .order_by(SubscriptionPlan.name, SubscriptionPlan.code)
    )
    return session.scalars(wanted).all()


def _uuid(text: str | uuid.UUID) -> uuid.UUID | None:
    if isinstance(text, uuid.UUID):
        return text
    try:
        return uuid.UUID(text) if len(text) == 36 else None
    except ValueError:
        return None
