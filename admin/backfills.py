"""Files of past usage: sent in, judged line by line, tried, applied (large ones by a second person) and taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.reason import why
from core import clock
from core.db import db, transaction
from core.errors import BillingError, FieldError, Invalid, NotFound
from core.identity import queries as identity
from core.identity.models import Organization
from core.invoicing import backfill_effect
from core.invoicing import queries as invoicing
from core.invoicing.backfill_effect import Outcome
from core.metering.corrections import applying, progress, staging
from core.metering.corrections.files import BYTES_MAX, EVENTS_MAX, FileForm
from core.metering.corrections.staging import APPLIED, STAGED, Backfill
from web.auth import may, requires
from web.forms import field_errors, once
from web.htmx import page, redirect_to, wants_fragment

SHOWN = 100
TRIED_AT_ONCE = 2_000
"""Events of a file that is tried before its page is shown; what a larger one changes is shown later."""
FORMS = {"csv": FileForm.CSV, "ndjson": FileForm.NDJSON, "jsonl": FileForm.NDJSON}


@blueprint.get("/events/backfills")
@requires("events.view")
def backfills() -> Response:
    """Every file that was sent in, newest first, and the form that sends one."""
    return _list({"account": request.args.get("account", "")})


@blueprint.post("/events/backfills")
@requires("events.correct")
def stage_backfill() -> Response:
    """Judge a file and keep its lines; nothing counts yet."""
    form = {name: request.form.get(name, "").strip() for name in ("account", "reason")}
    request.max_content_length = BYTES_MAX + 64 * 1024
    sent = request.files.get("file")

    def work() -> str:
        if sent is None or not sent.filename:
            raise Invalid("There is no file.", errors=(FieldError("/file", "Choose a file."),))
        kind = FORMS.get(sent.filename.rpartition(".")[2].lower())
        if kind is None:
            raise Invalid("The file cannot be taken.", errors=(FieldError("/file", "Its name ends in .csv, .ndjson or .jsonl."),))
        account = _account(form["account"])
        about = {"file_name": sent.filename[-255:], "reason": why(), "actor": g.actor, "at": clock.now(account)}
        made = staging.stage(db.session(), account.id, sent.stream.read(BYTES_MAX + 1), kind, **about)
        return url_for("admin.backfill", account_id=account.id, backfill_id=made.id)

    try:
        return once(work)
    except BillingError as error:
        found = {place or "file": sentence for place, sentence in field_errors(error).items()}
        return _list(form, found, status=error.status)


@blueprint.get("/accounts/<uuid:account_id>/backfills/<uuid:backfill_id>")
@requires("events.view")
def backfill(account_id: UUID, backfill_id: UUID) -> Response:
    """One file: its faulty lines, or what it would change in usage and money, and who may apply it; how far that is, for a large one."""
    account = identity.organization(db.session(), account_id)
    return _show(account, staging.get(db.session(), account.id, backfill_id))


@blueprint.get("/accounts/<uuid:account_id>/backfills/<uuid:backfill_id>/work")
@requires("events.view")
def backfill_work(account_id: UUID, backfill_id: UUID) -> Response:
    """How far the work on it is; whoever came while it was being done sees the file anew at its end."""
    account = identity.organization(db.session(), account_id)
    found, reload = staging.get(db.session(), account.id, backfill_id), "was" in request.args
    work = progress.running(db.session()).get(found.id)
    place: dict[str, Any] = {"account_id": account.id, "backfill_id": found.id}
    if (reload and work is None) or not wants_fragment():
        return redirect_to(url_for("admin.backfill", **place))
    return page("admin/events/_file_work.html", account=account, backfill=found, work=work, watched=True, reload=reload)


@blueprint.post("/accounts/<uuid:account_id>/backfills/<uuid:backfill_id>/apply")
@requires("events.correct")
def apply_backfill(account_id: UUID, backfill_id: UUID) -> Response:
    """Count every event of it; a refusal is shown on the same page."""
    return _settle(account_id, backfill_id, lambda account, place: backfill_effect.apply(db.session(), account.id, backfill_id, **place))


@blueprint.post("/accounts/<uuid:account_id>/backfills/<uuid:backfill_id>/revert")
@requires("events.correct")
def revert_backfill(account_id: UUID, backfill_id: UUID) -> Response:
    """Take every event of it back."""
    return _settle(
        account_id, backfill_id, lambda account, place: backfill_effect.revert(db.session(), account.id, backfill_id, reason=why(), **place)
    )


@blueprint.post("/accounts/<uuid:account_id>/backfills/<uuid:backfill_id>/discard")
@requires("events.correct")
def discard_backfill(account_id: UUID, backfill_id: UUID) -> Response:
    """Give a staged file up."""
    return _settle(account_id, backfill_id, lambda account, place: applying.discard(db.session(), account.id, backfill_id, **place))


def _settle(account_id: UUID, backfill_id: UUID, act: Callable[[Organization, dict[str, Any]], object]) -> Response:
    account = identity.organization(db.session(), account_id)
    place: dict[str, Any] = {"actor": g.actor, "at": clock.now(account)}

    def work() -> str:
        act(account, place)
        return url_for("admin.backfill", account_id=account.id, backfill_id=backfill_id)

    try:
        return once(work)
    except NotFound:
        raise
    except BillingError as error:
        return _show(account, staging.get(db.session(), account.id, backfill_id), error)


def _account(reference: str) -> Organization:
    try:
        return identity.organization_by_reference(db.session(), reference)
    except NotFound as error:
        raise Invalid("There is no such account.", errors=(FieldError("/account", "There is no such account."),)) from error


def _list(form: dict[str, str], errors: dict[str, str] | None = None, status: int = 200) -> Response:
    rows = staging.newest(db.session(), None, limit=SHOWN)
    return page(
        "admin/events/backfills.html",
        status=status,
        current="events",
        rows=rows,
        names=invoicing.owner_names(db.session(), {row.organization_id for row in rows}),
        form=form,
        errors=errors or {},
        events_max=EVENTS_MAX,
        megabytes_max=BYTES_MAX // 2**20,
    )


def _show(account: Organization, found: Backfill, error: BillingError | None = None) -> Response:
    acts = may("events.correct") and not found.refused and found.status in (STAGED, APPLIED)
    work = progress.running(db.session()).get(found.id)
    waits = acts and work is None and error is None and found.events > TRIED_AT_ONCE and "tried" not in request.args
    outcome, refusal = _tried(account, found) if acts and not waits and work is None else (None, "")
    return page(
        "admin/events/backfill.html",
        partial="admin/events/_file_changes.html",
        status=error.status if error else 200,
        current="events",
        account=account,
        zone=account.timezone,
        backfill=found,
        faults=staging.faults(db.session(), found.id) if found.refused else [],
        work=work,
        watched=acts or work is not None,
        reload=work is not None,
        waits=waits,
        outcome=outcome,
        effect=outcome.effect if outcome else None,
        barred=backfill_effect.barred(outcome, g.actor) if outcome and found.status == STAGED else None,
        refusal=refusal,
        errors=field_errors(error) if error else {},
        form=request.form,
    )


def _tried(account: Organization, found: Backfill) -> tuple[Outcome | None, str]:
    """What applying the staged file, or taking the applied one back, would do; or why it cannot be done."""
    place: dict[str, Any] = {"actor": g.actor, "at": clock.now(account), "dry_run": True}
    try:
        with transaction():
            if found.status == STAGED:
                return backfill_effect.apply(db.session(), account.id, found.id, **place), ""
            return backfill_effect.revert(db.session(), account.id, found.id, reason="What taking it back would change.", **place), ""
    except BillingError as error:
        return None, error.message
