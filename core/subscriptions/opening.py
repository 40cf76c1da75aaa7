"""What a subscription needs to start: a buyer in good standing, a plan on offer, checked wishes, nobody else billing the same."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select, true
from sqlalchemy.orm import Session

from core import config
from core.catalog import queries as catalog
from core.catalog.models import AfterTrial, PlanKind, PlanVersion
from core.catalog.plan_document import TRIAL_DAYS_MAX
from core.catalog.reader import Reader
from core.db import new_id
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.identity.models import Organization, OrganizationStatus
from core.periods import MONTHS_IN
from core.subscriptions import quantities as licensed
from core.subscriptions import spans as timelines
from core.subscriptions import timeline
from core.subscriptions.agreement import Phase
from core.subscriptions.models import AnchorMode, Subscription, SubscriptionStatus
from core.subscriptions.spans import Hanging, Span

AHEAD_DAYS_MAX = 366


@dataclass(frozen=True, slots=True)
class Wish:
    """How a subscription is to start, checked."""

    mode: AnchorMode
    trial_days: int
    quantity: Decimal
    quantities: dict[str, Decimal]
    metadata: dict[str, Any]
    external_id: str | None
    billing_day: int | None
    trial_end_without_method: AfterTrial

    @property
    def hanging(self) -> Hanging:
        """How the cycles are hung."""
        return self.billing_day or self.mode


def checked(
    *,
    anchor: str,
    trial_days: int,
    quantity: Decimal | str | int,
    quantities: Mapping[str, Decimal | str | int] | None,
    metadata: Mapping[str, object] | None,
    external_id: str | None,
    begins: datetime,
    at: datetime,
    billing_day: int | None,
    trial_end_without_method: str | None,
    version: PlanVersion,
) -> Wish:
    """The wishes, checked; Invalid with a pointer for each that cannot be."""
    reader = Reader()
    wish = Wish(
        mode=reader.choice("/anchor", anchor, AnchorMode, AnchorMode.ANNIVERSARY),
        trial_days=reader.whole("/trial_period_days", trial_days, least=0, most=TRIAL_DAYS_MAX),
        quantity=licensed.read(reader, {licensed.OWN: quantity}, version)[licensed.OWN],
        quantities={**licensed.least(version), **licensed.read(reader, quantities or {}, version)},
        metadata=reader.object("/metadata", metadata),
        external_id=reader.text("/external_id", external_id, needed=False) or None,
        billing_day=_billing_day(reader, billing_day, version),
        trial_end_without_method=reader.choice(
            "/trial_end_without_method", trial_end_without_method, AfterTrial, AfterTrial(version.trial_end_without_method)
        ),
    )
    _check_start(reader, begins, at)
    if reader.faults:
        raise Invalid("The subscription cannot start like this.", errors=tuple(reader.faults))
    return wish


def row(organization_id: uuid.UUID, version: PlanVersion, wish: Wish, planned: Sequence[Span]) -> Subscription:
    """The new subscription without its terms, not yet stored."""
    return Subscription(
        id=new_id(),
        organization_id=organization_id,
        plan=version.plan,
        external_id=wish.external_id,
        status=SubscriptionStatus.TRIALING if planned[0].is_trial else SubscriptionStatus.ACTIVE,
        currency=version.plan.currency,
        anchor_mode=wish.mode,
        billing_day=wish.billing_day,
        started_at=planned[0].start,
        trial_end=timelines.trial_end(planned),
        trial_end_without_method=wish.trial_end_without_method,
        next_bill_at=planned[0].start,
        extra=wish.metadata,
        terms=[],
    )


def buyer(session: Session, organization_id: uuid.UUID) -> Organization:
    """The organization, locked, so that two subscriptions of it do not start at once."""
    lock = {"of": Organization, "key_share": True}
    organization = session.get(Organization, organization_id, with_for_update=lock, populate_existing=True)
    if organization is None:
        raise NotFound("There is no such organization.")
    if organization.status != OrganizationStatus.ACTIVE:
        raise Conflict(f"The account is {organization.status}: nothing can be subscribed to.")
    return organization


def offered(session: Session, plan: str | uuid.UUID, organization: Organization) -> PlanVersion:
    """The version on offer that `plan` names, in the account's currency; Invalid with the pointer /plan."""
    try:
        version = catalog.offered_version(session, plan)
    except NotFound as error:
        raise Invalid("The subscription cannot start like this.", errors=(FieldError("/plan", error.message),)) from None
    check_version(version, organization, "/plan")
    return version


