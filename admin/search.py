"""The search box of every page: what goes by these words, grouped by kind; one exact hit opens at once."""

from __future__ import annotations

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from core.analytics import finder
from core.analytics.finder import Hit
from core.db import db
from core.identity import permissions
from web.auth import requires
from web.htmx import page, redirect_to

WORDS_LENGTH_MAX = 255
KINDS = (
    ("account", "Accounts", "accounts.view"),
    ("invoice", "Invoices", "invoices.view"),
    ("subscription", "Subscriptions", "subscriptions.view"),
    ("payment", "Payments", "payments.view"),
    ("method", "Payment methods", "accounts.view"),
    ("key", "API keys", "accounts.view"),
    ("event", "Events", "events.view"),
)


@blueprint.get("/search")
@requires("dashboard.view")
def search() -> Response:
    """Accounts, invoices, subscriptions, payments, cards, keys and events; only what the role may see."""
    words = request.args.get("q", "").replace("\x00", "").strip()[:WORDS_LENGTH_MAX]
    found = finder.find(db.session(), words)
    seen = {kind for kind, _, needed in KINDS if permissions.can(g.role, needed)}
    if found.only is not None and found.only.kind in seen and "all" not in request.args:
        return redirect_to(address(found.only))
    groups = [(title, [hit for hit in found.hits if hit.kind == kind]) for kind, title, _ in KINDS if kind in seen]
    return page(
        "admin/search/index.html",
        current="search",
        q=words,
        groups=[group for group in groups if group[1]],
        address=address,
        events_skipped=found.events_skipped,
    )


def address(hit: Hit) -> str:
    """The page of what was found; a payment's is its invoice's, a card's and a key's their account's."""
    match hit.kind:
        case "invoice":
            return url_for("admin.invoice", invoice_id=hit.id)
        case "subscription":
            return url_for("admin.subscription", subscription_id=hit.id)
        case "payment" if hit.exact:
            return url_for("admin.invoice", invoice_id=hit.id)
        case "event":
            return url_for("admin.event", account_id=hit.organization_id, key=hit.id)
    return url_for("admin.account", account_id=hit.organization_id)
