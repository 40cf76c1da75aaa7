"""The HTTP API under /api/v1: JSON in and out, problem+json for errors, described by its own OpenAPI document.

`contract` declares endpoints, `execution` carries them out, `reading` reads requests, `call` knows the key; `usage` takes events in
front of Flask; the other modules are one resource each.
"""

from flask import Blueprint

from api import (
    account_credits,
    api_keys,
    entitlements,
    execution,
    inbound_webhooks,
    invoice_replay,
    invoices,
    limits,
    metric_revisions,
    metrics,
    openapi,
    organizations,
    payments,
    plan_changes,
    plan_drafts,
    plan_moves,
    plans,
    price_simulations,
    subscription_acts,
    subscription_items,
    subscriptions,
    test_clocks,
    usage_backfills,
    usage_corrections,
    usage_reads,
    usage_rejections,
    usage_summary,
    what_if,
)

RESOURCES = (
    organizations,
    metrics,
    metric_revisions,
    plans,
    plan_drafts,
    price_simulations,
    plan_moves,
    subscriptions,
    plan_changes,
    subscription_acts,
    subscription_items,
    what_if,
    invoices,
    invoice_replay,
    payments,
    account_credits,
    usage_reads,
    usage_rejections,
    usage_summary,
    usage_corrections,
    usage_backfills,
    entitlements,
    limits,
    api_keys,
    test_clocks,
)
"""Importing them declares their endpoints."""

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")
execution.mount(blueprint)
openapi.mount(blueprint)
inbound_webhooks.mount(blueprint)
usage_backfills.mount(blueprint)
