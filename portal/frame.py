"""The frame of the customer's pages: navigation, account, member, and what every template knows."""

from __future__ import annotations

from typing import Any

from flask import current_app, g, url_for
from werkzeug.local import LocalProxy

from core import clock
from core.db import db
from core.invoicing import listing
from portal import blueprint
from portal.account import my_subscription
from portal.payment_methods import method_name
from web.shell import NavGroup, NavItem, Shell, default_shell

SECTIONS = (
    ("overview", "Overview", "portal.overview", "home"),
    ("usage", "Usage", "portal.usage", "usage"),
    ("invoices", "Invoices", "portal.invoices", "invoice"),
    ("plan", "Plan", "portal.plan", "plan"),
    ("payment", "Payment", "portal.payment_methods", "card"),
    ("limits", "Limits", "portal.limits_and_alerts", "bell"),
    ("settings", "Settings", "portal.billing_details", "settings"),
)
ASK = {
    "subscription.change": "Ask an owner or billing member",
    "invoices.pay": "Ask an owner or billing member",
    "keys.change": "Ask an owner or developer",
}


@blueprint.context_processor
def frame() -> dict[str, Any]:
    """`organization`, `zone` and `currency` of the account, `now` as it lives it, `ask` for who may do what, and the lazy `shell`."""
    organization = g.get("organization")
    if organization is None:
        return {}
    return {
        "shell": LocalProxy(_shell),
        "organization": organization,
        "zone": organization.timezone,
        "currency": organization.currency,
        "now": clock.now(organization),
        "ask": ASK,
        "method_name": method_name,
    }


def _shell() -> Shell:
    """Read once a page, and only when a whole page is rendered."""
    if "shell" not in g:
        organization, settings = g.organization, current_app.config["SETTINGS"]
        subscription = my_subscription()
        g.shell = Shell(
            brand=default_shell().brand,
            home_href=url_for("portal.overview"),
            groups=(NavGroup(_items(subscription is None)),),
            account_name=organization.name,
            account_detail=f"{subscription.plan.name} plan" if subscription else "No plan yet",
            member_name=g.user.name,
            member_detail=g.role.capitalize(),
            sign_out_action=url_for("portal.end_session"),
            help_href=f"mailto:{settings.seller.email}",
            test_mode=organization.frozen_time is not None and not settings.production,
        )
    return g.shell


def _items(new: bool) -> tuple[NavItem, ...]:
    overdue = listing.overdue_count(db.session(), g.organization.id, on=clock.now(g.organization))
    start = (NavItem("start", "Get started", url_for("portal.start"), "check"),) if new else ()
    return start + tuple(
        NavItem(key, label, url_for(endpoint), icon, *((f"{overdue} overdue", True) if key == "invoices" and overdue else ()))
        for key, label, endpoint, icon in SECTIONS
    )
