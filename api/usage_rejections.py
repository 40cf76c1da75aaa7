"""Rejected events: reading them with the reason, and replaying them once the cause is mended."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint
from api.values import Reference
from core.errors import FieldError, Invalid
from core.identity.permissions import Scope
from core.metering.rejections import finding, replaying
from core.metering.rejections.finding import Rejection, Replay, Wanted

TAG = "Usage"
PATH = "/billing/usage/rejections"
Reason = Annotated[str, Meta(max_length=64, examples=["unknown_metric"])]
EventName = Annotated[str, Meta(max_length=100, description="The event name that was sent.")]
Key = Annotated[str, Meta(max_length=255, description="The idempotency key that was sent.")]
Instant = Annotated[datetime, Meta(tz=True)]
RejectionId = Annotated[str, Meta(pattern=r"^[0-9]{1,18}$")]


class RejectionsQuery(Listing):
    """Which refused events; `open`: not yet counted by a replay."""

    organization_id: Reference | None = None
    code: Reason | None = None
    metric_name: EventName | None = None
    idempotency_key: Key | None = None
    received_from: Instant | None = None
    received_before: Instant | None = None
    state: Literal["open", "replayed"] | None = None


class ReplayOut(Output):
    """One attempt to count a rejected event: refused again (why), or what became of it in its batch."""

    at: datetime
    by: str
    status: Literal["refused", "accepted", "pending", "counted", "duplicate", "conflict", "quarantined"]
    batch_id: str | None
    code: str | None
    pointer: str | None
    detail: str | None


class RejectionOut(Output):
    """One refused event; `event` is the JSON as it was sent, cut at 8 KiB. `replay` is the newest attempt to count it after all."""

    id: str
    received_at: datetime
    batch_id: str | None
    index: int
    code: str
    pointer: str
    detail: str
    event: str
    event_name: str | None
    idempotency_key: str | None
    replay: ReplayOut | None


class RejectionWithReplays(RejectionOut):
    """A refused event with every attempt to count it, newest first."""

    replays: list[ReplayOut]


class Replaying(Input):
    """Which rejected events: those named, or all that go by the other fields. At most 5,000 are taken at once, oldest first."""

    organization_id: Reference | None = None
    ids: Annotated[list[RejectionId], Meta(min_length=1, max_length=5_000)] | None = None
    code: Reason | None = None
    metric_name: EventName | None = None
    idempotency_key: Key | None = None
    received_from: Instant | None = None
    received_before: Instant | None = None


class TriedOut(Output):
    """The verdict on one event. An accepted one is counted with its batch, or found to be a duplicate there."""

    id: str
    status: Literal["accepted", "refused"]
    batch_id: str | None
    code: str | None
    pointer: str | None
    detail: str | None


class ReplayedOut(Output):
    """What a replay did; with `has_more`, further events go by the same words: replay again."""

    accepted: int
    refused: int
    has_more: bool
    events: list[TriedOut]


@endpoint("GET", PATH, scope=Scope.BILLING_READ, tag=TAG)
def list_usage_rejections(call: Call, query: RejectionsQuery) -> Page[RejectionOut]:
    """List refused events with the reason, newest first."""
    wanted = Wanted(
        call.filter(query.organization_id),
        code=query.code,
        event_name=query.metric_name,
        idempotency_key=query.idempotency_key,
        since=query.received_from,
        until=query.received_before,
        state=query.state,
    )
    page = finding.page(call.session, wanted, cursor=query.cursor, limit=query.limit)
    return Page(data=[_out(row) for row in page.rows], has_more=page.next_cursor is not None, next_cursor=page.next_cursor)


@endpoint("GET", f"{PATH}/<int:rejection_id>", scope=Scope.BILLING_READ, tag=TAG)
def get_usage_rejection(call: Call, rejection_id: int) -> RejectionWithReplays:
    """Read a refused event and every attempt to count it."""
    row, replays = finding.get(call.session, call.organization_id, min(rejection_id, 2**63 - 1))
    found = _out(row)
    return RejectionWithReplays(
        **{name: getattr(found, name) for name in found.__struct_fields__}, replays=[_replay(one) for one in replays]
    )


@endpoint("POST", f"{PATH}/replay", scope=Scope.USAGE_WRITE, tag=TAG)
def replay_usage_rejections(call: Call, body: Replaying) -> ReplayedOut:
    """Replay rejected events once the cause is mended: they are judged anew as they were sent, and counted by their keys.

    An event that was counted meanwhile is a duplicate, and replaying twice counts once. Events rejected longer ago than events may be
    sent stay rejected. What was rejected, and each attempt, stays on record.
    """
    if body.ids is not None and {body.code, body.metric_name, body.idempotency_key, body.received_from, body.received_before} != {None}:
        fault = FieldError("/ids", "Name the events, or say what they go by, not both.")
        raise Invalid("It is not clear which events are meant.", errors=(fault,))
    wanted = Wanted(
        call.filter(body.organization_id),
        ids=tuple(map(int, body.ids)) if body.ids is not None else None,
        code=body.code,
        event_name=body.metric_name,
        idempotency_key=body.idempotency_key,
        since=body.received_from,
        until=body.received_before,
    )
    done = replaying.replay(call.session, wanted, actor=call.actor, at=call.now())
    events = [
        TriedOut(
            id=str(one.id),
            status="refused" if one.batch_id is None else "accepted",
            batch_id=None if one.batch_id is None else str(one.batch_id),
            code=one.code or None,
            pointer=one.pointer if one.code else None,
            detail=one.detail or None,
        )
        for one in done.tried
    ]
    return ReplayedOut(accepted=done.accepted, refused=len(done.tried) - done.accepted, has_more=done.left, events=events)


def _out(row: Rejection) -> RejectionOut:
    return RejectionOut(
        id=str(row.id),
        received_at=row.received_at,
        batch_id=str(row.batch_id) if row.batch_id is not None else None,
        index=row.index,
        code=row.code,
        pointer=row.pointer,
        detail=row.detail,
        event=row.event,
        event_name=row.event_name,
        idempotency_key=row.idempotency_key,
        replay=_replay(row.replay) if row.replay else None,
    )


def _replay(one: Replay) -> ReplayOut:
    return ReplayOut(
        at=one.at,
        by=one.actor,
        status=one.status,  # type: ignore[arg-type]
        batch_id=str(one.batch_id) if one.batch_id is not None else None,
        code=one.code,
        pointer=one.pointer,
        detail=one.detail,
    )
