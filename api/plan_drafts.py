"""Drafts of plan versions: stored with gaps, changed by several people, told what is wrong with them, published or discarded."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.plans import TAG
from api.values import FREE_PATTERN, Code, Text, cursor_id
from core.catalog import drafts
from core.catalog import queries as catalog
from core.catalog.draft_models import PlanDraft
from core.errors import FieldError, Invalid, NotFound
from core.identity.permissions import Scope

Document = Annotated[
    dict[str, Any],
    Meta(
        description="A plan as `POST /billing/plans` takes it; it may be incomplete or wrong until it is published.",
        examples=[{"code": "pro", "name": "Pro", "currency": "EUR", "prices": []}],
    ),
]
Revision = Annotated[int, Meta(ge=1, le=2**31 - 1, description="The revision this was made from. Another one is refused with 409.")]


class PlanDraftIn(Input):
    """A new draft."""

    document: Document
    name: Annotated[Text | None, Meta(description="What people call it; left out: the plan's name.")] = None
    based_on: Annotated[uuid.UUID | None, Meta(description="The version it changes; left out: the one on offer, if there is one.")] = None


class PlanDraftChange(Input):
    """The draft as it shall be."""

    revision: Revision
    document: Document
    name: Text | None = None


class PlanDraftAct(Input):
    """Ask for publishing, send back, publish, discard, or go on from the version that was published since."""

    act: Literal["propose", "send_back", "publish", "discard", "rebase"]
    revision: Revision
    note: Annotated[str, Meta(max_length=2000, pattern=FREE_PATTERN, description="Why it is sent back or discarded.")] = ""


class PlanDraftListing(Listing):
    """Filters of the list."""

    plan: Annotated[Code | None, Meta(description="Code of the plan.")] = None
    every: Annotated[bool, Meta(description="Published and discarded ones too.")] = False


class PlanFault(Output):
    """What keeps the draft from being published, with a JSON pointer into `document`."""

    pointer: str
    detail: str


class PlanDraftOut(Output):
    """A draft. `newer_version` is a version published since it was begun; `version` the one it was published as."""

    id: uuid.UUID
    status: str
    name: str
    plan: str
    revision: int
    document: dict[str, Any]
    faults: list[PlanFault]
    based_on: uuid.UUID | None
    newer_version: uuid.UUID | None
    version: uuid.UUID | None
    editors: list[str]
    note: str
    created_by: str
    created_at: datetime
    updated_by: str
    updated_at: datetime
    closed_by: str | None
    closed_at: datetime | None


class PlanDraftRow(Output):
    """A draft in a list, without its document."""

    id: uuid.UUID
    status: str
    name: str
    plan: str
    revision: int
    updated_by: str
    updated_at: datetime


@endpoint("POST", "/billing/plan-drafts", scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def create_plan_draft(call: Call, body: PlanDraftIn) -> PlanDraftOut:
    """Store a draft of a plan's next version. Needs a platform key. Nothing is offered to anybody before it is published."""
    call.require_platform()
    try:
        begun = (
            catalog.version(call.session, body.based_on)
            if body.based_on is not None
            else drafts.live_version(call.session, str(body.document.get("code", "")))
        )
    except NotFound as error:
        raise Invalid("This draft cannot be begun.", errors=(FieldError("/based_on", error.message),)) from None
    made = drafts.create(call.session, name=body.name or "", document=body.document, based_on=begun, actor=call.actor, at=call.now())
    return _out(call, made)


@endpoint("GET", "/billing/plan-drafts", scope=Scope.BILLING_READ, tag=TAG)
def list_plan_drafts(call: Call, query: PlanDraftListing) -> Page[PlanDraftRow]:
    """List drafts, the newest first. Needs a platform key."""
    call.require_platform()
    rows = drafts.listing(call.session, plan_code=query.plan or "", every=query.every, after=cursor_id(query), limit=query.limit + 1)
    return page_of(rows, query.limit, _row, lambda row: row.id)


@endpoint("GET", "/billing/plan-drafts/<uuid:draft_id>", scope=Scope.BILLING_READ, tag=TAG)
def get_plan_draft(call: Call, draft_id: uuid.UUID) -> PlanDraftOut:
    """Read a draft, with all that keeps it from being published. Needs a platform key."""
    call.require_platform()
    return _out(call, drafts.get(call.session, draft_id))


@endpoint("PUT", "/billing/plan-drafts/<uuid:draft_id>", scope=Scope.BILLING_WRITE, tag=TAG)
def change_plan_draft(call: Call, draft_id: uuid.UUID, body: PlanDraftChange) -> PlanDraftOut:
    """Replace what the draft says.

    Needs a platform key. Answers 409 `changed_meanwhile` when somebody saved since `revision`: read it again. A draft that waits to be
    published is open again.
    """
    call.require_platform()
    name = body.name if body.name is not None else drafts.get(call.session, draft_id).name
    saved = drafts.save(call.session, draft_id, revision=body.revision, name=name, document=body.document, actor=call.actor, at=call.now())
    return _out(call, saved)


@endpoint("POST", "/billing/plan-drafts/<uuid:draft_id>/acts", scope=Scope.BILLING_WRITE, tag=TAG)
def act_on_plan_draft(call: Call, draft_id: uuid.UUID, body: PlanDraftAct) -> PlanDraftOut:
    """Publish a draft, ask somebody else to, send it back, discard it, or go on from a newer version.

    Needs a platform key. Where a second person is needed (`CATALOG_SECOND_PERSON`), a key that has changed the draft cannot publish it:
    403 `second_person_needed`. A discarded draft stays in the audit trail.
    """
    call.require_platform()
    session = call.session
    given: dict[str, Any] = {"revision": body.revision, "actor": call.actor, "at": call.now()}
    match body.act:
        case "propose":
            drafts.propose(session, draft_id, **given)
        case "send_back":
            drafts.send_back(session, draft_id, note=body.note, **given)
        case "publish":
            drafts.publish_draft(session, draft_id, **given)
        case "discard":
            drafts.discard(session, draft_id, note=body.note, **given)
        case "rebase":
            drafts.rebase(session, draft_id, **given)
    return _out(call, drafts.get(session, draft_id))


def _out(call: Call, row: PlanDraft) -> PlanDraftOut:
    writing = row.status in drafts.BEING_WRITTEN
    newer = drafts.newer_version(call.session, row) if writing else None
    faults = drafts.faults(call.session, row.document) if writing else ()
    return PlanDraftOut(
        id=row.id,
        status=row.status,
        name=row.name,
        plan=row.plan_code,
        revision=row.revision,
        document=row.document,
        faults=[PlanFault(pointer=fault.pointer, detail=fault.detail) for fault in faults],
        based_on=row.based_on_id,
        newer_version=newer.id if newer else None,
        version=row.plan_version_id,
        editors=[known["label"] for known in row.editors],
        note=row.note,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
        closed_by=row.closed_by,
        closed_at=row.closed_at,
    )


def _row(row: PlanDraft) -> PlanDraftRow:
    return PlanDraftRow(
        id=row.id,
        status=row.status,
        name=row.name,
        plan=row.plan_code,
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
