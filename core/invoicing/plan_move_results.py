"""Reading a move of many subscriptions: where it stands, its sums, and what it does to each subscription, exceptions first."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from core.identity.models import Organization
from core.invoicing.plan_move_models import ItemState, PlanMove, PlanMoveItem
from core.invoicing.plan_move_preview import Flag


@dataclass(frozen=True, slots=True)
class Sums:
    """The subscriptions of one currency that are to be moved or have been; net minor units, periods as in PlanMoveItem."""

    currency: str
    subscriptions: int
    due_minor: int
    present_minor: int
    next_minor: int


@dataclass(frozen=True, slots=True)
class Row:
    """One subscription, as PlanMoveItem, with its customer's name."""

    subscription_id: uuid.UUID
    organization_id: uuid.UUID
    name: str
    currency: str
    state: str
    effective_at: datetime | None
    due_minor: int | None
    present_minor: int | None
    next_minor: int | None
    flags: Sequence[str]
    detail: str | None

    @property
    def change_minor(self) -> int | None:
        """What a period costs more; None without a closed one."""
        return None if self.next_minor is None or self.present_minor is None else self.next_minor - self.present_minor


def moves(session: Session, *, limit: int = 50) -> Sequence[PlanMove]:
    """The moves, newest first."""
    return session.scalars(select(PlanMove).order_by(PlanMove.id.desc()).limit(limit)).all()


def states(session: Session, move_id: uuid.UUID) -> dict[ItemState, int]:
    """How many subscriptions are in each state."""
    item = PlanMoveItem
    rows = session.execute(select(item.state, func.count()).where(item.move_id == move_id).group_by(item.state))
    found = {row[0]: row[1] for row in rows}
    return {state: found.get(state.value, 0) for state in ItemState}


def flag_counts(session: Session, move_id: uuid.UUID) -> dict[Flag, int]:
    """How many subscriptions carry each flag."""
    item = PlanMoveItem
    counts = [func.count().filter(item.flags.contains([flag.value])) for flag in Flag]
    return dict(zip(Flag, session.execute(select(*counts).where(item.move_id == move_id)).one(), strict=True))


def undoable(session: Session, move_id: uuid.UUID, at: datetime) -> int:
    """How many moves do not hold yet."""
    item = PlanMoveItem
    waiting = item.move_id == move_id, item.state == ItemState.MOVED, item.effective_at > at
    return session.scalar(select(func.count()).select_from(item).where(*waiting)) or 0


def sums(session: Session, move_id: uuid.UUID) -> list[Sums]:
    """What the move comes to, by currency; those held back or failed are not in it."""
    item = PlanMoveItem
    totals = [func.coalesce(func.sum(column), 0) for column in (item.due_minor, item.present_minor, item.next_minor)]
    rows = session.execute(
        select(item.currency, func.count(), *totals)
        .where(item.move_id == move_id, item.state.in_((ItemState.READY, ItemState.MOVED)))
        .group_by(item.currency)
        .order_by(item.currency)
    )
    return [Sums(currency, *(int(value) for value in values)) for currency, *values in rows]


def exceptions(session: Session, move_id: uuid.UUID, *, only: Flag | ItemState | None = None, limit: int | None = 50) -> Sequence[Row]:
    """The subscriptions, flagged and failed ones first, then by increase; those with one flag or in one state with `only`."""
    item = PlanMoveItem
    unusual: ColumnElement[bool] = or_(func.jsonb_array_length(item.flags) > 0, item.state == ItemState.FAILED)
    order = unusual.desc(), (item.next_minor - item.present_minor).desc().nulls_last(), item.subscription_id
    return _rows(session, move_id, *_only(only), order=order, limit=limit)


def page(session: Session, move_id: uuid.UUID, *, after: uuid.UUID | None, limit: int) -> Sequence[Row]:
    """The subscriptions in order of their ids, behind `after`."""
    behind = [] if after is None else [PlanMoveItem.subscription_id > after]
    return _rows(session, move_id, *behind, order=(PlanMoveItem.subscription_id,), limit=limit)


def _only(wanted: Flag | ItemState | None) -> list[Any]:
    if wanted is None:
        return []
    return [PlanMoveItem.flags.contains([wanted.value]) if isinstance(wanted, Flag) else PlanMoveItem.state == wanted]


def _rows(session: Session, move_id: uuid.UUID, *where: Any, order: Sequence[Any], limit: int | None) -> Sequence[Row]:
    item = PlanMoveItem
    rows = session.execute(
        select(
            item.subscription_id, item.organization_id, Organization.name, item.currency, item.state, item.effective_at, item.due_minor,
            item.present_minor, item.next_minor, item.flags, item.detail,
        )
        .join(Organization, Organization.id == item.organization_id)
        .where(item.move_id == move_id, *where)
        .order_by(*order)
        .limit(limit)
    )  # fmt: skip
    return [Row(*row) for row in rows]
