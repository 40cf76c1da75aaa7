"""The HTTP API under /api/v1: JSON in and out, problem+json for errors, described by its own OpenAPI document.

`contract` declares and carries out endpoints, `reading` reads requests, `call` knows the key; the other modules are one resource each.
"""

import importlib

from flask import Blueprint

from api import contract

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")

MISSING = []
for _name in (
    "organizations",
    "metrics",
    "plans",
    "subscriptions",
    "payments",
    "invoices",
    "plan_changes",
    "usage_reads",
    "api_keys",
    "test_clocks",
):
    try:
        importlib.import_module(f"api.{_name}")
    except ImportError as error:
        MISSING.append((_name, str(error)))
from api import inbound_webhooks, openapi  # noqa: E402

contract.mount(blueprint)
openapi.mount(blueprint)
inbound_webhooks.mount(blueprint)
