"""Moves of many subscriptions from one plan version to another: preview, review, move, pause, take back."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, field

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.plans import TAG
from api.reading import Exact
from api.values import amount, cursor_id
from core.catalog import queries as catalog
from core.catalog.models import PlanVersion
from core.errors import FieldError, Invalid, NotFound
from core.identity.permissions import Scope
from core.invoicing import plan_move_results, plan_moves
from core.invoicing.plan_move_models import PlanMove, Timing
from core.invoicing.plan_move_results import Row, Sums


class PlanMoveIn(Input):
    """Who is moved, to what, and from when it holds."""

    from_version: Annotated[uuid.UUID, Meta(description="Id of the version whose running subscriptions are moved.")]
    to_version: Annotated[uuid.UUID, Meta(description="Id of the version they get.")]
    when: Annotated[
        Literal["now", "period_end", "date"],
        Meta(description="From the instant of the preview, from the end of each one's running period, or from the instant `on`."),
    ] = "period_end"
    on: Annotated[datetime, Meta(tz=True)] | None = None
    increase_percent: Annotated[Exact, Meta(description="A period that costs more by over this makes an exception.")] = field(
        default_factory=lambda: Exact("10")
    )


class PlanMoveAct(Input):
    """What is to be done: carry the move out or go on with it, pause it, take back what does not hold yet, hold or release some."""

    act: Literal["move", "pause", "undo", "hold", "release"]
    subscriptions: Annotated[list[uuid.UUID], Meta(max_length=1000, description="Those to hold or release.")] = field(default_factory=list)


class PlanMoveSums(Output):
    """Those that are to be moved or have been, in one currency, net of tax.

    `due` is what the changes make due at once, `present` and `next` what a period costs before and after, on the last closed one's usage.
    """

    currency: str
    subscriptions: int
    due: str
    present: str
    next: str


class PlanMoveOut(Output):
    """A move, with how many subscriptions are in each state and how many carry each flag."""

    id: uuid.UUID
    status: str
    from_version: uuid.UUID
    to_version: uuid.UUID
    when: str
    on: datetime | None
    increase_percent: Decimal
    as_of: datetime
    subscriptions_total: int
    states: dict[str, int]
    flags: dict[str, int]
    sums: list[PlanMoveSums]
    created_at: datetime
    finished_at: datetime | None


class PlanMoveRow(Output):
    """What the move does to one subscription, net of tax; `present` and `next` are null without a closed period."""

    subscription_id: uuid.UUID
    organization_id: uuid.UUID
    organization: str
    currency: str
    state: str
    effective_at: datetime | None
    due: str | None
    present: str | None
    next: str | None
    flags: list[str]
    detail: str | None


@endpoint("POST", "/billing/plan-moves", scope=Scope.BILLING_WRITE, tag=TAG, status=202)
def preview_plan_move(call: Call, body: PlanMoveIn) -> PlanMoveOut:
    """Begin the preview of a move of every subscription that runs on a version.

    Needs a platform key. Nothing is moved before it is asked for: read the move until its `status` is `review`, then act on it.
    Subscriptions that end, have a change planned or are inside a contract are held back until they are released.
    """
    call.require_platform()
    move = plan_moves.start(
        call.session,
        from_version=_version(call, body.from_version, "/from_version"),
        to=_version(call, body.to_version, "/to_version"),
        timing=Timing(body.when),
        on=body.on,
        increase_percent=Decimal(body.increase_percent),
        at=call.now(),
        actor=call.actor,
    )
    return _out(call, move)


@endpoint("GET", "/billing/plan-moves/<uuid:move_id>", scope=Scope.BILLING_READ, tag=TAG)
def get_plan_move(call: Call, move_id: uuid.UUID) -> PlanMoveOut:
    """Read a move: where it stands and what it comes to. Needs a platform key."""
    call.require_platform()
    return _out(call, plan_moves.get(call.session, move_id))


@endpoint("GET", "/billing/plan-moves/<uuid:move_id>/rows", scope=Scope.BILLING_READ, tag=TAG)
def list_plan_move_rows(call: Call, move_id: uuid.UUID, query: Listing) -> Page[PlanMoveRow]:
    """List what a move does to each subscription, in order of their ids. Needs a platform key."""
    call.require_platform()
    plan_moves.get(call.session, move_id)
    rows = plan_move_results.page(call.session, move_id, after=cursor_id(query), limit=query.limit + 1)
    return page_of(rows, query.limit, _row, lambda row: row.subscription_id)


@endpoint("POST", "/billing/plan-moves/<uuid:move_id>/acts", scope=Scope.BILLING_WRITE, tag=TAG)
def act_on_plan_move(call: Call, move_id: uuid.UUID, body: PlanMoveAct) -> PlanMoveOut:
    """Carry a previewed move out, go on after a pause, pause it, take it back, hold some of it back or release them.

    Needs a platform key. A move that holds from its preview must be carried out within a day. Taking back undoes what does not hold yet.
    """
    call.require_platform()
    session, at, actor = call.session, call.now(), call.actor
    if body.act == "move":
        plan_moves.request_move(session, move_id, at=at, actor=actor)
    elif body.act == "pause":
        plan_moves.pause(session, move_id, at=at, actor=actor)
    elif body.act == "undo":
        plan_moves.request_undo(session, move_id, at=at, actor=actor)
    else:
        plan_moves.decide(session, move_id, body.subscriptions, hold=body.act == "hold", at=at, actor=actor)
    return _out(call, plan_moves.get(session, move_id))


def _version(call: Call, version_id: uuid.UUID, pointer: str) -> PlanVersion:
    try:
        return catalog.version(call.session, version_id)
    except NotFound as error:
        raise Invalid("This cannot be moved.", errors=(FieldError(pointer, error.message),)) from None


def _out(call: Call, move: PlanMove) -> PlanMoveOut:
    states = plan_move_results.states(call.session, move.id)
    flags = plan_move_results.flag_counts(call.session, move.id)
    return PlanMoveOut(
        id=move.id,
        status=move.status,
        from_version=move.from_version_id,
        to_version=move.to_version_id,
        when=move.timing,
        on=move.effective_on,
        increase_percent=move.increase_percent,
        as_of=move.as_of,
        subscriptions_total=move.subscriptions_total,
        states={state.value: count for state, count in states.items()},
        flags={flag.value: count for flag, count in flags.items()},
        sums=[_sums(found) for found in plan_move_results.sums(call.session, move.id)],
        created_at=move.created_at,
        finished_at=move.finished_at,
    )


def _sums(found: Sums) -> PlanMoveSums:
    currency = found.currency
    return PlanMoveSums(
        currency=currency,
        subscriptions=found.subscriptions,
        due=amount(found.due_minor, currency),
        present=amount(found.present_minor, currency),
        next=amount(found.next_minor, currency),
    )


def _row(found: Row) -> PlanMoveRow:
    return PlanMoveRow(
        subscription_id=found.subscription_id,
        organization_id=found.organization_id,
        organization=found.name,
        currency=found.currency,
        state=found.state,
        effective_at=found.effective_at,
        due=_amount(found.due_minor, found.currency),
        present=_amount(found.present_minor, found.currency),
        next=_amount(found.next_minor, found.currency),
        flags=list(found.flags),
        detail=found.detail,
    )


def _amount(minor: int | None, currency: str) -> str | None:
    return None if minor is None else amount(minor, currency)
