"""Files of past usage: staged, looked at in a dry run, applied, and taken back if need be."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from flask import Blueprint, Response, request
from msgspec import Meta, field

from api import reading
from api.call import Call, authenticated
from api.contract import JSON, Input, Listing, Output, Page, endpoint, page_of
from api.execution import encoded
from api.usage_corrections import ChangeOut, Why, changes_out
from api.values import Reference, Text, cursor_id
from core.db import transaction
from core.identity.permissions import Scope
from core.invoicing import backfill_effect
from core.invoicing.backfill_effect import Outcome
from core.metering.corrections import applying, progress, staging
from core.metering.corrections.files import BYTES_MAX, FileForm
from core.metering.corrections.progress import Progress, Step
from core.metering.corrections.staging import Backfill

TAG = "Usage"
PATH = "/billing/usage/backfills"
FORMS = {"application/x-ndjson": FileForm.NDJSON, "application/ndjson": FileForm.NDJSON, "text/csv": FileForm.CSV}
Trial = Annotated[bool, Meta(description="Only say what would change.")]


class Upload(Input):
    """What a file is and why it is sent."""

    reason: Why
    organization_id: Reference | None = None
    file_name: Text = "usage"


class BackfillsQuery(Listing):
    """Whose backfills."""

    organization_id: Reference | None = None


class Applying(Input):
    """Whether to do it."""

    dry_run: Trial = False


class Reverting(Input):
    """Why, and whether to do it."""

    reason: Why
    dry_run: Trial = False


class FaultOut(Output):
    """A line of the file that cannot count."""

    line: int
    code: str
    pointer: str
    detail: str
    event: str


class ProgressOut(Output):
    """How far the work on a file is: one transaction, of which nothing holds before its end or is left when it is cut off."""

    step: Annotated[Step, Meta(description="Its lines are judged once more, then counted; or tried, in a dry run.")]
    done: int
    events: int


class BackfillOut(Output):
    """A file of past usage. A file with `refused` lines is not applied; `faults` are the first hundred of them."""

    id: uuid.UUID
    organization_id: uuid.UUID
    status: Literal["staged", "applied", "reverted", "discarded"]
    file_name: str
    reason: str
    events: int
    refused: int
    staged_at: datetime
    staged_by: str
    applied_at: datetime | None
    applied_by: str | None
    reverted_at: datetime | None
    reverted_by: str | None
    progress: Annotated[ProgressOut | None, Meta(description="Of a file that is being applied or tried just now.")] = None
    faults: list[FaultOut] = field(default_factory=list)


class HourOut(Output):
    """The quantity of a metric in an hour, before and after."""

    metric: str
    hour: datetime
    before: Decimal
    after: Decimal


class OutcomeOut(Output):
    """What was done, or with `dry_run` would be.

    `known` lines are left out because their keys are counted already, `void` ones because they were voided. `hours` are the changed ones
    among the first 500 that the file touches.
    """

    dry_run: bool
    backfill: BackfillOut
    events: int
    known: int
    void: int
    keys_released: bool
    hours: list[HourOut]
    changes: list[ChangeOut]


def mount(blueprint: Blueprint) -> None:
    """Serve the address files are sent to: their bytes are the body, what they are stands in the query."""
    blueprint.add_url_rule(PATH, "stage_usage_backfill", stage_usage_backfill, methods=["POST"])


def stage_usage_backfill() -> Response:
    """Judge a file and keep it; 201, or 200 when it is there already."""
    call = authenticated(Scope.BILLING_WRITE)
    call.require_platform()
    given = reading.query(request.args.lists(), Upload)
    form = FORMS.get(request.mimetype)
    if form is None:
        raise reading.WrongMediaType("Send the file as application/x-ndjson or text/csv.")
    request.max_content_length = BYTES_MAX
    if (request.content_length or 0) > BYTES_MAX:
        raise reading.TooLarge(f"Send at most {BYTES_MAX} bytes.")
    content = request.get_data(cache=False)
    with transaction():
        organization = call.organization(given.organization_id)
        about = {"file_name": given.file_name, "reason": given.reason}
        made = staging.stage(call.session, organization.id, content, form, **about, actor=call.actor, at=call.now(organization))
        return Response(encoded(_shown(call, made)), 201, content_type=JSON)


@endpoint("GET", PATH, scope=Scope.BILLING_READ, tag=TAG)
def list_usage_backfills(call: Call, query: BackfillsQuery) -> Page[BackfillOut]:
    """List files of past usage, newest first."""
    rows = staging.newest(call.session, call.filter(query.organization_id), before=cursor_id(query), limit=query.limit + 1)
    work = progress.running(call.session)
    return page_of(rows, query.limit, lambda row: backfill_out(row, work.get(row.id)), lambda row: row.id)


@endpoint("GET", f"{PATH}/<uuid:backfill_id>", scope=Scope.BILLING_READ, tag=TAG)
def get_usage_backfill(call: Call, backfill_id: uuid.UUID) -> BackfillOut:
    """Read a file of past usage, with its first faulty lines."""
    return _shown(call, staging.get(call.session, call.owner("usage_backfills", backfill_id), backfill_id))


@endpoint("POST", f"{PATH}/<uuid:backfill_id>/apply", scope=Scope.BILLING_WRITE, tag=TAG)
def apply_usage_backfill(call: Call, backfill_id: uuid.UUID, body: Applying) -> OutcomeOut:
    """Count the events of a staged file, all or none of them. Needs a platform key.

    With `dry_run` it is done, measured and taken back: what it says is what will happen.
    """
    call.require_platform()
    organization = call.owning_organization("usage_backfills", backfill_id)
    at = call.now(organization)
    found = backfill_effect.apply(call.session, organization.id, backfill_id, actor=call.actor, at=at, dry_run=body.dry_run)
    return _outcome(found, body.dry_run)


@endpoint("POST", f"{PATH}/<uuid:backfill_id>/revert", scope=Scope.BILLING_WRITE, tag=TAG)
def revert_usage_backfill(call: Call, backfill_id: uuid.UUID, body: Reverting) -> OutcomeOut:
    """Take every event of an applied file back, once. Needs a platform key. Refused when one of them was corrected since."""
    call.require_platform()
    organization = call.owning_organization("usage_backfills", backfill_id)
    found = backfill_effect.revert(
        call.session,
        organization.id,
        backfill_id,
        reason=body.reason,
        actor=call.actor,
        at=call.now(organization),
        dry_run=body.dry_run,
    )
    return _outcome(found, body.dry_run)


@endpoint("POST", f"{PATH}/<uuid:backfill_id>/discard", scope=Scope.BILLING_WRITE, tag=TAG)
def discard_usage_backfill(call: Call, backfill_id: uuid.UUID) -> BackfillOut:
    """Give up a staged file: its lines are deleted. Needs a platform key."""
    call.require_platform()
    organization = call.owning_organization("usage_backfills", backfill_id)
    return backfill_out(applying.discard(call.session, organization.id, backfill_id, actor=call.actor, at=call.now(organization)))


def backfill_out(row: Backfill, work: Progress | None = None) -> BackfillOut:
    """A backfill as the API tells it, without its faults."""
    return BackfillOut(
        id=row.id,
        organization_id=row.organization_id,
        status=row.status,  # type: ignore[arg-type]
        file_name=row.file_name,
        reason=row.reason,
        events=row.events,
        refused=row.refused,
        staged_at=row.staged_at,
        staged_by=row.staged_by_label,
        applied_at=row.applied_at,
        applied_by=row.applied_by_label,
        reverted_at=row.reverted_at,
        reverted_by=row.reverted_by_label,
        progress=ProgressOut(step=work.step, done=work.done, events=work.events) if work else None,
    )


def _shown(call: Call, row: Backfill) -> BackfillOut:
    found = backfill_out(row, progress.running(call.session).get(row.id))
    found.faults = [
        FaultOut(line=one.line, code=one.code, pointer=one.pointer, detail=one.detail, event=one.event)
        for one in staging.faults(call.session, row.id)
    ]
    return found


def _outcome(found: Outcome, dry_run: bool) -> OutcomeOut:
    return OutcomeOut(
        dry_run=dry_run,
        backfill=backfill_out(found.done.backfill),
        events=found.done.counted,
        known=found.done.known,
        void=found.done.void,
        keys_released=found.done.keys_released,
        hours=[HourOut(metric=one.metric, hour=one.hour, before=one.before, after=one.after) for one in found.hours],
        changes=changes_out(found.effect),
    )
