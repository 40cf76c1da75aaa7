"""API keys: create one (its secret is shown once), see what they are used for, revoke."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from core import clock
from core.db import db, transaction
from core.errors import Invalid, NotFound
from core.identity import keys, queries
from core.identity.models import ApiKey
from portal import blueprint
from web.auth import requires
from web.forms import field_errors
from web.htmx import page, redirect_to

SCOPES = (
    ("usage:write", "Send usage", "What your product needs to report events."),
    ("billing:read", "Read billing", "Usage, invoices, plan and payment methods."),
    ("billing:write", "Change billing", "Plan changes, payments, payment methods. Includes reading."),
)
LIVES = (("", "No expiry"), ("30", "30 days"), ("90", "90 days"), ("365", "1 year"))


@blueprint.get("/settings/keys")
@requires("keys.view")
def api_keys() -> Response:
    """The account's keys, newest first; revoked ones below."""
    rows = queries.api_keys(db.session(), g.organization.id)
    return page("portal/keys/index.html", current="settings", tab="keys", keys=rows, at=clock.now())


@blueprint.get("/settings/keys/new")
@requires("keys.change")
def new_api_key() -> Response:
    """The form."""
    return _form()


@blueprint.post("/settings/keys")
@requires("keys.change")
def create_api_key() -> Response:
    """Create the key and show its secret, this once: it is in this answer and nowhere else."""
    at, days = clock.now(), request.form.get("days", "")
    lives = timedelta(days=int(days)) if days in dict(LIVES) and days else None
    scopes = [scope for scope, _, _ in SCOPES if scope in request.form.getlist("scopes")]
    try:
        with transaction() as session:
            key, token = keys.create(
                session,
                organization_id=g.organization.id,
                name=request.form.get("name", ""),
                mode=request.form.get("mode", "live"),
                scopes=scopes,
                actor=g.actor,
                at=at,
                expires_at=at + lives if lives else None,
            )
    except Invalid as error:
        return _form(field_errors(error), status=422)
    return page("portal/keys/created.html", current="settings", tab="keys", key=key, token=token)


@blueprint.get("/settings/keys/<uuid:key_id>/revocation")
@requires("keys.change")
def confirm_revocation(key_id: UUID) -> Response:
    """What revoking will break, and the button."""
    return page("portal/keys/revoke.html", partial="portal/keys/_revoke.html", current="settings", tab="keys", key=_key(key_id))


@blueprint.post("/settings/keys/<uuid:key_id>/revocation")
@requires("keys.change")
def revoke_api_key(key_id: UUID) -> Response:
    """End the key at once."""
    with transaction() as session:
        keys.revoke(session, g.organization.id, key_id, actor=g.actor, at=clock.now())
    return redirect_to(url_for("portal.api_keys"))


def _key(key_id: UUID) -> ApiKey:
    found = next((key for key in queries.api_keys(db.session(), g.organization.id) if key.id == key_id), None)
    if found is None:
        raise NotFound("There is no such API key.")
    return found


def _form(errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    chosen = request.form.getlist("scopes") or ["usage:write"]
    return page(
        "portal/keys/new.html",
        status=status,
        errors=errors or {},
        form=request.form,
        chosen=chosen,
        current="settings",
        tab="keys",
        scopes=SCOPES,
        lives=LIVES,
    )
