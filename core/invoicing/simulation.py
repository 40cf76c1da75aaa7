"""Price simulation: what the customers of a segment would have paid for their last closed periods under other prices.

The same rating as an invoice's, on terms that never were, a set of subscriptions a transaction. Nothing is owed by it and nothing changes
but its own rows. Both sides are rated on the usage known now, so that the same prices make no difference for anybody.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core import audit, jobs
from core.audit import Actor
from core.catalog import publish, queries
from core.catalog.models import PlanKind, PlanVersion, SubscriptionPlan
from core.db import among, copy_rows, new_id
from core.errors import BillingError, FieldError, Invalid, NotFound
from core.identity.models import Organization
from core.invoicing import rating, whatif
from core.invoicing.rating import Subject
from core.invoicing.run_errors import EXPECTED
from core.invoicing.simulation_models import PriceSimulation, SimulatedCost, SimulationStatus
from core.periods import Period
from core.pricing.terms import Rule
from core.subscriptions import timeline
from core.subscriptions.models import Subscription, SubscriptionStatus

SET_SIZE = 1_000
PERIODS_MAX = 12
ORGANIZATIONS_MAX = 1_000
RUNNING = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.TRIALING, SubscriptionStatus.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Segment:
    """Whose usage is simulated: running subscriptions on the plan `plan` (code), in `currency`, of the organizations; empty: all."""

    plan: str = ""
    currency: str = ""
    organizations: tuple[str, ...] = ()

    @classmethod
    def stored(cls, value: Mapping[str, Any]) -> Segment:
        """As it stands in the simulation's row."""
        return cls(value["plan"], value["currency"], tuple(value["organizations"]))


def start(
    session: Session,
    *,
    plan: PlanVersion | Mapping[str, object],
    segment: Segment,
    periods: int,
    at: datetime,
    actor: Actor,
) -> PriceSimulation:
    """Begin to simulate a published version, or a plan document nobody has published; the job `run_simulation` does the work.

    Invalid for a document that could not be published, prices that are no plan's, 0 or too many periods, a segment without anybody.
    """
    version = plan if isinstance(plan, PlanVersion) else publish.unpublished(session, plan)
    if version.plan.kind != PlanKind.PLAN:
        raise Invalid("This cannot be simulated.", errors=(FieldError("/plan", f"{version.plan.name} is no plan"),))
    if not 1 <= periods <= PERIODS_MAX:
        raise Invalid("This cannot be simulated.", errors=(FieldError("/periods", f"must be 1 to {PERIODS_MAX}"),))
    if segment.plan:
        _known_plan(session, segment.plan)
    if len(segment.organizations) > ORGANIZATIONS_MAX:
        raise Invalid("This cannot be simulated.", errors=(FieldError("/segment/organizations", f"at most {ORGANIZATIONS_MAX}"),))
    total = session.scalar(_members(segment, version).with_only_columns(func.count())) or 0
    if not total:
        detail = "no running subscription is in it that the prices are sold to"
        raise Invalid("This cannot be simulated.", errors=(FieldError("/segment", detail),))
    published = isinstance(plan, PlanVersion)
    row = PriceSimulation(
        id=new_id(),
        status=SimulationStatus.RUNNING,
        plan_version_id=version.id if published else None,
        document=None if isinstance(plan, PlanVersion) else audit.plain(dict(plan)),
        segment=asdict(segment) | {"organizations": list(segment.organizations)},
        periods=periods,
        as_of=at,
        started_by=actor.label,
        subscriptions_total=total,
        created_at=at,
    )
    session.add(row)
    session.flush()
    audit.record(session, actor, "price_simulation.started", row, at=at, plan=version.plan.code, periods=periods, subscriptions=total)
    jobs.enqueue(session, "run_simulation", row.id)
    return row


def run_set(session: Session, simulation_id: uuid.UUID, *, at: datetime) -> bool:
    """Simulate the next set; False when all are done. Repeated or interrupted anywhere, each subscription has one row."""
    row = get(session, simulation_id, lock=True)
    if row.status == SimulationStatus.DONE:
        return False
    version = version_of(session, row)
    wanted = _members(Segment.stored(row.segment), version)
    if row.reached_id is not None:
        wanted = wanted.where(Subscription.id > row.reached_id)
    members: list[_Member] = [_Member(*found) for found in session.execute(wanted.order_by(Subscription.id).limit(SET_SIZE))]
    if not members:
        row.status, row.finished_at = SimulationStatus.DONE.value, at
        return False
    costs = _isolated(session, version, members, row)
    copy_rows(session, SimulatedCost, costs)
    row.reached_id = members[-1].subscription_id
    row.subscriptions_done += len(members)
    return True


def get(session: Session, simulation_id: uuid.UUID, *, lock: bool = False) -> PriceSimulation:
    """One simulation as committed last; NotFound."""
    wanted = select(PriceSimulation).where(PriceSimulation.id == simulation_id).execution_options(populate_existing=True)
    found = session.scalars(wanted.with_for_update(of=PriceSimulation) if lock else wanted).one_or_none()
    if found is None:
        raise NotFound("There is no such simulation.")
    return found


