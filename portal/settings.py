"""Settings: who is billed and where, who is in the team, what was done to the account."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import g, redirect, request, url_for
from werkzeug.wrappers import Response

from core import audit, clock, config
from core.db import db, transaction
from core.errors import Invalid
from core.identity import organizations, permissions, queries
from core.identity.models import Role
from core.tax import assess, numbers, rates
from portal import blueprint
from web import pagination
from web.audit_view import changes
from web.auth import requires
from web.downloads import csv_file
from web.forms import field_errors
from web.htmx import page, redirect_to

ADDRESS = ("line1", "line2", "postal_code", "city", "state", "country")
KEPT = timedelta(days=396)
SUBJECTS = (
    ("", "Everything"),
    ("invoice", "Invoices"),
    ("subscription", "Subscription"),
    ("payment", "Payments"),
    ("payment_method", "Payment methods"),
    ("api_key", "API keys"),
    ("organization", "Billing details"),
    ("user", "Sign-ins"),
    ("membership", "Team"),
)
MATRIX = (
    ("See usage, plan, invoices", "invoices.view"),
    ("Pay invoices, change payment methods", "invoices.pay"),
    ("Change or cancel the plan", "subscription.change"),
    ("Change billing details", "settings.change"),
    ("Create and revoke API keys, see events", "keys.change"),
    ("Change the team", "team.change"),
    ("Read the audit trail", "audit.view"),
)


@blueprint.get("/settings")
@requires("settings.view")
def settings() -> Response:
    """The first of the settings."""
    return redirect(url_for("portal.billing_details"), 303)


@blueprint.get("/settings/billing")
@requires("settings.view")
def billing_details() -> Response:
    """Name, address, tax id and invoice e-mail, as printed on invoices from now on."""
    organization = g.organization
    values = {"name": organization.name, "billing_email": organization.billing_email, "tax_id": organization.tax_id or ""}
    return _details({**values, **{part: organization.billing_address.get(part) or "" for part in ADDRESS}})


@blueprint.post("/settings/billing")
@requires("settings.change")
def change_billing_details() -> Response:
    """Save them; refused without loss when somebody else has changed them since the form was made."""
    form = {name: request.form.get(name, "").strip() for name in ("name", "billing_email", "tax_id", *ADDRESS)}
    if request.form.get("version") != _version():
        changed = "Somebody has changed these details since you opened the form. Yours are below; save again to replace theirs."
        return _details(form, {"": changed}, status=409)
    changes: dict[str, Any] = {
        "name": form["name"],
        "billing_email": form["billing_email"],
        "billing_address": {part: form[part] for part in ADDRESS if form[part]},
        "tax_id": form["tax_id"] or None,
    }
    try:
        with transaction() as session:
            found = queries.organization(session, g.organization.id)
            organizations.update(session, found, changes, actor=g.actor, at=clock.now(found))
    except Invalid as error:
        return _details(form, {name.removeprefix("billing_address_"): text for name, text in field_errors(error).items()}, status=422)
    return redirect_to(url_for("portal.billing_details", saved=1))


@blueprint.get("/settings/billing/tax")
@requires("settings.view")
def check_tax() -> Response:
    """What tax id and country mean for the next invoice; asked as the field is left."""
    effect = _tax_effect(request.args.get("tax_id", "").strip(), request.args.get("country", ""))
    return page("portal/settings/tax.html", partial="portal/settings/_tax.html", current="settings", tab="billing", tax=effect)


@blueprint.get("/settings/team")
@requires("team.view")
def team() -> Response:
    """The members with their roles, and what each role may do."""
    may = [(what, [permissions.can(role, action) for role in Role]) for what, action in MATRIX]
    members = queries.members(db.session(), g.organization.id)
    return page("portal/settings/team.html", current="settings", tab="team", members=members, roles=list(Role), may_table=may)


@blueprint.get("/settings/audit")
@requires("audit.view")
def audit_trail() -> Response:
    """Who did what to the account, the seller's people included; 13 months."""
    rows = _trail(pagination.PAGE_ROWS + 1)
    found = pagination.paginate(rows, key=lambda row: row.id)
    return page(
        "portal/settings/audit.html",
        partial="portal/settings/_audit_rows.html" if pagination.after() else "portal/settings/_audit.html",
        current="settings",
        tab="audit",
        rows=found,
        changes={row.id: changes(row.data, g.organization.currency) for row in found.rows},
        subjects=SUBJECTS,
        subject=request.args.get("subject", ""),
        announce=f"{len(found.rows)} entries",
    )


@blueprint.get("/settings/audit.csv")
@requires("audit.view")
def audit_csv() -> Response:
    """The same entries as a file, at most 10,000."""
    rows = (
        (row.at, row.actor_kind, row.actor_label, row.kind, row.subject_type, row.subject_id, row.data, row.reason, row.ip, row.request_id)
        for row in _trail(10_000)
    )
    return csv_file(
        "audit-trail", ("at", "actor_kind", "actor", "what", "subject", "subject_id", "data", "reason", "ip", "request_id"), rows
    )


def _trail(limit: int) -> Any:
    chosen = request.args.get("subject", "")
    subject = chosen if chosen in dict(SUBJECTS) else ""
    since = clock.now(g.organization) - KEPT
    after = queries.as_uuid(pagination.after() or "")
    return audit.events(db.session(), g.organization.id, subject=subject, since=since, after=after, limit=limit)


def _version() -> str:
    return g.organization.updated_at.isoformat()


def _details(form: dict[str, str], errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    countries = sorted(organizations.countries().items(), key=lambda item: item[1])
    return page(
        "portal/settings/billing.html",
        status=status,
        errors=errors or {},
        form=form,
        version=_version(),
        countries=countries,
        tax=_tax_effect(form["tax_id"], form["country"]),
        saved="saved" in request.args,
        current="settings",
        tab="billing",
    )


def _tax_effect(tax_id: str, country: str) -> dict[str, Any]:
    """Whether the id's form is right, and the treatment and rate of the next invoice with it."""
    valid = numbers.is_valid(tax_id, country)
    on = clock.now(g.organization).date()
    override = g.organization.tax_rate_percent
    found = assess.assess(config.current().seller.country, country, valid, override, rates.load(db.session()), on) if country else None
    return {"given": bool(tax_id), "valid": valid, "assessment": found}