def check_version(version: PlanVersion, organization: Organization, pointer: str) -> None:
    """Invalid at `pointer` for what the organization cannot run on: another's prices, an add-on, another currency."""
    fault = None
    if version.organization_id not in (None, organization.id):
        fault = "There is no such plan version."
    elif version.plan.kind != PlanKind.PLAN:
        fault = f"{version.plan.name} is no plan: attach it to a subscription instead"
    elif not version.sells_in(organization.currency):
        fault = f"the plan is in {version.plan.currency}, the account in {organization.currency}"
    if fault is not None:
        raise Invalid("The subscription cannot start like this.", errors=(FieldError(pointer, fault),))


def check_phases(phases: Sequence[Phase], version: PlanVersion, organization: Organization) -> None:
    """Invalid with a pointer for a phase on a version the organization cannot run on, or with quantities it has no price for."""
    reader = Reader()
    for i, phase in enumerate(phases):
        version = phase.version or version
        check_version(version, organization, f"/phases/{i}/plan")
        own = {} if phase.quantity is None else {licensed.OWN: phase.quantity}
        licensed.read(reader, {**own, **(phase.quantities or {})}, version, f"/phases/{i}")
    if reader.faults:
        raise Invalid("The subscription cannot start like this.", errors=tuple(reader.faults))


def _check_start(reader: Reader, begins: datetime, at: datetime) -> None:
    back = config.current().adjustment_days
    if begins.tzinfo is None:
        reader.fault("/start_at", "needs a time zone, such as 2026-01-31T00:00:00+01:00")
    elif begins < at - timedelta(days=back):
        reader.fault("/start_at", f"must not be more than {back} days ago: older periods are closed")
    elif begins > at + timedelta(days=AHEAD_DAYS_MAX):
        reader.fault("/start_at", f"must be within {AHEAD_DAYS_MAX} days")


def _billing_day(reader: Reader, day: int | None, version: PlanVersion) -> int | None:
    if day is None:
        return None
    if version.billing_period not in MONTHS_IN:
        reader.fault("/billing_day", f"a plan billed by the {version.billing_period.replace('_', ' ')} has no day of the month")
    return reader.whole("/billing_day", day, least=1, most=31)


def ended_before(
    session: Session, organization_id: uuid.UUID, version: PlanVersion, begins: datetime, *, but: uuid.UUID | None = None
) -> datetime | None:
    """Until when another subscription than `but` billed the plan or its metrics; Conflict when it still does at `begins`.

    Two subscriptions on one metric would bill the same usage twice.
    """
    metrics = {rule.metric_id for rule in version.rules if rule.metric_id}
    older = session.scalars(
        select(Subscription).where(
            Subscription.organization_id == organization_id,
            Subscription.id != but if but else true(),
            Subscription.ends_at.is_(None) | (Subscription.ends_at > begins - timedelta(days=2)),
        )
    ).all()
    ends: list[datetime] = []
    for other in older:
        rules = [rule for span in timeline.spans(other) for rule in span.version.rules]
        shared = {rule.metric.name for rule in rules if rule.metric and rule.metric_id in metrics}
        if other.plan_id != version.plan_id and not shared:
            continue
        if other.ends_at is None or other.ends_at > begins:
            what = f"already bills {', '.join(sorted(shared))}" if shared else f"is already on {version.plan.name}"
            raise Conflict(f"The account's subscription {other.id} {what}; change its plan or cancel it first.", code="already_subscribed")
        ends.append(other.ends_at)
    return max(ends, default=None)