def simulations(session: Session, *, limit: int = 50) -> Sequence[PriceSimulation]:
    """The simulations, newest first."""
    return session.scalars(select(PriceSimulation).order_by(PriceSimulation.id.desc()).limit(limit)).all()


def unfinished(session: Session) -> Sequence[uuid.UUID]:
    """Simulations a worker should be busy with: the sweep rings for them."""
    return session.scalars(select(PriceSimulation.id).where(PriceSimulation.status == SimulationStatus.RUNNING)).all()


def version_of(session: Session, row: PriceSimulation) -> PlanVersion:
    """The prices that are simulated; those of a document belong to no session."""
    return row.plan_version or publish.unpublished(session, row.document or {})


@dataclass(frozen=True, slots=True)
class _Member:
    subscription_id: uuid.UUID
    organization_id: uuid.UUID
    currency: str


@dataclass(frozen=True, slots=True)
class Compared:
    """Net minor units of the closed `periods` under the terms that held (`own`) and under the version's prices."""

    periods: tuple[Period, ...]
    own_minor: int
    minor: int


def compare_many(
    session: Session, subjects: Sequence[Subject], version: PlanVersion, *, periods: int, rules: Mapping[str, tuple[Rule, ...]]
) -> list[Compared]:
    """The last closed periods of each subject before its instant, rated twice with one reading of usage. `rules` are by currency."""
    spans = {one.subscription_id: whatif.closed_periods(one.terms, one.as_of, periods) for one in subjects}
    proposed = [replace(one, terms=whatif.under(version, rules[one.currency], one.terms, spans[one.subscription_id])) for one in subjects]
    owed = rating.owe(session, [*subjects, *proposed], lambda one: whatif.within(one.terms, spans[one.subscription_id]))
    own, new = owed[: len(subjects)], owed[len(subjects) :]
    return [
        Compared(span, sum(whatif.by_period(before, span)), sum(whatif.by_period(after, span)))
        for span, before, after in zip(spans.values(), own, new, strict=True)
    ]


def _isolated(session: Session, version: PlanVersion, members: Sequence[_Member], row: PriceSimulation) -> list[dict[str, Any]]:
    """The rows of the members; if they cannot be priced together, of each half, until the one that cannot stands alone with its reason."""
    try:
        with session.begin_nested():
            return _costs(session, version, members, row)
    except OperationalError:
        raise
    except EXPECTED as error:
        if len(members) > 1:
            middle = len(members) // 2
            return [cost for half in (members[:middle], members[middle:]) for cost in _isolated(session, version, half, row)]
        words = error.message if isinstance(error, BillingError) else f"{type(error).__name__}: {error}"
        return [_cost(row, members[0], Compared((), 0, 0), error=words)]


def _costs(session: Session, version: PlanVersion, members: Sequence[_Member], row: PriceSimulation) -> list[dict[str, Any]]:
    terms = timeline.load(session, [member.subscription_id for member in members])
    subjects = [
        Subject(member.subscription_id, member.organization_id, member.currency, terms[member.subscription_id], row.as_of)
        for member in members
    ]
    rules = {currency: timeline.rules(version, currency) for currency in {member.currency for member in members}}
    found = compare_many(session, subjects, version, periods=row.periods, rules=rules)
    return [_cost(row, member, compared) for member, compared in zip(members, found, strict=True)]


def _cost(row: PriceSimulation, member: _Member, compared: Compared, error: str | None = None) -> dict[str, Any]:
    return {
        "simulation_id": row.id,
        **asdict(member),
        "periods": len(compared.periods),
        "billed_minor": compared.own_minor,
        "simulated_minor": compared.minor,
        "error": error,
    }


def _members(segment: Segment, version: PlanVersion) -> Any:
    """Running subscriptions of the segment in real time, in a currency the version is sold in."""
    sold = {version.plan.currency, *(rule.currency for rule in version.rules if rule.currency)}
    wanted = (
        select(Subscription.id, Subscription.organization_id, Subscription.currency)
        .join(Organization, Organization.id == Subscription.organization_id)
        .where(Subscription.status.in_(RUNNING), Subscription.currency.in_(sold), Organization.test_clock_id.is_(None))
    )
    if segment.plan:
        wanted = wanted.where(
            Subscription.plan_id == select(SubscriptionPlan.id).where(SubscriptionPlan.code == segment.plan).scalar_subquery()
        )
    if segment.currency:
        wanted = wanted.where(Subscription.currency == segment.currency)
    if segment.organizations:
        wanted = wanted.where(among(Subscription.organization_id, [uuid.UUID(found) for found in segment.organizations]))
    return wanted


def _known_plan(session: Session, code: str) -> None:
    try:
        queries.plan(session, code)
    except NotFound as error:
        raise Invalid("This cannot be simulated.", errors=(FieldError("/segment/plan", error.message),)) from None
