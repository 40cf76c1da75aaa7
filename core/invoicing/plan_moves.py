"""Moving many running subscriptions from one plan version to another: a preview of every amount, a review by people, then the move.

Work goes in sets, one transaction each, found by state: interrupted anywhere it goes on where it stopped and moves nobody twice. Each
move is the ordinary plan change with its audit; what it makes up is billed as after any other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core import audit, jobs
from core.audit import Actor
from core.catalog.models import PlanKind, PlanVersion
from core.db import among, new_id
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.invoicing.plan_move_models import ItemState, MoveStatus, PlanMove, PlanMoveItem, Timing
from core.invoicing.plan_move_preview import Flag, in_words, members, preview_set
from core.invoicing.run_errors import EXPECTED
from core.subscriptions import plan_change
from core.subscriptions.models import Subscription
from core.subscriptions.opening import AHEAD_DAYS_MAX

MOVE_SET_SIZE = 50
NOW_VALID_FOR = timedelta(days=1)
"""How long a preview of a move that holds from its own instant may be carried out."""
INCREASE_PERCENT_MAX = Decimal(10_000)


def start(
    session: Session,
    *,
    from_version: PlanVersion,
    to: PlanVersion,
    timing: Timing,
    on: datetime | None = None,
    increase_percent: Decimal = Decimal(10),
    at: datetime,
    actor: Actor,
) -> PlanMove:
    """Begin the preview of a move of everybody who runs on `from_version`; the job `run_plan_move` does the work.

    Invalid for versions that are no price list of a plan, the same version twice, a date that is missing, past or too far, nobody to move.
    """
    faults = [
        FieldError(pointer, f"{version.plan.name} is not a plan on the price list")
        for pointer, version in (("/from_version", from_version), ("/to_version", to))
        if version.plan.kind != PlanKind.PLAN or version.organization_id is not None
    ]
    if from_version.id == to.id:
        faults.append(FieldError("/to_version", "they are on this version already"))
    if (timing is Timing.DATE) != (on is not None):
        faults.append(FieldError("/on", "give a date, and only for a move on a date"))
    elif on is not None and not at <= on <= at + timedelta(days=AHEAD_DAYS_MAX):
        faults.append(FieldError("/on", f"must be within the next {AHEAD_DAYS_MAX} days"))
    if not 0 <= increase_percent <= INCREASE_PERCENT_MAX:
        faults.append(FieldError("/increase_percent", f"must be 0 to {INCREASE_PERCENT_MAX}"))
    total = session.scalar(members(from_version.id, at).with_only_columns(func.count())) or 0
    if not total:
        faults.append(FieldError("/from_version", "nobody runs on this version"))
    if faults:
        raise Invalid("This cannot be moved.", errors=tuple(faults))
    move = PlanMove(
        id=new_id(),
        status=MoveStatus.PREVIEWING.value,
        from_version_id=from_version.id,
        to_version_id=to.id,
        timing=timing.value,
        effective_on=on,
        increase_percent=increase_percent,
        as_of=at,
        started_by=actor.label,
        subscriptions_total=total,
        created_at=at,
    )
    session.add(move)
    session.flush()
    _record(session, actor, "plan_move.previewed", move, at, subscriptions=total)
    jobs.enqueue(session, "run_plan_move", move.id)
    return move


def step(session: Session, move_id: uuid.UUID, *, at: datetime, actor: Actor) -> bool:
    """Do the next set of whatever the move is at; False when it waits for a person or is done."""
    move = get(session, move_id, lock=True)
    if move.status == MoveStatus.PREVIEWING:
        return preview_set(session, move)
    work = {MoveStatus.MOVING: _move_set, MoveStatus.UNDOING: _undo_set}.get(MoveStatus(move.status))
    return work is not None and work(session, move, at, actor)


def request_move(session: Session, move_id: uuid.UUID, *, at: datetime, actor: Actor) -> PlanMove:
    """Let everybody who is ready be moved; asked again after a pause, it goes on. Conflict while previewed or undone, or when too late."""
    move = get(session, move_id, lock=True)
    if move.status not in (MoveStatus.REVIEW, MoveStatus.DONE, MoveStatus.MOVING):
        raise Conflict(f"The move is {move.status}.", code="move_in_progress")
    ready = _count(session, move_id, ItemState.READY)
    if move.status == MoveStatus.MOVING or not ready:
        return move
    if move.timing == Timing.NOW and at > move.as_of + NOW_VALID_FOR:
        raise Conflict("The preview is more than a day old; make a new one.", code="preview_expired")
    if move.effective_on is not None and move.effective_on < at:
        raise Conflict("The date has passed; make a new move.", code="preview_expired")
    move.status, move.finished_at = MoveStatus.MOVING.value, None
    _record(session, actor, "plan_move.started", move, at, subscriptions=ready)
    jobs.enqueue(session, "run_plan_move", move.id)
    return move


def pause(session: Session, move_id: uuid.UUID, *, at: datetime, actor: Actor) -> PlanMove:
    """Stop after the present set; `request_move` goes on."""
    move = get(session, move_id, lock=True)
    if move.status == MoveStatus.MOVING:
        move.status = MoveStatus.REVIEW.value
        _record(session, actor, "plan_move.paused", move, at)
    return move


def request_undo(session: Session, move_id: uuid.UUID, *, at: datetime, actor: Actor) -> PlanMove:
    """Take back every change of this move that does not hold yet. Conflict while the move is worked on."""
    move = get(session, move_id, lock=True)
    if move.status not in (MoveStatus.REVIEW, MoveStatus.DONE):
        raise Conflict(f"The move is {move.status}; pause it first.", code="move_in_progress")
    move.status, move.reached_id = MoveStatus.UNDOING.value, None
    _record(session, actor, "plan_move.undo_requested", move, at)
    jobs.enqueue(session, "run_plan_move", move.id)
    return move


def decide(
    session: Session, move_id: uuid.UUID, subscription_ids: Collection[uuid.UUID], *, hold: bool, at: datetime, actor: Actor
) -> None:
    """Hold subscriptions of the move back, or release them; those already moved stay as they are."""
    move = get(session, move_id, lock=True)
    before, after = (ItemState.READY, ItemState.HELD) if hold else (ItemState.HELD, ItemState.READY)
    mine = PlanMoveItem.move_id == move_id, among(PlanMoveItem.subscription_id, subscription_ids), PlanMoveItem.state == before
    changed: Any = session.execute(update(PlanMoveItem).where(*mine).values(state=after.value))
    if changed.rowcount:
        _record(session, actor, "plan_move.held" if hold else "plan_move.released", move, at, subscriptions=changed.rowcount)


def get(session: Session, move_id: uuid.UUID, *, lock: bool = False) -> PlanMove:
    """The move as committed last; NotFound."""
    wanted = select(PlanMove).where(PlanMove.id == move_id).execution_options(populate_existing=True)
    found = session.scalars(wanted.with_for_update(of=PlanMove) if lock else wanted).one_or_none()
    if found is None:
        raise NotFound("There is no such move.")
    return found


def unfinished(session: Session) -> Sequence[uuid.UUID]:
    """Moves a worker should be busy with: the sweep rings for them."""
    working = (MoveStatus.PREVIEWING, MoveStatus.MOVING, MoveStatus.UNDOING)
    return session.scalars(select(PlanMove.id).where(PlanMove.status.in_(working))).all()


def _move_set(session: Session, move: PlanMove, at: datetime, actor: Actor) -> bool:
    mine = PlanMoveItem.move_id == move.id, PlanMoveItem.state == ItemState.READY
    items = session.scalars(select(PlanMoveItem).where(*mine).order_by(PlanMoveItem.subscription_id).limit(MOVE_SET_SIZE)).all()
    if not items:
        return _finish(session, move, at, actor)
    for item in items:
        item.state, item.detail = ItemState.MOVED.value, _attempt(session, partial(_move_one, session, move, item, at, actor))
        if item.detail is not None:
            item.state = ItemState.FAILED.value
    return True


def _move_one(session: Session, move: PlanMove, item: PlanMoveItem, at: datetime, actor: Actor) -> None:
    subscription = session.get_one(Subscription, item.subscription_id)
    if move.timing == Timing.PERIOD_END:
        item.effective_at = plan_change.effective_at(subscription, Timing.PERIOD_END, at=at)
    effective = item.effective_at or at
    if plan_change.version_at(subscription, effective).id != move.from_version_id and Flag.CHANGE_PLANNED not in item.flags:
        raise Conflict("The subscription was changed after the preview.", code="changed_meanwhile")
    plan_change.apply(session, subscription, to=move.to_version, at=at, effective_at=effective, actor=actor)


def _undo_set(session: Session, move: PlanMove, at: datetime, actor: Actor) -> bool:
    item = PlanMoveItem
    wanted = select(item).where(item.move_id == move.id, item.state == ItemState.MOVED, item.effective_at > at)
    if move.reached_id is not None:
        wanted = wanted.where(item.subscription_id > move.reached_id)
    items = session.scalars(wanted.order_by(item.subscription_id).limit(MOVE_SET_SIZE)).all()
    if not items:
        return _finish(session, move, at, actor)
    for one in items:
        one.detail = _attempt(session, partial(_undo_one, session, move, one, at, actor))
        if one.detail is None:
            one.state = ItemState.UNDONE.value
    move.reached_id = items[-1].subscription_id
    return True


def _undo_one(session: Session, move: PlanMove, item: PlanMoveItem, at: datetime, actor: Actor) -> None:
    subscription = session.get_one(Subscription, item.subscription_id)
    planned = plan_change.scheduled_change(subscription, at=at)
    if planned is None or planned.version.id != move.to_version_id or planned.effective_at != item.effective_at:
        raise Conflict("Not taken back: the planned change is another one by now.", code="changed_meanwhile")
    plan_change.undo_scheduled(session, subscription, at=at, actor=actor)


def _attempt(session: Session, work: Callable[[], None]) -> str | None:
    """Do the work in a savepoint; why it could not be done, None when it was. One that fails does not stop the others."""
    try:
        with session.begin_nested():
            work()
    except OperationalError:
        raise
    except EXPECTED as error:
        return in_words(error)
    return None


def _finish(session: Session, move: PlanMove, at: datetime, actor: Actor) -> bool:
    move.status, move.finished_at = MoveStatus.DONE.value, at
    moved = _count(session, move.id, ItemState.MOVED)
    _record(session, actor, "plan_move.finished", move, at, subscriptions=moved)
    return False


def _count(session: Session, move_id: uuid.UUID, state: ItemState) -> int:
    mine = PlanMoveItem.move_id == move_id, PlanMoveItem.state == state
    return session.scalar(select(func.count()).select_from(PlanMoveItem).where(*mine)) or 0


def _record(session: Session, actor: Actor, kind: str, move: PlanMove, at: datetime, **facts: Any) -> None:
    audit.record(session, actor, kind, move, at=at, to_version_id=move.to_version_id, from_version_id=move.from_version_id, **facts)
