"""The finance team's site under /admin: one module for each family of pages."""

import importlib
import importlib.util

from flask import Blueprint

blueprint = Blueprint("admin", __name__, url_prefix="/admin")

PAGES = (
    "frame",
    "session",
    "dashboard",
    "search",
    "accounts",
    "account_usage",
    "account_limits",
    "account_actions",
    "subscription_start",
    "subscriptions",
    "subscription_acts",
    "subscription_items",
    "plan_changes",
    "catalog",
    "plan_editor",
    "plan_drafts",
    "simulations",
    "plan_moves",
    "metrics",
    "metric_revisions",
    "runs",
    "invoices",
    "payments",
    "events",
    "event_corrections",
    "rejections",
    "backfills",
    "mails",
    "audit",
    "health",
)
for _name in PAGES:
    if importlib.util.find_spec(f"admin.{_name}"):
        importlib.import_module(f"admin.{_name}")
