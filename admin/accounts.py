"""Accounts: the list, a new one, and the 360 of one: what it spends, owes, pays, uses, was told, and what was done to it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from flask import current_app, g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.account_view import entries, method_name, summary
from core import audit, clock, rendering
from core.analytics import accounts as analytics
from core.analytics import spend
from core.analytics.spend import Forecast
from core.db import db
from core.errors import BillingError
from core.identity import organizations, queries
from core.identity.models import Organization
from core.invoicing import account_credits, preview
from core.invoicing import queries as invoicing
from core.invoicing.models import InvoiceStatus
from core.invoicing.preview import SoFar
from core.invoicing.run_errors import EXPECTED
from core.metering import queries as metering
from core.money import exponent
from core.notifications import queries as notifications
from core.payments import queries as payments
from core.subscriptions import queries as subscriptions
from core.subscriptions.models import Subscription, SubscriptionStatus
from core.tax import numbers
from web import pagination
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page

STATES = (("", "All"), *((state, state.replace("_", " ").replace("method", "payment method").capitalize()) for state in analytics.STATES))
ADDRESS = ("line1", "line2", "postal_code", "city", "state", "country")
SHOWN = 6
TRAIL_READ, TRAIL_SHOWN = 40, 14


@blueprint.get("/accounts")
@requires("accounts.view")
def accounts() -> Response:
    """Newest first; by name, e-mail, tax id, and by what is wrong with them."""
    text, state = request.args.get("q", "").strip()[:200], request.args.get("state", "")
    after = queries.as_uuid(pagination.after() or "")
    limit = pagination.PAGE_ROWS + 1
    rows = analytics.page(db.session(), on=clock.now().date(), text=text, state=state, after=after, limit=limit)
    found = pagination.paginate(rows, key=lambda row: row.organization.id)
    return page(
        "admin/accounts/index.html",
        partial="admin/accounts/_rows.html" if pagination.after() else "admin/accounts/_list.html",
        current="accounts",
        rows=found,
        states=STATES,
        state=state,
        q=text,
        announce=f"{len(found.rows)} accounts",
    )


@blueprint.get("/accounts/new")
@requires("accounts.change")
def new_account() -> Response:
    """The form."""
    return _form({"currency": "EUR", "timezone": "Europe/Berlin", "country": "DE"})


@blueprint.post("/accounts")
@requires("accounts.change")
def create_account() -> Response:
    """Create it; its currency and time zone stay for good."""
    names = ("name", "slug", "billing_email", "currency", "timezone", "external_id", "tax_id", *ADDRESS)
    form = {name: request.form.get(name, "").strip() for name in names}

    def work() -> str:
        made = organizations.create(
            db.session(),
            name=form["name"],
            slug=form["slug"],
            billing_email=form["billing_email"],
            timezone=form["timezone"],
            currency=form["currency"].upper(),
            billing_address={part: form[part] for part in ADDRESS if form[part]},
            external_id=form["external_id"] or None,
            tax_id=form["tax_id"] or None,
            auto_collect="auto_collect" in request.form,
            actor=g.actor,
            at=clock.now(),
        )
        return url_for("admin.account", account_id=made.id)

    try:
        return once(work)
    except BillingError as error:
        errors = {name.removeprefix("billing_address_"): text for name, text in field_errors(error).items()}
        return _form({**form, "auto_collect": request.form.get("auto_collect")}, errors, status=error.status)


@blueprint.get("/accounts/<uuid:account_id>")
@requires("accounts.view")
def account(account_id: UUID) -> Response:
    """The 360. What rating cannot answer is said in its place; the rest of the page stands."""
    session, found = db.session(), queries.organization(db.session(), account_id)
    now = clock.now(found)
    rows = subscriptions.subscriptions(session, account_id, limit=SHOWN)
    sums = analytics.sums(session, account_id, on=rendering.local_day(now, found.timezone))
    so_far, forecast, fault = _running(found, rows, now)
    invoices = invoicing.invoices(session, account_id, limit=SHOWN)
    methods = payments.all_methods(session, account_id)
    default = next((method for method in methods.values() if method.is_default and method.removed_at is None), None)
    issued = [row for row in invoices if row.status in (InvoiceStatus.OPEN, InvoiceStatus.PAID) and row.total_minor > 0]
    credit = account_credits.lasting(session, account_id, at=now)
    return page(
        "admin/accounts/show.html",
        current="accounts",
        account=found,
        zone=found.timezone,
        at=now,
        today=rendering.local_day(now, found.timezone),
        subscriptions=rows,
        running=next((row for row in rows if row.status != SubscriptionStatus.CANCELED), None),
        sums=sums,
        credits=account_credits.totals(credit),
        expiring=next((left for left in credit if left.expires_at is not None), None),
        so_far=so_far,
        forecast=forecast,
        fault=fault,
        invoices=invoices,
        transactions=payments.transactions(session, account_id, limit=SHOWN),
        numbers_of={row.id: row.invoice_number for row in invoices},
        methods=methods,
        method=default,
        method_name=method_name,
        tax_valid=bool(found.tax_id) and numbers.is_valid(found.tax_id or "", found.billing_address.get("country", "")),
        members=queries.members(session, account_id),
        keys=[key for key in queries.api_keys(session, account_id, limit=SHOWN) if key.revoked_at is None],
        fresh=metering.freshness(session, account_id, at=clock.now()),
        summary=summary(issued, sums, default, so_far.statement if so_far else None, found, now.date()),
        whole=exponent(found.currency),
    )


@blueprint.get("/accounts/<uuid:account_id>/mails")
@requires("accounts.view")
def account_mails(account_id: UUID) -> Response:
    """The newest mails to the account, each with its copy as rendered."""
    found = queries.organization(db.session(), account_id)
    rows = notifications.notifications(db.session(), account_id, limit=SHOWN)
    return _section("mails", found, mails=rows)


@blueprint.get("/accounts/<uuid:account_id>/timeline")
@requires("accounts.view")
def account_timeline(account_id: UUID) -> Response:
    """What happened to the account, newest first, in one query."""
    found = queries.organization(db.session(), account_id)
    rows = audit.events(db.session(), account_id, limit=TRAIL_READ)
    return _section("timeline", found, entries=entries(rows, found)[:TRAIL_SHOWN])


def _section(name: str, found: Organization, **context: Any) -> Response:
    """A part of the 360 that comes after the page; opened by itself it is a page too."""
    return page(
        "admin/accounts/section.html",
        partial=f"admin/accounts/_{name}.html",
        current="accounts",
        account=found,
        zone=found.timezone,
        part=f"admin/accounts/_{name}.html",
        **context,
    )


def _running(found: Organization, rows: Any, now: datetime) -> tuple[SoFar | None, Forecast | None, str]:
    """The statement so far and its forecast, or why a subscription cannot be rated."""
    running: Subscription | None = next((row for row in rows if row.status != SubscriptionStatus.CANCELED), rows[0] if rows else None)
    if running is None:
        return None, None, ""
    session = db.session()
    try:
        with session.begin_nested():
            so_far = preview.so_far(session, found.id, running.id, as_of=now)
            return so_far, spend.forecast(session, found.id, running.id, as_of=now), ""
    except EXPECTED as error:
        current_app.logger.exception("subscription %s could not be rated", running.id)
        return None, None, f"{type(error).__name__}: {error}"


def _form(form: dict[str, Any], errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    return page(
        "admin/accounts/new.html",
        status=status,
        current="accounts",
        form=form,
        errors=errors or {},
        zones=[(zone, zone) for zone in sorted(organizations.timezones())],
        countries=sorted(organizations.countries().items(), key=lambda item: item[1]),
    )
