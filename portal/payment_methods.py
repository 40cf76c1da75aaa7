"""Payment methods: save one on the provider's page, choose the default, remove; or pay by wire. No card number ever passes here."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from flask import current_app, g, request, url_for
from werkzeug.wrappers import Response

from core import clock
from core.db import db, transaction
from core.errors import Conflict, NotFound
from core.payments import methods, queries, setups
from core.payments.models import PaymentMethod
from portal import blueprint
from web.auth import requires
from web.htmx import page, redirect_to
from web.shell import same_site_path

SOON = timedelta(days=60)


@blueprint.get("/payment-methods")
@requires("payment_methods.view")
def payment_methods() -> Response:
    """The saved methods in the order we try them, and how to pay by wire."""
    return _methods()


@blueprint.post("/payment-methods")
@requires("payment_methods.change")
def begin_setup() -> Response:
    """Open the provider's page and show the way there: a form may not be redirected off this site (CSP form-action)."""
    back = url_for("portal.finish_setup", _external=True)
    started = setups.start(
        g.organization.id,
        success_url=f"{back}?session_id={{SESSION_ID}}",
        cancel_url=url_for("portal.payment_methods", _external=True),
        at=clock.now(g.organization),
        return_to=same_site_path(request.form.get("next", "")) if request.form.get("next") else "",
    )
    return redirect_to(url_for("portal.continue_setup", attempt_id=started.id))


@blueprint.get("/payment-methods/setup/<uuid:attempt_id>")
@requires("payment_methods.change")
def continue_setup(attempt_id: UUID) -> Response:
    """A plain link to the provider's page; reloading finds the same page again."""
    url = setups.page_url(g.organization.id, attempt_id)
    if url is None:
        return redirect_to(url_for("portal.payment_methods"))
    return page("portal/payment_methods/setup.html", current="payment", url=url, host=urlsplit(url).hostname)


@blueprint.get("/payment-methods/return")
@requires("payment_methods.change")
def finish_setup() -> Response:
    """Back from the provider's page: keep what was saved there. The provider's own event does the same, whoever comes first."""
    session_id = request.args.get("session_id", "")
    method = setups.complete(session_id, at=clock.now(g.organization), actor=g.actor, organization_id=g.organization.id)
    if method is None:
        return redirect_to(url_for("portal.payment_methods", unfinished=1))
    target = setups.way_back(g.organization.id, session_id)
    return redirect_to(same_site_path(target) if target else url_for("portal.payment_methods", saved=method.id))


@blueprint.post("/payment-methods/<uuid:method_id>/default")
@requires("payment_methods.change")
def make_default_method(method_id: UUID) -> Response:
    """Charge this one from now on."""
    with transaction() as session:
        methods.set_default(session, g.organization.id, method_id, at=clock.now(g.organization), actor=g.actor)
    return redirect_to(url_for("portal.payment_methods", default=method_id))


@blueprint.get("/payment-methods/<uuid:method_id>/removal")
@requires("payment_methods.change")
def confirm_removal(method_id: UUID) -> Response:
    """What removing means, and the button."""
    found = methods_by_id().get(method_id) or _missing()
    return page(
        "portal/payment_methods/remove.html",
        partial="portal/payment_methods/_remove.html",
        current="payment",
        method=found,
        name=method_name(found),
    )


@blueprint.post("/payment-methods/<uuid:method_id>/removal")
@requires("payment_methods.change")
def remove_method(method_id: UUID) -> Response:
    """Forget it here and at the provider; refused with the reason for the last one that is needed."""
    try:
        methods.remove(g.organization.id, method_id, at=clock.now(g.organization), actor=g.actor)
    except Conflict as refusal:
        return _methods({"": refusal.message}, status=409)
    return redirect_to(url_for("portal.payment_methods", removed=1))


def method_name(method: PaymentMethod | None) -> str:
    """How a method is called everywhere: "Visa •• 4242"."""
    if method is None:
        return "no payment method"
    brand = (method.brand or method.type).replace("_", " ")
    shown = {"visa": "Visa", "mastercard": "Mastercard", "amex": "American Express", "sepa debit": "SEPA debit"}.get(
        brand, brand.capitalize()
    )
    return f"{shown} •• {method.last_four}" if method.last_four else shown


def methods_by_id() -> dict[UUID, PaymentMethod]:
    """The account's saved methods, the default first."""
    return {method.id: method for method in queries.methods(db.session(), g.organization.id)}


def expiry(method: PaymentMethod, on: date) -> tuple[str, str]:
    """The expiry in words and its tone: "" fine, "warn" within 60 days, "bad" past."""
    if method.exp_month is None or method.exp_year is None:
        return "", ""
    after = date(method.exp_year + method.exp_month // 12, method.exp_month % 12 + 1, 1)
    words = f"{method.exp_month:02d}/{method.exp_year}"
    return words, "bad" if after <= on else "warn" if after - SOON <= on else ""


def _methods(errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    on = clock.now(g.organization).date()
    used = queries.last_use(db.session(), g.organization.id)
    rows: list[dict[str, Any]] = [
        {"row": method, "name": method_name(method), "expiry": expiry(method, on), "used": used.get(method.id)}
        for method in methods_by_id().values()
    ]
    return page(
        "portal/payment_methods/index.html",
        status=status,
        current="payment",
        rows=rows,
        errors=errors or {},
        seller=current_app.config["SETTINGS"].seller,
        saved="saved" in request.args,
        removed="removed" in request.args,
        unfinished="unfinished" in request.args,
        back=request.args.get("next", ""),
    )


def _missing() -> PaymentMethod:
    raise NotFound("There is no such payment method.")
