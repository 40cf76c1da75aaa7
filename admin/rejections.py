"""Rejected events one by one: looked through, and replayed once the cause is mended."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.events import FIX, FIXES
from core import clock
from core.db import db
from core.errors import BillingError, FieldError, Invalid, NotFound
from core.identity import queries as identity
from core.invoicing import queries as invoicing
from core.metering.rejections import finding, replaying
from core.metering.rejections.finding import OPEN, REPLAYED, Wanted
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page
from web.pagination import PAGE_ROWS, Page, after

TIMES = (("24", "Last 24 hours"), ("168", "Last 7 days"), ("840", "Last 35 days"), ("2160", "Last 90 days"))
STATES = ((OPEN, "Not counted yet"), (REPLAYED, "Replayed"), ("all", "All"))
FIELDS = ("code", "event", "account", "key", "hours", "state")


@blueprint.get("/events/rejected/list")
@requires("events.view")
def rejected_list() -> Response:
    """Rejected events, newest first, by reason, name, account, key and time, each with what became of its replay."""
    return _show(request.args)


@blueprint.post("/events/rejected/replay")
@requires("events.correct")
def replay_rejected() -> Response:
    """Judge the chosen events anew, or all that the filter shows; counted ones are counted once."""
    form = {name: request.form.get(name, "").strip() for name in FIELDS}

    def work() -> str:
        done = replaying.replay(db.session(), _chosen(form), actor=g.actor, at=clock.now())
        told: dict[str, Any] = {"accepted": done.accepted, "refused": len(done.tried) - done.accepted, "left": int(done.left)}
        told |= {name: text for name, text in form.items() if text} | {"state": "all"}
        return url_for("admin.rejected_list", **told)

    try:
        return once(work)
    except BillingError as error:
        return _show(form, error)


def _chosen(form: Mapping[str, str]) -> Wanted:
    if request.form.get("which") == "all":
        return _wanted(form)
    ids = [int(text) for text in request.form.getlist("id") if text.isascii() and text.isdigit() and len(text) < 19]
    if not ids:
        raise Invalid("Nothing was chosen.", errors=(FieldError("/id", "Tick the events that are to be replayed."),))
    return Wanted(ids=tuple(ids))


def _wanted(form: Mapping[str, str]) -> Wanted:
    hours = form.get("hours") if form.get("hours") in dict(TIMES) else "168"
    reference = form.get("account", "").strip()
    account = identity.organization_by_reference(db.session(), reference) if reference else None
    return Wanted(
        account.id if account else None,
        code=form.get("code", "").strip() or None,
        event_name=form.get("event", "").strip() or None,
        idempotency_key=form.get("key", "").strip() or None,
        since=clock.now() - timedelta(hours=int(hours or 168)),
        state=form.get("state") or OPEN,
    )


def _show(form: Mapping[str, str], error: BillingError | None = None) -> Response:
    errors = field_errors(error) if error else {}
    try:
        found = finding.page(db.session(), _wanted(form), cursor=after(), limit=PAGE_ROWS)
    except NotFound:
        found, errors = finding.Page([], None), {**errors, "account": "There is no such account."}
    kept: dict[str, Any] = {name: form.get(name, "") for name in FIELDS}
    more = url_for("admin.rejected_list", **{**kept, "after": found.next_cursor}) if found.next_cursor else None
    return page(
        "admin/events/rejected_list.html",
        partial="admin/events/_rejected_rows.html" if after() else None,
        status=error.status if error else 200,
        current="events",
        rows=Page(found.rows, more),
        names=invoicing.owner_names(db.session(), {row.organization_id for row in found.rows if row.organization_id}),
        form={**kept, "hours": kept["hours"] or "168", "state": kept["state"] or OPEN},
        told={name: int(text) for name in ("accepted", "refused", "left") if (text := form.get(name, "")).isascii() and text.isdigit()},
        times=TIMES,
        states=STATES,
        fixes=FIXES,
        fix=FIX,
        errors=errors,
        events_max=replaying.EVENTS_MAX,
    )
