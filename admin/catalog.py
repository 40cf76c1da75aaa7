"""The catalogue: plans, their versions and what changed between them, drafts of the next ones, metrics."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from werkzeug.wrappers import Response

from admin import blueprint
from admin.plan_compare import Comparison, compare, said
from admin.plan_editor import DRAFT_STATUSES, known_metrics
from core.catalog import drafts, queries
from core.catalog.models import PlanVersion, PricingRule
from core.db import db
from core.metering import metrics as metering
from core.subscriptions.queries import counts_by_version
from web.auth import requires
from web.htmx import page
from web.plan_words import rule_words
from web.price_words import Words

METRICS_MAX = 1_000


@blueprint.get("/catalog")
@requires("catalog.view")
def catalog() -> Response:
    """Every plan with the version on offer and how many subscriptions it has."""
    plans = queries.plans(db.session(), active=None, limit=200)
    counts = counts_by_version(db.session())
    used = {plan.id: sum(counts.get(version.id, 0) for version in plan.versions) for plan in plans}
    return page(
        "admin/catalog/index.html", current="catalog", plans=plans, used=used, drafts=drafts.page(db.session()), statuses=DRAFT_STATUSES
    )


@blueprint.get("/catalog/metrics")
@requires("catalog.view")
def metrics() -> Response:
    """What is measured, and how events become a quantity."""
    return page("admin/catalog/metrics.html", current="metrics", metrics=metering.page(db.session(), limit=METRICS_MAX))


@blueprint.get("/catalog/plans/<code>")
@requires("catalog.view")
def plan(code: str) -> Response:
    """One plan: its versions, newest first, each with what changed since the one before."""
    found = queries.plan(db.session(), code)
    versions = sorted(found.versions, key=lambda version: version.version, reverse=True)
    return page(
        "admin/catalog/plan.html",
        current="catalog",
        plan=found,
        versions=versions,
        differences=_differences(versions),
        drafts=drafts.page(db.session(), plan_code=found.code),
        statuses=DRAFT_STATUSES,
        counts=counts_by_version(db.session()),
        entitled=_entitled,
        by_currency=_by_currency,
        words={rule.id: _words(rule, found.currency) for version in versions for rule in version.rules},
    )


def _words(rule: PricingRule, currency: str) -> Words:
    """A price as customers read it."""
    return rule_words(rule, rule.currency or currency, rule.metric.unit if rule.metric else "")


def _by_currency(version: PlanVersion) -> list[tuple[str, list[PricingRule]]]:
    """The price list in each currency, the plan's own first."""
    currencies = dict.fromkeys((None, *(rule.currency for rule in version.rules)))
    return [(currency or version.plan.currency, [rule for rule in version.rules if rule.currency == currency]) for currency in currencies]


def _entitled(version: PlanVersion) -> list[tuple[str, str]]:
    """Features and limits, a pair each."""
    return [(name.replace("_", " ").capitalize(), said(value)) for name, value in {**version.limits, **version.features}.items()]


def _differences(versions: list[PlanVersion]) -> dict[Any, Comparison]:
    """By version id, what changed since the version before; the oldest has nothing to compare with."""
    metrics = known_metrics()
    return {new.id: compare(old, new, {}, metrics, {}) for new, old in pairwise(versions)}
