"""What several pages ask about the signed-in account, read once a request."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from flask import g

from core.db import db
from core.metering.models import Metric
from core.periods import Period
from core.pricing.terms import Term
from core.pricing.timeline import current_cycle
from core.subscriptions import queries as subscriptions
from core.subscriptions import timeline
from core.subscriptions.models import Subscription, SubscriptionStatus


def my_subscriptions() -> list[Subscription]:
    """The account's subscriptions, newest first, with terms, versions and prices."""
    if "subscriptions" not in g:
        g.subscriptions = list(subscriptions.subscriptions(db.session(), g.organization.id))
    return g.subscriptions


def my_subscription() -> Subscription | None:
    """The subscription the pages are about: the newest that is not cancelled, else the one that ended last, else None."""
    rows = sorted(my_subscriptions(), key=lambda row: (row.started_at, row.id), reverse=True)
    return next((row for row in rows if row.status != SubscriptionStatus.CANCELED), rows[0] if rows else None)


def billed_metrics() -> list[Metric]:
    """The metrics the account's plans charge for, those of the newest plan first."""
    found: dict[str, Metric] = {}
    for row in my_subscriptions():
        for term in reversed(row.terms):
            for rule in term.plan_version.rules:
                if rule.metric is not None:
                    found.setdefault(rule.metric.code, rule.metric)
    return list(found.values())


def timelines_of(rows: list[Subscription]) -> dict[UUID, tuple[Term, ...]]:
    """The timelines of subscriptions, by id."""
    return {row.id: timeline.terms(timeline.spans(row)) for row in rows}


def periods(rows: list[Subscription], now: datetime) -> tuple[Period, Period | None]:
    """The billing period at `now` and the one before it, of the newest subscription that runs then; 30 days without one."""
    for terms in timelines_of(rows).values():
        running = current_cycle(terms, as_of=now)
        if running is not None:
            return running, current_cycle(terms, as_of=running.start - timedelta(microseconds=1))
    return Period(now - timedelta(days=30), now), None
