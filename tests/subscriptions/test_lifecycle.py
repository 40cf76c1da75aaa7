"""Starting, changing, pausing and ending subscriptions on the real database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from core import jobs
from core.audit import SYSTEM, AuditEvent
from core.catalog.models import PlanVersion
from core.errors import Conflict, Invalid, InvalidTransition, NotFound
from core.identity.models import Organization
from core.subscriptions import lifecycle, plan_change, queries, status, timeline
from core.subscriptions.models import Subscription, SubscriptionStatus
from tests.factories import make_metric, make_organization, make_plan

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def organization(session: Session) -> Organization:
    return make_organization(session, timezone="Europe/Berlin")


@pytest.fixture
def starter(session: Session) -> PlanVersion:
    return make_plan(session, base_price="100.00")


@pytest.fixture
def pro(session: Session) -> PlanVersion:
    return make_plan(session, base_price="200.00")


def start(session: Session, organization: Organization, version: PlanVersion, **given: Any) -> Subscription:
    return lifecycle.start(session, organization.id, plan=version.plan.code, **{"at": NOW, "actor": SYSTEM, **given})


def terms(subscription: Subscription) -> list[tuple[datetime, datetime | None, bool]]:
    return [(row.start_at, row.end_at, row.is_trial) for row in subscription.terms]


def facts(session: Session, subscription: Subscription) -> list[str]:
    wanted = select(AuditEvent.kind).where(AuditEvent.subject_id == str(subscription.id)).order_by(AuditEvent.id)
    return list(session.scalars(wanted))


def waiting_jobs(session: Session) -> list[tuple[str, tuple[str, ...]]]:
    return list(session.info.get(jobs.PENDING, []))


def test_a_subscription_starts_with_its_local_day(session: Session, organization: Organization, starter: PlanVersion) -> None:
    subscription = start(session, organization, starter, external_id="crm-7", metadata={"po": "A1"})
    session.expire_all()
    assert terms(subscription) == [(datetime(2026, 6, 14, 22, tzinfo=UTC), None, False)]
    assert (subscription.status, subscription.plan.id, subscription.external_id) == ("active", starter.plan_id, "crm-7")
    assert subscription.current_period_start == datetime(2026, 6, 14, 22, tzinfo=UTC)
    assert subscription.current_period_end == datetime(2026, 7, 14, 22, tzinfo=UTC)
    assert subscription.next_bill_at == subscription.started_at
    assert facts(session, subscription) == ["subscription.started"]
    assert waiting_jobs(session) == [("bill_subscription", (str(subscription.id),))]
    assert queries.due_ids(session, as_of=NOW) == [subscription.id]


def test_a_trial_is_a_term_without_prices(session: Session, organization: Organization, starter: PlanVersion) -> None:
    subscription = start(session, organization, starter, trial_period_days=10)
    trial, paid = timeline.load(session, [subscription.id])[subscription.id]
    assert (trial.rules, [rule.code for rule in paid.rules]) == ((), ["base"])
    assert subscription.status == "trialing"
    assert subscription.trial_end == trial.end == paid.start == datetime(2026, 6, 24, 22, tzinfo=UTC)
    assert (subscription.current_period_start, subscription.current_period_end) == (trial.start, trial.end)


def test_time_turns_a_trial_active_and_moves_the_period(session: Session, organization: Organization, starter: PlanVersion) -> None:
    subscription = start(session, organization, starter, trial_period_days=10)
    status.advance(session, [subscription], as_of=NOW)
    assert (subscription.status, subscription.next_bill_at) == ("trialing", subscription.trial_end)
    status.advance(session, [subscription], as_of=NOW + 40 * DAY)
    assert subscription.status == "active"
    assert subscription.current_period_end == datetime(2026, 8, 24, 22, tzinfo=UTC)
    assert subscription.next_bill_at == subscription.current_period_end
    assert facts(session, subscription) == ["subscription.started", "subscription.active"]


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"plan": "nothing-like-it"}, "/plan"),
        ({"anchor": "lunar"}, "/anchor"),
        ({"quantity": "-1"}, "/quantity"),
        ({"quantity": Decimal("NaN")}, "/quantity"),
        ({"trial_period_days": 10_000}, "/trial_period_days"),
        ({"start_at": NOW - 60 * DAY}, "/start_at"),
        ({"start_at": NOW + 400 * DAY}, "/start_at"),
        ({"start_at": NOW.replace(tzinfo=None)}, "/start_at"),
        ({"metadata": {"a": 0.5j}}, "/metadata"),
        ({"external_id": "a\x00"}, "/external_id"),
    ],
)
def test_a_wrong_start_names_the_field(
    session: Session, organization: Organization, starter: PlanVersion, given: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Invalid) as caught:
        lifecycle.start(session, organization.id, **{"plan": starter.plan.code, "at": NOW, "actor": SYSTEM, **given})
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert session.scalars(select(Subscription)).all() == []


def test_who_cannot_subscribe(session: Session, organization: Organization, starter: PlanVersion) -> None:
    with pytest.raises(NotFound):
        lifecycle.start(session, uuid.uuid4(), plan=starter.plan.code, at=NOW, actor=SYSTEM)
    with pytest.raises(Invalid, match="cannot start"):
        start(session, make_organization(session, currency="USD"), starter)
    organization.status = "suspended"
    with pytest.raises(Conflict):
        start(session, organization, starter)


def test_the_same_metric_is_not_billed_by_two_subscriptions(session: Session, organization: Organization) -> None:
    metric = make_metric(session, "calls")
    model = {"model": "per_unit", "unit_price": "1"}
    one, two = make_plan(session, prices=[(metric, model)]), make_plan(session, prices=[(metric, model)])
    first = start(session, organization, one)
    with pytest.raises(Conflict, match="already bills Calls"):
        start(session, organization, two)
    lifecycle.cancel(session, first, at=NOW + timedelta(hours=1), actor=SYSTEM, when="now")
    second = start(session, organization, two, at=NOW + timedelta(hours=2))
    assert second.started_at == NOW + timedelta(hours=1)  # the morning was billed by the first one
    start(session, organization, make_plan(session))


def test_cancelling_at_period_end_and_taking_it_back(session: Session, organization: Organization, starter: PlanVersion) -> None:
    subscription = start(session, organization, starter)
    status.advance(session, [subscription], as_of=NOW)
    ends = subscription.current_period_end
    lifecycle.cancel(session, subscription, at=NOW, actor=SYSTEM, reason="too dear")
    assert (subscription.status, subscription.ends_at, subscription.cancel_at_period_end) == ("active", ends, True)
    assert terms(subscription)[-1][1] == ends
    assert subscription.next_bill_at == ends
    lifecycle.undo_cancel(session, subscription, at=NOW, actor=SYSTEM)
    assert (subscription.ends_at, subscription.cancel_at_period_end, terms(subscription)[-1][1]) == (None, False, None)
    with pytest.raises(Conflict):
        lifecycle.undo_cancel(session, subscription, at=NOW, actor=SYSTEM)
    lifecycle.cancel(session, subscription, at=NOW, actor=SYSTEM, when=NOW + 3 * DAY)
    lifecycle.cancel(session, subscription, at=NOW, actor=SYSTEM, when=NOW + 9 * DAY)
    status.advance(session, [subscription], as_of=NOW + 9 * DAY)
    assert (subscription.status, subscription.next_bill_at) == ("canceled", None)
    assert facts(session, subscription) == [
        "subscription.started",
        "subscription.cancellation_scheduled",
        "subscription.cancellation_undone",
        "subscription.cancellation_scheduled",
        "subscription.cancellation_scheduled",
        "subscription.canceled",
    ]


def test_cancelling_now(session: Session, organization: Organization, starter: PlanVersion) -> None:
    subscription = start(session, organization, starter)
    lifecycle.cancel(session, subscription, at=NOW, actor=SYSTEM, when="now")
    assert (subscription.status, subscription.ends_at, terms(subscription)[-1][1]) == ("canceled", NOW, NOW)
    assert queries.due_ids(session, as_of=NOW) == [subscription.id]
    with pytest.raises(InvalidTransition, match="Possible now: reactivate"):
        lifecycle.cancel(session, subscription, at=NOW, actor=SYSTEM)


def test_cancelling_before_it_begins_leaves_nothing(session: Session, organization: Organization, starter: PlanVersion) -> None:
    subscription = start(session, organization, starter, start_at=NOW + 5 * DAY)
    assert subscription.current_period_start is not None
    lifecycle.cancel(session, subscription, at=NOW, actor=SYSTEM, when=NOW + 2 * DAY)
    assert (subscription.status, terms(subscription)) == ("canceled", [])
    assert timeline.load(session, [subscription.id]) == {subscription.id: ()}


def test_cancelling_a_trial_ends_with_it_and_undo_brings_the_plan_back(
    session: Session, organization: Organization, starter: PlanVersion
) -> None:
    subscription = start(session, organization, starter, trial_period_days=10)
    before = terms(subscription)
    lifecycle.cancel(session, subscription, at=NOW, actor=SYSTEM)
    assert terms(subscription) == before[:1]
    assert subscription.ends_at == subscription.trial_end
    lifecycle.undo_cancel(session, subscription, at=NOW, actor=SYSTEM)
    assert terms(subscription) == before


def test_pausing_and_resuming_leaves_a_gap(session: Session, organization: Organization, starter: PlanVersion) -> None:
    subscription = start(session, organization, starter)
    lifecycle.pause(session, subscription, at=NOW + DAY, actor=SYSTEM)
    assert (subscription.status, terms(subscription)[-1][1]) == ("paused", NOW + DAY)
    with pytest.raises(Conflict):
        lifecycle.pause(session, subscription, at=NOW + DAY, actor=SYSTEM)
    with pytest.raises(Conflict):
        plan_change.apply(session, subscription, to=make_plan(session), at=NOW + DAY, actor=SYSTEM)
    lifecycle.resume(session, subscription, at=NOW + 5 * DAY, actor=SYSTEM)
    assert terms(subscription)[-1] == (NOW + 5 * DAY, None, False)
    assert len({row.anchor_day for row in subscription.terms}) == 1
    with pytest.raises(Conflict):
        lifecycle.resume(session, subscription, at=NOW + 5 * DAY, actor=SYSTEM)


def test_changing_the_plan_now_and_back_the_same_day(
    session: Session, organization: Organization, starter: PlanVersion, pro: PlanVersion
) -> None:
    subscription = start(session, organization, starter)
    status.advance(session, [subscription], as_of=NOW)
    hour = timedelta(hours=1)
    plan_change.apply(session, subscription, to=pro, at=NOW + hour, actor=SYSTEM)
    assert (subscription.plan_id, subscription.next_bill_at) == (pro.plan_id, NOW + hour)
    plan_change.apply(session, subscription, to=starter, at=NOW + 2 * hour, actor=SYSTEM)
    plan_change.apply(session, subscription, to=starter, quantity=Decimal(3), at=NOW + 3 * hour, actor=SYSTEM)
    rows = [(row.plan_version_id, row.start_at, row.quantity) for row in subscription.terms]
    assert rows == [
        (starter.id, subscription.started_at, 1),
        (pro.id, NOW + hour, 1),
        (starter.id, NOW + 2 * hour, 1),
        (starter.id, NOW + 3 * hour, 3),
    ]
    assert len({row.anchor_day for row in subscription.terms}) == 1


def test_a_change_at_period_end_waits_is_seen_and_can_be_undone(
    session: Session, organization: Organization, starter: PlanVersion, pro: PlanVersion
) -> None:
    subscription = start(session, organization, starter)
    status.advance(session, [subscription], as_of=NOW)
    at = plan_change.effective_at(subscription, "period_end", at=NOW)
    assert at == subscription.current_period_end
    plan_change.apply(session, subscription, to=pro, at=NOW, effective_at=at, actor=SYSTEM)
    change = plan_change.scheduled_change(subscription, at=NOW)
    assert change is not None
    assert (change.effective_at, change.version.id, subscription.plan_id) == (at, pro.id, starter.plan_id)
    plan_change.undo_scheduled(session, subscription, at=NOW, actor=SYSTEM)
    assert terms(subscription) == [(subscription.started_at, None, False)]
    with pytest.raises(Conflict):
        plan_change.undo_scheduled(session, subscription, at=NOW, actor=SYSTEM)
    plan_change.apply(session, subscription, to=pro, at=NOW, effective_at=at, actor=SYSTEM)
    status.advance(session, [subscription], as_of=at)
    assert subscription.plan_id == pro.plan_id


def test_a_change_keeps_the_planned_end(session: Session, organization: Organization, starter: PlanVersion, pro: PlanVersion) -> None:
    subscription = start(session, organization, starter)
    lifecycle.cancel(session, subscription, at=NOW, actor=SYSTEM)
    plan_change.apply(session, subscription, to=pro, at=NOW + DAY, actor=SYSTEM)
    assert terms(subscription)[-1] == (NOW + DAY, subscription.ends_at, False)


def test_a_proposal_is_what_applying_would_make(
    session: Session, organization: Organization, starter: PlanVersion, pro: PlanVersion
) -> None:
    subscription = start(session, organization, starter)
    proposed = plan_change.proposed_terms(subscription, pro, None, NOW, at=NOW)
    assert terms(subscription) == [(subscription.started_at, None, False)]
    plan_change.apply(session, subscription, to=pro, at=NOW, actor=SYSTEM)
    stored = timeline.load(session, [subscription.id])[subscription.id]
    assert [(t.start, t.end, t.rules, t.quantity, t.anchor) for t in proposed] == [
        (t.start, t.end, t.rules, t.quantity, t.anchor) for t in stored
    ]


def test_changes_that_are_refused(session: Session, organization: Organization, starter: PlanVersion, pro: PlanVersion) -> None:
    subscription = start(session, organization, starter)
    with pytest.raises(Invalid, match="Nothing would change"):
        plan_change.apply(session, subscription, to=starter, at=NOW, actor=SYSTEM)
    with pytest.raises(Invalid, match="cannot change like this"):
        plan_change.apply(session, subscription, to=make_plan(session, currency="USD"), at=NOW, actor=SYSTEM)
    with pytest.raises(Invalid):
        plan_change.effective_at(subscription, NOW - DAY, at=NOW)
    plan_change.apply(session, subscription, to=pro, at=NOW, actor=SYSTEM)
    with pytest.raises(Conflict, match="meantime"):
        plan_change.apply(session, subscription, to=starter, at=NOW + DAY, effective_at=NOW - DAY / 24, actor=SYSTEM)
    with pytest.raises(Conflict):
        plan_change.apply(session, subscription, to=starter, at=NOW, effective_at=NOW - 9 * DAY, actor=SYSTEM)


def test_the_status_machine_refuses_what_its_table_lacks(session: Session, organization: Organization, starter: PlanVersion) -> None:
    subscription = start(session, organization, starter)
    status.move(session, subscription, SubscriptionStatus.PAST_DUE, at=NOW, actor=SYSTEM)
    with pytest.raises(InvalidTransition):
        status.move(session, subscription, SubscriptionStatus.PAUSED, at=NOW, actor=SYSTEM)
    status.move(session, subscription, SubscriptionStatus.PAST_DUE, at=NOW, actor=SYSTEM)
    assert facts(session, subscription) == ["subscription.started", "subscription.past_due"]


def test_another_tenant_sees_nothing(session: Session, organization: Organization, starter: PlanVersion) -> None:
    subscription = start(session, organization, starter)
    stranger = make_organization(session)
    assert queries.subscription(session, organization.id, subscription.id).id == subscription.id
    with pytest.raises(NotFound):
        queries.subscription(session, stranger.id, subscription.id)
    assert queries.subscriptions(session, stranger.id) == []
    assert queries.current_subscription(session, stranger.id) is None
    assert [found.id for found in queries.all_subscriptions(session)] == [subscription.id]


def test_a_thousand_timelines_take_four_statements(session: Session, starter: PlanVersion, count_statements: Any) -> None:
    ids = [start(session, make_organization(session), starter).id for _ in range(20)]
    session.expire_all()
    with count_statements() as counted:
        loaded = timeline.load(session, ids)
    assert len(loaded) == 20
    assert all(loaded[key][0].rules[0].code == "base" for key in ids)
    assert counted.count == 4
