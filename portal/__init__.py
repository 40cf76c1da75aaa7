"""The customer's site under /portal: one module for each family of pages."""

from flask import Blueprint

blueprint = Blueprint("portal", __name__, url_prefix="/portal")

from portal import (  # noqa: E402
    add_ons,
    dashboard,
    events,
    frame,
    invoices,
    keys,
    limits,
    payment_methods,
    plan,
    plan_acts,
    plan_change,
    session,
    settings,
    start,
    usage,
)

__all__ = [
    "add_ons",
    "blueprint",
    "dashboard",
    "events",
    "frame",
    "invoices",
    "keys",
    "limits",
    "payment_methods",
    "plan",
    "plan_acts",
    "plan_change",
    "session",
    "settings",
    "start",
    "usage",
]
