"""Limits, spend caps and features as a customer's product meets them: decisions, thresholds told once, stops that end by themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.audit import SYSTEM, AuditEvent
from core.config import Settings
from core.entitlements import check, limits, reserve, watch
from core.entitlements.evaluate import evaluate
from core.entitlements.models import CapAction, LimitState
from core.errors import Conflict, Invalid, NotFound
from core.identity.models import Organization, TestClock
from core.invoicing import preview
from core.metering.models import LimitAction, LimitPeriod, LimitSource, Metric, UsageLimit
from core.notifications import dispatch, email
from tests.factories import make_metric, make_organization, make_plan, make_subscription, use

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)


def decide(session: Session, organization: Organization, metric: Metric, quantity: int = 1, at: datetime = AT) -> check.Decision:
    return check.check_metric(session, organization.id, metric=metric.code, quantity=Decimal(quantity), at=at)


def limit(session: Session, organization: Organization, metric: Metric, value: int, at: datetime = AT, **given: Any) -> UsageLimit:
    values = {"period": LimitPeriod.MONTHLY, "action": LimitAction.BLOCK, "source": LimitSource.CUSTOMER, **given}
    return limits.set_limit(session, organization.id, metric=metric, value=Decimal(value), actor=SYSTEM, at=at, now=at, **values)


def look(session: Session, organization: Organization, at: datetime = AT, **given: Any) -> None:
    evaluate(session, [organization.id], at=at, actor=SYSTEM, **given)


def told(session: Session, organization: Organization) -> list[tuple[str, int]]:
    rows = session.scalars(
        select(AuditEvent).where(AuditEvent.organization_id == organization.id, AuditEvent.kind.like("limit.%ed")).order_by(AuditEvent.id)
    )
    return [(row.kind, row.data["threshold"]) for row in rows if "threshold" in row.data]


def test_plan_limits_and_features_decide(session: Session) -> None:
    calls, tokens = make_metric(session, "calls"), make_metric(session, "tokens")
    wanted = {calls.code: 100, tokens.code: {"value": "10", "period": "daily", "action": "allow_overage"}, "seats": 5}
    plan = make_plan(session, features={"sso": True, "projects": 3, "sla": "gold", "audit": False}, limits=wanted)
    organization = make_organization(session, timezone="Pacific/Auckland")
    make_subscription(session, organization, plan)
    use(session, organization, calls, AT, 99)
    use(session, organization, calls, AT - timedelta(days=20), 7)  # the month before
    use(session, organization, tokens, AT, 10)
    use(session, organization, tokens, AT - timedelta(hours=1), 900)  # yesterday in Auckland, where it is midnight at 12:00 UTC

    assert decide(session, organization, calls) == check.Decision(
        True, "within_limit", Decimal(100), Decimal(99), Decimal(0), decide(session, organization, calls).window, "monthly", "block", "plan"
    )
    assert (decide(session, organization, calls, 2).allowed, decide(session, organization, calls, 2).reason) == (False, "limit_reached")
    daily = decide(session, organization, tokens)
    assert (daily.allowed, daily.reason, daily.used, daily.remaining) == (True, "over_limit", 10, 0)
    assert daily.window is not None
    assert (daily.window.start, daily.window.end) == (AT, AT + timedelta(days=1))
    seats = check.check_metric(session, organization.id, metric="seats", quantity=Decimal(6), at=AT)
    assert (seats.allowed, seats.limit) == (False, 5)

    def feature(name: str, quantity: int = 1) -> bool:
        return check.check_feature(session, organization.id, feature=name, quantity=Decimal(quantity), at=AT).allowed

    assert [feature("sso"), feature("sla"), feature("audit"), feature("unheard")] == [True, True, False, False]
    assert [feature("projects", 3), feature("projects", 4)] == [True, False]
    limits.set_feature(session, organization.id, feature="audit", value=True, actor=SYSTEM, now=AT)
    limits.set_feature(session, organization.id, feature="projects", value=10, actor=SYSTEM, now=AT)
    assert [feature("audit"), feature("projects", 4)] == [True, True]
    limits.remove_feature(session, organization.id, feature="audit", actor=SYSTEM, now=AT)
    assert not feature("audit")


def test_an_operators_limit_replaces_the_plans_and_the_customers_holds_beside_it(session: Session) -> None:
    calls = make_metric(session, "calls")
    organization = make_organization(session)
    make_subscription(session, organization, make_plan(session, limits={calls.code: 100}))
    limit(session, organization, calls, 500, source=LimitSource.OPERATOR)
    assert decide(session, organization, calls, 500).allowed
    limit(session, organization, calls, 300)
    found = decide(session, organization, calls, 301)
    assert (found.allowed, found.limit, found.source) == (False, 300, "customer")
    with pytest.raises(Invalid):
        limit(session, organization, calls, 10, thresholds=[0])
    stranger = make_organization(session)
    row = session.scalars(select(UsageLimit).where(UsageLimit.organization_id == organization.id)).first()
    assert row is not None
    with pytest.raises(NotFound):
        limits.remove_limit(session, stranger.id, row.id, source=None, actor=SYSTEM, at=AT, now=AT)


def test_thresholds_are_told_once_a_window_and_a_hard_limit_stops_until_it_turns(session: Session) -> None:
    clock = TestClock(frozen_time=AT, name="")
    session.add(clock)
    session.flush()
    calls, organization = make_metric(session, "calls"), make_organization(session, test_clock_id=clock.id)
    daily = limit(session, organization, calls, 10, period=LimitPeriod.DAILY, thresholds=[50, 80, 100])
    use(session, organization, calls, AT, 6)
    look(session, organization)
    look(session, organization)
    assert told(session, organization) == [("limit.warned", 50)]
    assert limits.stops(session, organization.id, now=AT) == []

    use(session, organization, calls, AT, 7)
    look(session, organization, touched_from={organization.id: AT - timedelta(milliseconds=400)})
    look(session, organization)
    assert told(session, organization) == [("limit.warned", 50), ("limit.reached", 100)]  # 80 % was passed at once with 100 %
    [stop] = limits.stops(session, organization.id, now=AT)
    assert (stop.metric_id, stop.reason, stop.window_end) == (calls.id, "limit_reached", datetime(2026, 6, 16, tzinfo=UTC))
    [state] = limits.states(session, organization.id)
    assert (state.used, state.overshoot, state.delay_seconds) == (13, 3, Decimal("0.4"))
    assert (daily.current_usage, daily.exceeded_at) == (13, AT)

    clock.frozen_time = datetime(2026, 6, 16, tzinfo=UTC)  # the customer's midnight; nobody has looked
    session.flush()
    assert limits.stops(session, organization.id, now=clock.frozen_time) == []
    assert decide(session, organization, calls, 10).allowed
    look(session, organization)
    assert session.scalars(select(AuditEvent.kind).where(AuditEvent.kind == "usage.resumed")).all() == ["usage.resumed"]
    use(session, organization, calls, clock.frozen_time, 5)
    look(session, organization)
    assert told(session, organization)[-1] == ("limit.warned", 50)


def test_raising_a_limit_lets_go_at_once(session: Session) -> None:
    calls, organization = make_metric(session, "calls"), make_organization(session)
    use(session, organization, calls, AT, 20)
    row = limit(session, organization, calls, 10)
    assert len(limits.stops(session, organization.id, now=AT)) == 1
    limit(session, organization, calls, 100)
    assert limits.stops(session, organization.id, now=AT) == []
    assert limits.states(session, organization.id) == []
    limit(session, organization, calls, 20)
    limits.remove_limit(session, organization.id, row.id, source=LimitSource.CUSTOMER, actor=SYSTEM, at=AT, now=AT)
    assert limits.stops(session, organization.id, now=AT) == []
    assert decide(session, organization, calls).reason == "no_limit"


def test_a_spend_cap_reads_rated_money_and_mails_once(session: Session) -> None:
    calls = make_metric(session, "calls")
    tiers = [{"up_to": "100", "unit_price": "0.10"}, {"up_to": None, "unit_price": "0.05"}]
    plan = make_plan(session, base_price="20.00", prices=[(calls, {"model": "graduated", "tiers": tiers})])
    organization = make_organization(session)
    subscription = make_subscription(session, organization, plan)
    use(session, organization, calls, AT, 300)  # 100 x 0.10 + 200 x 0.05 = 20.00
    so_far = preview.so_far(session, organization.id, subscription.id, as_of=AT).net_minor
    cap = limits.set_cap(session, organization.id, amount_minor=so_far, action=CapAction.BLOCK, actor=SYSTEM, at=AT, now=AT)
    limits.set_cap(session, organization.id, amount_minor=so_far + 2, action=CapAction.NOTIFY, actor=SYSTEM, at=AT, now=AT)
    states = {state.subject: state.used for state in session.scalars(select(LimitState).where(LimitState.currency == "EUR"))}
    assert set(states.values()) == {Decimal(so_far)}
    assert so_far >= 2000
    found = decide(session, organization, calls)
    assert (found.allowed, found.reason) == (False, "spend_cap_reached")
    assert found.window is not None
    assert found.window.end == datetime(2026, 7, 1, tzinfo=UTC)

    look(session, organization)
    assert sorted(told(session, organization)) == [("limit.reached", 100), ("limit.warned", 80)]
    while dispatch.dispatch_outbox(session, now=AT):
        pass
    messages = [outgoing.message for outgoing in email.claim(session, now=AT, settings=Settings(environment="test"))]
    subjects = sorted(str(message["Subject"]) for message in messages)
    assert subjects == ["Spend alert: 99 % used", "Spend cap reached: usage is refused"]
    reached = next(message for message in messages if "reached" in str(message["Subject"]))
    text = reached.get_body(("plain",)).get_content().replace("\xa0", " ")
    assert "Past it new usage is refused until 1 Jul 2026, 00:00 UTC or until it is raised." in text

    limits.remove_cap(session, organization.id, cap.id, actor=SYSTEM, at=AT, now=AT)
    assert decide(session, organization, calls).allowed


def test_reservations_count_until_they_are_given_back_or_expire(session: Session) -> None:
    calls, organization = make_metric(session, "calls"), make_organization(session)
    limit(session, organization, calls, 10)

    def take(key: str, quantity: int, at: datetime = AT) -> reserve.Consumed:
        wanted = {"metric": calls.code, "quantity": Decimal(quantity), "key": key, "expires_in": timedelta(minutes=5), "at": at}
        return reserve.consume(session, organization.id, **wanted)

    assert take("a", 7).decision.remaining == 3
    assert (take("a", 7).replayed, decide(session, organization, calls).remaining) == (True, 3)
    assert (take("b", 4).decision.allowed, take("b", 4).decision.reason) == (False, "limit_reached")
    with pytest.raises(Conflict):
        take("a", 3)
    reserve.release(session, organization.id, key="a")
    with pytest.raises(NotFound):
        reserve.release(session, organization.id, key="a")
    assert take("b", 10).decision.allowed
    later = AT + timedelta(minutes=6)
    assert take("c", 10, later).decision.allowed
    assert reserve.forget(session, at=AT + timedelta(days=4)) == 2


def test_customers_are_claimed_once_and_again_when_their_worker_died(session: Session) -> None:
    calls = make_metric(session, "calls")
    organization = make_organization(session)
    make_subscription(session, organization, make_plan(session, limits={calls.code: 5}))
    watch.refresh(session, at=AT)
    assert watch.claim(session, at=AT) == {organization.id: AT}
    assert (watch.claim(session, at=AT), watch.touched(session)) == ({}, False)
    watch.refresh(session, at=AT + timedelta(minutes=1))
    assert set(watch.claim(session, at=AT + timedelta(minutes=1))) == {organization.id}
    watch.done(session, [organization.id], at=AT + timedelta(minutes=1))
    watch.refresh(session, at=AT + timedelta(minutes=2))
    assert not watch.touched(session)
