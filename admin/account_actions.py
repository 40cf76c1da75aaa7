"""What an operator does for an account: write an invoice by hand, make an API key."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.reason import why
from core import audit, clock
from core.db import db, transaction
from core.errors import BillingError, Invalid
from core.identity import keys, queries
from core.identity.models import Organization
from core.invoicing import manual
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page

LINES_SHOWN = 4
SCOPES = (
    ("usage:write", "Send usage"),
    ("billing:read", "Read billing"),
    ("billing:write", "Change billing, reading included"),
)
LIVES = (("", "No expiry"), ("30", "30 days"), ("90", "90 days"), ("365", "1 year"))


@blueprint.get("/accounts/<uuid:account_id>/invoices/new")
@requires("invoices.draft")
def new_invoice(account_id: UUID) -> Response:
    """The form."""
    return _invoice_form(_account(account_id))


@blueprint.post("/accounts/<uuid:account_id>/invoices")
@requires("invoices.draft")
def write_invoice(account_id: UUID) -> Response:
    """A draft with the lines typed; finance finalizes it on its page."""
    found = _account(account_id)

    def work() -> str:
        reason = why()
        lines = [line for line in _typed_lines() if any(line.values())]
        draft = manual.create(
            db.session(),
            account_id,
            lines=[{name: text for name, text in line.items() if text} for line in lines],
            at=clock.now(found),
            actor=g.actor,
            po_number=request.form.get("po_number", "").strip()[:100] or None,
            memo=request.form.get("memo", "").strip()[:1000] or None,
        )
        audit.record(db.session(), g.actor, "invoice.requested", draft, at=clock.now(found), reason=reason)
        return url_for("admin.invoice", invoice_id=draft.id)

    try:
        return once(work)
    except BillingError as error:
        return _invoice_form(found, field_errors(error), status=error.status)


@blueprint.get("/accounts/<uuid:account_id>/keys/new")
@requires("accounts.change")
def new_account_key(account_id: UUID) -> Response:
    """The form."""
    return _key_form(_account(account_id))


@blueprint.post("/accounts/<uuid:account_id>/keys")
@requires("accounts.change")
def create_account_key(account_id: UUID) -> Response:
    """Make the key and show its secret, this once: it is in this answer and nowhere else."""
    found, at, days = _account(account_id), clock.now(), request.form.get("days", "")
    try:
        with transaction() as session:
            key, token = keys.create(
                session,
                organization_id=account_id,
                name=request.form.get("name", ""),
                mode=request.form.get("mode", "live"),
                scopes=[scope for scope, _ in SCOPES if scope in request.form.getlist("scopes")],
                actor=g.actor,
                at=at,
                expires_at=at + timedelta(days=int(days)) if days and days in dict(LIVES) else None,
            )
    except Invalid as error:
        return _key_form(found, field_errors(error), status=error.status)
    return page("admin/accounts/key_created.html", current="accounts", account=found, key=key, token=token)


def _account(account_id: UUID) -> Organization:
    return queries.organization(db.session(), account_id)


def _typed_lines() -> list[dict[str, str]]:
    names = ("description", "quantity", "unit_price", "unit")
    columns = [request.form.getlist(name) for name in names]
    rows = max((len(column) for column in columns), default=0)
    return [
        {name: (column[row].strip() if row < len(column) else "") for name, column in zip(names, columns, strict=True)}
        for row in range(rows)
    ]


def _invoice_form(found: Organization, errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    typed = _typed_lines()
    blank: dict[str, str] = {}
    return page(
        "admin/accounts/invoice.html",
        status=status,
        current="accounts",
        account=found,
        form=request.form,
        errors=errors or {},
        lines=typed + [blank] * max(1, LINES_SHOWN - len(typed)),
    )


def _key_form(found: Organization, errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    context: dict[str, Any] = {"account": found, "form": request.form, "errors": errors or {}, "scopes": SCOPES, "lives": LIVES}
    chosen = request.form.getlist("scopes") or ["usage:write"]
    return page("admin/accounts/key.html", status=status, current="accounts", chosen=chosen, **context)
