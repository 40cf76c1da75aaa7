"""Correcting one event: what it changes is shown first, then it is done, with the reason it is done for."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.events import LOOK_BACK, LOOK_FURTHER
from admin.reason import why
from core import clock
from core.db import db, transaction
from core.errors import BillingError, FieldError, Invalid, NotFound
from core.identity import queries as identity
from core.identity.models import Organization
from core.invoicing import usage_effect
from core.invoicing.usage_effect import Effect
from core.metering import instants, queries
from core.metering.corrections import events
from core.metering.corrections.events import Amendment
from core.metering.queries import UsageEvent
from core.money import plain
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page


@blueprint.get("/accounts/<uuid:account_id>/event/correct")
@requires("events.correct")
def correct_event(account_id: UUID) -> Response:
    """The form, filled with what the event says."""
    account, key = identity.organization(db.session(), account_id), request.args.get("key", "")
    return _form(account, _event(account, key), key)


@blueprint.post("/accounts/<uuid:account_id>/event/correct")
@requires("events.correct")
def do_correct_event(account_id: UUID) -> Response:
    """Show what it changes, or do it; a refusal is shown on the same page."""
    account, key = identity.organization(db.session(), account_id), request.args.get("key", "")
    found = _event(account, key)

    def work() -> str:
        _carry_out(account, found)
        return url_for("admin.event", account_id=account.id, key=key)

    try:
        if request.form.get("step") == "do":
            return once(work)
        with transaction():
            return _form(account, found, key, effect=_carry_out(account, found, dry_run=True))
    except NotFound:
        raise
    except BillingError as error:
        return _form(account, found, key, error=error)


def _event(account: Organization, key: str) -> UsageEvent:
    now = clock.now(account)
    start, end = now - LOOK_FURTHER, now + LOOK_BACK
    found = queries.events_page(db.session(), account.id, start=start, end=end, idempotency_key=key, limit=1).rows if key else []
    if not found:
        raise NotFound("No event with this idempotency key is counted for this account.")
    event: UsageEvent = found[0]
    return event


def _carry_out(account: Organization, found: UsageEvent, *, dry_run: bool = False) -> Effect:
    given: dict[str, Any] = {"reason": why(), "actor": g.actor, "at": clock.now(account), "dry_run": dry_run}
    if request.form.get("act") == "void":
        return usage_effect.void(db.session(), account.id, found.idempotency_key, **given)[1]
    return usage_effect.amend(db.session(), account.id, found.idempotency_key, _amendment(found), **given)[1]


def _amendment(found: UsageEvent) -> Amendment:
    """What the form says; a part typed as it was shown stays exactly as it is."""
    shown, typed = _shown(found), {name: request.form.get(name, "").strip() for name in ("quantity", "timestamp", "properties")}
    typed["properties"] = typed["properties"].replace("\r\n", "\n")
    changed = {name: text for name, text in typed.items() if text != shown[name]}
    errors = []
    properties = timestamp = None
    try:
        timestamp = instants.instant(instants.parse(changed["timestamp"])) if "timestamp" in changed else None
    except instants.BadTimestamp as error:
        errors.append(FieldError("/timestamp", f"The time {error}."))
    try:
        properties = events.read_properties(changed["properties"]) if "properties" in changed else None
    except Invalid as error:
        errors += error.errors
    if errors:
        raise Invalid("The correction cannot be read.", errors=tuple(errors))
    return Amendment(changed.get("quantity"), timestamp, properties)


def _shown(found: UsageEvent) -> dict[str, str]:
    at = found.timestamp.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return {"quantity": plain(found.quantity.normalize()), "timestamp": at, "properties": json.dumps(found.properties, indent=2)}


def _form(
    account: Organization, found: UsageEvent, key: str, *, effect: Effect | None = None, error: BillingError | None = None
) -> Response:
    return page(
        "admin/events/correct.html",
        status=error.status if error else 200,
        current="events",
        account=account,
        zone=account.timezone,
        key=key,
        event=found,
        effect=effect,
        errors=field_errors(error) if error else {},
        form=request.form if request.method == "POST" else _shown(found),
    )
