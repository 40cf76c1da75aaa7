"""What an operator does for an account: start a subscription, write an invoice by hand, make an API key."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.reason import why
from core import audit, clock, rendering
from core.catalog import queries as catalog
from core.db import db, transaction
from core.errors import BillingError, FieldError, Invalid
from core.identity import keys, queries
from core.identity.models import Organization
from core.invoicing import manual
from core.subscriptions import lifecycle
from core.subscriptions.models import AnchorMode
from web.auth import requires
from web.dates import begins, read_day
from web.forms import field_errors, once
from web.htmx import page

LINES_SHOWN = 4
SCOPES = (
    ("usage:write", "Send usage"),
    ("billing:read", "Read billing"),
    ("billing:write", "Change billing, reading included"),
)
LIVES = (("", "No expiry"), ("30", "30 days"), ("90", "90 days"), ("365", "1 year"))
ANCHORS = (
    (AnchorMode.ANNIVERSARY.value, "Anniversary", "Each period begins on the day of the month it started."),
    (AnchorMode.CALENDAR.value, "Calendar", "Periods are whole months; the first one is shorter and charged in proportion."),
)


@blueprint.get("/accounts/<uuid:account_id>/subscriptions/new")
@requires("subscriptions.change")
def new_subscription(account_id: UUID) -> Response:
    """The form."""
    return _subscription_form(_account(account_id))


@blueprint.post("/accounts/<uuid:account_id>/subscriptions")
@requires("subscriptions.change")
def start_subscription(account_id: UUID) -> Response:
    """Start it; the first invoice follows within seconds."""
    found = _account(account_id)

    def work() -> str:
        days = request.form.get("trial_period_days", "").strip()
        begun = lifecycle.start(
            db.session(),
            account_id,
            plan=request.form.get("plan", ""),
            at=clock.now(found),
            actor=g.actor,
            start_at=_starts(found),
            anchor=request.form.get("anchor", AnchorMode.ANNIVERSARY),
            quantity=request.form.get("quantity", "").strip() or 1,
            trial_period_days=_whole(days) if days else None,
            billing_day=_billing_day(),
            trial_end_without_method=request.form.get("trial_end_without_method") or None,
        )
        return url_for("admin.subscription", subscription_id=begun.id)

    try:
        return once(work)
    except BillingError as error:
        return _subscription_form(found, field_errors(error), status=error.status)


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


def _starts(found: Organization) -> datetime | None:
    """The first instant of the day typed; None means now."""
    typed = request.form.get("start", "").strip()
    day = read_day(typed)
    if typed and day is None:
        raise Invalid("The day cannot be read.", errors=(FieldError("/start", "Enter the day it starts."),))
    if day is None or day == rendering.local_day(clock.now(found), found.timezone):
        return None
    return begins(day, found.timezone)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        raise Invalid("The trial cannot be read.", errors=(FieldError("/trial_period_days", "Enter a whole number of days."),))
    return int(text)


def _billing_day() -> int | None:
    typed = request.form.get("billing_day", "").strip()
    if typed and (not typed.isascii() or not typed.isdigit() or not 1 <= int(typed[:4]) <= 31):
        raise Invalid("The day cannot be read.", errors=(FieldError("/billing_day", "Enter a day of the month, 1 to 31."),))
    return int(typed) if typed else None


def _typed_lines() -> list[dict[str, str]]:
    names = ("description", "quantity", "unit_price", "unit")
    columns = [request.form.getlist(name) for name in names]
    rows = max((len(column) for column in columns), default=0)
    return [
        {name: (column[row].strip() if row < len(column) else "") for name, column in zip(names, columns, strict=True)}
        for row in range(rows)
    ]


def _subscription_form(found: Organization, errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    versions = catalog.live_versions(db.session(), currency=found.currency, public=None)
    if not versions and not errors:
        errors = {"": f"No plan is offered in {found.currency}. Publish one first."}
    return page(
        "admin/accounts/subscribe.html",
        status=status,
        current="accounts",
        account=found,
        form=request.form,
        errors=errors or {},
        versions=versions,
        anchors=ANCHORS,
        today=rendering.local_day(clock.now(found), found.timezone),
    )


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
