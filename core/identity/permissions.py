"""Who may do what: one table from role to actions, for members (portal) and operators (admin), and one for API key scopes. Pure."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from core.identity.models import OperatorRole, Role


class Scope(StrEnum):
    """What an API key may do."""

    USAGE_WRITE = "usage:write"
    BILLING_READ = "billing:read"
    BILLING_WRITE = "billing:write"
    ADMIN = "admin"


IMPLIED: dict[str, frozenset[str]] = {
    Scope.USAGE_WRITE: frozenset({Scope.USAGE_WRITE}),
    Scope.BILLING_READ: frozenset({Scope.BILLING_READ}),
    Scope.BILLING_WRITE: frozenset({Scope.BILLING_READ, Scope.BILLING_WRITE}),
    Scope.ADMIN: frozenset(Scope),
}

_LOOK = frozenset(
    {
        "overview.view",
        "usage.view",
        "usage.export",
        "invoices.view",
        "subscription.view",
        "payment_methods.view",
        "settings.view",
        "team.view",
    }
)
_DEVELOP = frozenset({"keys.view", "keys.change", "events.view", "events.send"})
_PAY = frozenset(
    {
        "subscription.change",
        "subscription.cancel",
        "invoices.pay",
        "payment_methods.change",
        "settings.change",
        "alerts.change",
    }
)

_READ = frozenset(
    {
        "dashboard.view",
        "accounts.view",
        "subscriptions.view",
        "catalog.view",
        "invoices.view",
        "runs.view",
        "payments.view",
        "events.view",
        "jobs.view",
    }
)
_DRAFTS = frozenset(
    {
        "accounts.change",
        "invoices.draft",
        "runs.start",
        "runs.review",
        "subscriptions.change",
        "simulations.start",
        "moves.preview",
        "events.correct",
    }
)
_MONEY = _DRAFTS | {
    "invoices.finalize",
    "invoices.void",
    "invoices.write_off",
    "runs.finalize",
    "moves.start",
    "payments.collect",
    "payments.record",
    "refunds.request",
}

ROLES: dict[str, frozenset[str]] = {
    Role.OWNER: _LOOK | _DEVELOP | _PAY | {"team.change", "audit.view"},
    Role.BILLING: _LOOK | _PAY,
    Role.DEVELOPER: _LOOK | _DEVELOP,
    Role.VIEWER: _LOOK,
    OperatorRole.SUPPORT: _READ - {"jobs.view"},
    OperatorRole.BILLING_OPS: _READ | _DRAFTS,
    OperatorRole.FINANCE: _READ | _MONEY | {"audit.view"},
    OperatorRole.FINANCE_APPROVER: _READ | {"audit.view", "refunds.approve", "approvals.decide", "catalog.publish"},
    OperatorRole.CATALOG_ADMIN: _READ | {"catalog.change", "catalog.publish", "simulations.start", "moves.preview"},
    OperatorRole.USER_ADMIN: frozenset({"dashboard.view", "operators.view", "operators.change", "audit.view"}),
    OperatorRole.AUDITOR: _READ | {"audit.view", "operators.view"},
    OperatorRole.OPERATOR: frozenset({"dashboard.view", "jobs.view", "jobs.change", "events.view"}),
}
ACTIONS: frozenset[str] = frozenset().union(*ROLES.values())


def can(role: str, action: str) -> bool:
    """Whether `role` (a Role or OperatorRole) may do `action`; ValueError for an action no role has, which is a misspelling."""
    if action not in ACTIONS:
        raise ValueError(f"no role may ever do {action!r}")
    return action in ROLES.get(role, frozenset())


def scope_allows(scopes: Collection[str], needed: str) -> bool:
    """Whether a key with `scopes` may do what needs the scope `needed`: writing implies reading, admin implies all."""
    return any(needed in IMPLIED.get(scope, frozenset()) for scope in scopes)
