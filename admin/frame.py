"""The frame of the finance site's pages: grouped navigation, search, operator, and what every template knows."""

from __future__ import annotations

from typing import Any

from flask import current_app, g, url_for
from werkzeug.local import LocalProxy

from admin import blueprint
from core import clock
from core.analytics import work
from core.db import db
from core.identity import permissions
from web.shell import NavGroup, NavItem, Shell, default_shell

SECTIONS = (
    ("Work", (("dashboard", "Dashboard", "home"), ("runs", "Invoice runs", "run"), ("payments", "Payments", "card"))),
    ("Customers", (("accounts", "Accounts", "users"), ("subscriptions", "Subscriptions", "calendar"), ("invoices", "Invoices", "invoice"))),
    (
        "Catalogue",
        (
            ("catalog", "Plans and prices", "plan"),
            ("simulations", "Price simulations", "scale"),
            ("moves", "Plan moves", "up-down"),
            ("metrics", "Metrics", "usage"),
        ),
    ),
    ("Data", (("events", "Events", "activity"), ("mails", "Mails", "mail"))),
    ("System", (("health", "Health", "heart"), ("audit", "Audit", "list"))),
)
"""(group, entries); an entry is (key, label, icon). Its page is the endpoint `admin.KEY`; what a role may not see is left out."""
NEEDS = {
    "dashboard": "dashboard.view",
    "runs": "runs.view",
    "payments": "payments.view",
    "accounts": "accounts.view",
    "subscriptions": "subscriptions.view",
    "invoices": "invoices.view",
    "catalog": "catalog.view",
    "simulations": "catalog.view",
    "moves": "catalog.view",
    "metrics": "catalog.view",
    "events": "events.view",
    "mails": "accounts.view",
    "health": "jobs.view",
    "audit": "audit.view",
}


@blueprint.context_processor
def frame() -> dict[str, Any]:
    """`shell` (read only when a whole page is rendered) and `now` for every template of the site."""
    return {"shell": LocalProxy(_shell), "now": clock.now()} if g.get("user") is not None else {}


def _shell() -> Shell:
    if "shell" not in g:
        settings = current_app.config["SETTINGS"]
        g.shell = Shell(
            brand=default_shell().brand,
            home_href=_address("dashboard"),
            groups=tuple(_groups()),
            member_name=g.user.name,
            member_detail=g.role.replace("_", " ").capitalize(),
            sign_out_action=url_for("admin.end_session"),
            search_href=_address("search"),
            test_mode=not settings.production,
        )
    return g.shell


def _groups() -> list[NavGroup]:
    groups = []
    for title, entries in SECTIONS:
        seen = tuple(
            NavItem(key, label, _address(key), icon, _count() if key == "runs" else "")
            for key, label, icon in entries
            if permissions.can(g.role, NEEDS[key])
        )
        groups.append(NavGroup(seen, title))
    return [group for group in groups if group.items]


def _count() -> str:
    """How many drafts wait for a person."""
    waiting = work.drafts_waiting(db.session())
    return f"{waiting:,}" if waiting else ""


def _address(key: str) -> str:
    return url_for(f"admin.{key}") if f"admin.{key}" in current_app.view_functions else "/admin/"
