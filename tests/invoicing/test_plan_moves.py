"""Moving many subscriptions to a version: what is previewed is invoiced, interrupted it moves nobody twice, it can be undone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.audit import SYSTEM, AuditEvent
from core.catalog.models import PlanVersion
from core.errors import Conflict, Invalid
from core.invoicing import plan_move_results, plan_moves
from core.invoicing.plan_move_models import ItemState, MoveStatus, PlanMove, PlanMoveItem, Timing
from core.invoicing.plan_move_preview import Flag
from core.subscriptions import plan_change
from core.subscriptions.models import Subscription
from tests.factories import START, make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.books import Statements, amounts, issued

NOW = datetime(2026, 7, 11, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
PER_CALL = {"model": "per_unit", "unit_price": "0.01"}


@pytest.fixture
def shop(session: Session) -> tuple[PlanVersion, PlanVersion, list[Subscription]]:
    """Three customers billed through July for 100.00 and 0.01 a call, and prices of 131.00 and half a cent."""
    metric = make_metric(session, "calls")
    old = make_plan(session, prices=[(metric, PER_CALL)])
    new = make_plan(session, base_price="131.00", prices=[(metric, {"model": "per_unit", "unit_price": "0.005"})])
    found = []
    for calls in (0, 4_000, 20_000):
        organization = make_organization(session)
        subscription = make_subscription(session, organization, old)
        use(session, organization, metric, datetime(2026, 6, 9, tzinfo=UTC), calls)
        issued(session, subscription, START)
        issued(session, subscription, JULY)
        found.append(subscription)
    return old, new, found


def previewed(session: Session, old: PlanVersion, new: PlanVersion, timing: Timing, on: datetime | None = None) -> PlanMove:
    move = plan_moves.start(session, from_version=old, to=new, timing=timing, on=on, at=NOW, actor=SYSTEM)
    finish(session, move.id)
    assert move.status == MoveStatus.REVIEW
    return move


def finish(session: Session, move_id: UUID, at: datetime = NOW) -> None:
    while plan_moves.step(session, move_id, at=at, actor=SYSTEM):
        pass


def items(session: Session, move: PlanMove) -> dict[UUID, PlanMoveItem]:
    session.flush()
    session.expire_all()
    return {item.subscription_id: item for item in session.scalars(select(PlanMoveItem).where(PlanMoveItem.move_id == move.id))}


def changes(session: Session) -> int:
    kinds = ("subscription.plan_changed", "subscription.plan_change_scheduled")
    return session.scalar(select(func.count()).select_from(AuditEvent).where(AuditEvent.kind.in_(kinds))) or 0


def test_what_was_previewed_is_what_is_invoiced(session: Session, shop: tuple[PlanVersion, PlanVersion, list[Subscription]]) -> None:
    old, new, found = shop
    move = previewed(session, old, new, Timing.NOW)
    before = items(session, move)
    assert {(item.present_minor, item.next_minor) for item in before.values()} == {(10_000, 13_100), (14_000, 15_100), (30_000, 23_100)}
    assert [item.flags for item in map(before.get, [one.id for one in found]) if item] == [["increase"], [], []]
    first = plan_move_results.exceptions(session, move.id)[0]
    assert (first.subscription_id, first.change_minor) == (found[0].id, 3_100)
    assert plan_move_results.flag_counts(session, move.id)[Flag.INCREASE] == 1
    later = NOW + timedelta(hours=3)
    plan_moves.request_move(session, move.id, at=later, actor=SYSTEM)
    finish(session, move.id, later)
    assert move.status == MoveStatus.DONE
    for subscription in found:
        invoice = issued(session, subscription, later)
        foreseen = items(session, move)[subscription.id].due_minor
        assert invoice.subtotal_minor == foreseen == 10_000 * -21 // 31 + 13_100 * 21 // 31 + 1, amounts(session, invoice)
    [sums] = plan_move_results.sums(session, move.id)
    assert (sums.subscriptions, sums.present_minor, sums.next_minor) == (3, 54_000, 51_300)


def test_killed_in_the_middle_and_paused_it_moves_each_once(
    session: Session, shop: tuple[PlanVersion, PlanVersion, list[Subscription]], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, found = shop
    monkeypatch.setattr(plan_moves, "MOVE_SET_SIZE", 1)
    move = previewed(session, old, new, Timing.PERIOD_END)
    assert {item.due_minor for item in items(session, move).values()} == {0}
    plan_moves.request_move(session, move.id, at=NOW, actor=SYSTEM)
    assert plan_moves.step(session, move.id, at=NOW, actor=SYSTEM)
    killed = session.begin_nested()
    plan_moves.step(session, move.id, at=NOW, actor=SYSTEM)
    killed.rollback()
    plan_moves.pause(session, move.id, at=NOW, actor=SYSTEM)
    assert plan_moves.step(session, move.id, at=NOW, actor=SYSTEM) is False
    assert plan_move_results.states(session, move.id)[ItemState.MOVED] == changes(session) == 1
    plan_moves.request_move(session, move.id, at=NOW, actor=SYSTEM)
    plan_moves.request_move(session, move.id, at=NOW, actor=SYSTEM)
    finish(session, move.id)
    finish(session, move.id)
    assert plan_move_results.states(session, move.id)[ItemState.MOVED] == changes(session) == 3
    session.expire_all()
    planned = [plan_change.scheduled_change(one, at=NOW) for one in found]
    assert {(one.version.id, one.effective_at) for one in planned if one} == {(new.id, datetime(2026, 8, 1, tzinfo=UTC))}


def test_what_does_not_hold_yet_is_taken_back(session: Session, shop: tuple[PlanVersion, PlanVersion, list[Subscription]]) -> None:
    old, new, found = shop
    move = previewed(session, old, new, Timing.DATE, NOW + timedelta(days=40))
    plan_moves.request_move(session, move.id, at=NOW, actor=SYSTEM)
    finish(session, move.id)
    session.expire_all()
    plan_change.undo_scheduled(session, found[1], at=NOW, actor=SYSTEM)
    assert plan_move_results.undoable(session, move.id, NOW) == 3
    plan_moves.request_undo(session, move.id, at=NOW, actor=SYSTEM)
    finish(session, move.id)
    states = plan_move_results.states(session, move.id)
    assert (move.status, states[ItemState.UNDONE], states[ItemState.MOVED]) == (MoveStatus.DONE, 2, 1)
    assert "another one by now" in (items(session, move)[found[1].id].detail or "")
    assert [plan_change.scheduled_change(one, at=NOW) for one in found] == [None, None, None]


def test_who_leaves_has_plans_or_a_contract_is_held_back(
    session: Session, shop: tuple[PlanVersion, PlanVersion, list[Subscription]]
) -> None:
    old, new, [contracted, planning, changed] = shop
    contracted.contract_ends_at, contracted.contract_interval, contracted.contract_count = NOW + timedelta(days=200), "year", 1
    other = make_plan(session)
    plan_change.apply(session, planning, to=other, at=NOW, effective_at=NOW + timedelta(days=60), actor=SYSTEM)
    move = previewed(session, old, new, Timing.NOW)
    flags = {key: set(item.flags) for key, item in items(session, move).items()}
    assert flags[contracted.id] == {Flag.UNDER_CONTRACT, Flag.INCREASE}
    assert flags[planning.id] == {Flag.CHANGE_PLANNED}
    plan_change.apply(session, changed, to=other, at=NOW + timedelta(minutes=1), actor=SYSTEM)
    plan_moves.decide(session, move.id, [planning.id], hold=False, at=NOW, actor=SYSTEM)
    later = NOW + timedelta(minutes=5)
    plan_moves.request_move(session, move.id, at=later, actor=SYSTEM)
    finish(session, move.id, later)
    after = {key: item.state for key, item in items(session, move).items()}
    assert after == {contracted.id: ItemState.HELD, planning.id: ItemState.MOVED, changed.id: ItemState.FAILED}
    assert plan_change.version_at(contracted, later).id == old.id
    plan_moves.decide(session, move.id, [contracted.id], hold=False, at=later, actor=SYSTEM)
    with pytest.raises(Conflict):
        plan_moves.request_move(session, move.id, at=NOW + timedelta(days=2), actor=SYSTEM)


def test_a_move_to_nowhere_is_refused(session: Session, shop: tuple[PlanVersion, PlanVersion, list[Subscription]]) -> None:
    old, new, _ = shop
    with pytest.raises(Invalid) as refused:
        plan_moves.start(session, from_version=new, to=new, timing=Timing.DATE, at=NOW, actor=SYSTEM)
    assert [error.pointer for error in refused.value.errors] == ["/to_version", "/on", "/from_version"]
    with pytest.raises(Invalid) as refused:
        plan_moves.start(session, from_version=old, to=new, timing=Timing.DATE, on=NOW - timedelta(days=1), at=NOW, actor=SYSTEM)
    assert [error.pointer for error in refused.value.errors] == ["/on"]


def test_a_preview_takes_the_same_statements_whatever_its_size(
    session: Session, shop: tuple[PlanVersion, PlanVersion, list[Subscription]]
) -> None:
    old, new, _ = shop

    def statements(count: int) -> int:
        for _ in range(count):
            make_subscription(session, make_organization(session), old)
        move = plan_moves.start(session, from_version=old, to=new, timing=Timing.NOW, at=NOW, actor=SYSTEM)
        session.expire_all()
        with Statements(session) as seen:
            assert plan_moves.step(session, move.id, at=NOW, actor=SYSTEM)
            session.flush()
        return seen.count

    assert statements(1) == statements(20)
