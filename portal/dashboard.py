"""The overview: is anything wrong, what has been spent, where will it end, what is it made of, when is it paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from flask import g, url_for
from werkzeug.wrappers import Response

from core import clock, rendering
from core.analytics import spend as analytics
from core.db import db
from core.entitlements import limits
from core.invoicing import account_credits, listing, preview
from core.invoicing.preview import SoFar
from core.invoicing.statement import Group
from core.invoicing.statements import Line
from core.invoicing.usage_cost import UsageCost, open_minor, usage_by_bucket
from core.metering import queries as metering
from core.metering.reading import Question, ask, read
from core.metering.rejections import finding as rejections
from core.money import round_ratio, to_decimal
from core.payments import queries as payments
from core.payments.models import PaymentMethod
from core.periods import Period
from core.pricing.timeline import current_cycle
from core.subscriptions.models import Subscription, SubscriptionStatus
from portal import blueprint
from portal.account import billed_metrics, my_subscription, my_subscriptions, timelines_of
from portal.attention import Problems, problems, stopped
from portal.explorer import days
from portal.spend import Spend, day_chart, spend_of
from web.auth import may, requires
from web.charts import bar_chart
from web.downloads import csv_file
from web.filters import about
from web.htmx import page

LOOK_BACK = timedelta(days=28)
LEGEND = (("s1", "Usage per day"), ("hatched", "Today so far"), ("dashed", "Forecast, with range"))


@blueprint.get("/")
@requires("overview.view")
def overview() -> Response:
    """The whole page; without a plan, how to begin."""
    subscription = my_subscription()
    if subscription is None:
        return page("portal/overview/new.html", current="overview", problems=_problems(None, _methods()))
    spend, methods = _spend(subscription), _methods()
    credit = account_credits.lasting(db.session(), g.organization.id, at=clock.now(g.organization))
    return page(
        "portal/overview/index.html",
        current="overview",
        spend=spend,
        subscription=subscription,
        problems=_problems(subscription, methods),
        credits=account_credits.totals(credit),
        expiring=[left for left in credit if left.expires_at is not None],
        method=next((method for method in methods.values() if method.is_default and method.removed_at is None), None),
        ended=subscription.status == SubscriptionStatus.CANCELED,
        expected_total=_with_tax(spend),
        svg=bar_chart(day_chart(spend.days, spend.today_minor, spend.currency)),
        legend=LEGEND,
        about=about,
    )


@blueprint.get("/spend")
@requires("overview.view")
def spend() -> Response:
    """The headline figures alone, fetched every half minute while somebody looks."""
    subscription = my_subscription()
    if subscription is None:
        return page("portal/overview/new.html", current="overview", problems=_problems(None, _methods()))
    return page(
        "portal/overview/spend.html", partial="portal/overview/_spend.html", current="overview", spend=_spend(subscription), about=about
    )


@blueprint.get("/statement.csv")
@requires("usage.export")
def statement_csv() -> Response:
    """The statement so far as a file. It is not an invoice, and its name says so."""
    subscription = my_subscription()
    head = ("charge", "code", "from", "to", "quantity", "unit", "net", "currency")
    if subscription is None:
        return csv_file("statement-so-far-not-an-invoice", head, ())
    found = ask(db.session(), _so_far(subscription))
    currency = g.organization.currency
    rows: list[tuple[object, ...]] = [
        (
            line.name,
            line.code,
            line.window_start,
            line.window_end,
            line.quantity,
            line.unit,
            to_decimal(line.amount_minor, currency),
            currency,
        )
        for line in found.lines
    ]
    sums = [("Net", found.net_minor), ("Tax", found.tax_minor), ("Total so far", found.total_minor)]
    rows.extend((label, "", None, None, None, "", to_decimal(minor, currency), currency) for label, minor in sums)
    return csv_file("statement-so-far-not-an-invoice", head, rows)


def _so_far(subscription: Subscription) -> Question[SoFar]:
    return preview.question(db.session(), g.organization.id, subscription.id, as_of=clock.now(g.organization), href=_usage_href)


def _spend(subscription: Subscription) -> Spend:
    """The head of the page. Its four questions are read together."""
    session, now, own = db.session(), clock.now(g.organization), timelines_of([subscription])
    fresh = metering.freshness(session, g.organization.id, at=clock.now())
    so_far = _so_far(subscription)
    ahead = analytics.question(session, g.organization.id, subscription.id, as_of=now)
    reached = open_minor(g.organization.id, own, None, currency=g.organization.currency, as_of=now)
    by_day = _days(current_cycle(own[subscription.id], as_of=now))
    usage = read(session, so_far, ahead, reached, by_day)
    found = so_far.answer(usage)
    spend = spend_of(found, fresh, by_day.answer(usage), ahead.answer(usage), reached.answer(usage), organization=g.organization, now=now)
    label = spend.days_before if found.statement.compare_label else ""
    return replace(spend, statement=replace(found.statement, compare_label=label, groups=_in_days(found, now)))


def _in_days(found: SoFar, now: datetime) -> tuple[Group, ...]:
    """The groups, with "1–22 Nov 2026" where a window ends at this very minute."""
    zone = g.organization.timezone
    windows = {(line.window_start, now) for line in found.lines if line.window_start and line.window_end == now}
    words = {rendering.period(start, end, zone, g.organization.locale): days(start, end, zone) for start, end in windows}
    titles = [
        next((group.title.replace(long, short) for long, short in words.items() if long in group.title), group.title)
        for group in found.statement.groups
    ]
    return tuple(replace(group, title=title) for group, title in zip(found.statement.groups, titles, strict=True))


def _with_tax(spend: Spend) -> int:
    """The forecast with tax at the rate of the statement so far, minor units."""
    net, tax = spend.so_far.net_minor, spend.so_far.tax_minor
    expected = spend.forecast.expected_minor if spend.forecast else net
    return expected + (round_ratio(expected * tax, net) if net else 0)


def _days(period: Period | None) -> Question[list[UsageCost]]:
    """Every metric by day, over the running period and at least four weeks, by whose weekdays the days ahead are weighed."""
    metrics, now, organization = billed_metrics(), clock.now(g.organization), g.organization
    if not metrics or period is None:
        return Question(frozenset(), lambda _: [])
    return usage_by_bucket(
        metrics,
        organization.id,
        timelines_of(my_subscriptions()),
        currency=organization.currency,
        start=min(period.start, now - LOOK_BACK),
        end=now,
        timezone=organization.timezone,
        granularity="day",
    )


def _usage_href(line: Line) -> str | None:
    metric = next((metric for metric in billed_metrics() if metric.id == line.metric_id), None)
    return url_for("portal.usage", metric=metric.code) if metric else None


def _methods() -> dict[UUID, PaymentMethod]:
    return payments.all_methods(db.session(), g.organization.id)


def _problems(subscription: Subscription | None, methods: Mapping[UUID, PaymentMethod]) -> Problems:
    """What needs somebody's attention, worst first."""
    now, session = clock.now(g.organization), db.session()
    due = listing.open_invoices(session, g.organization.id)
    last = payments.transactions(session, g.organization.id, invoice_ids=[row.id for row in due]) if due else []
    rejected = rejections.counts(session, g.organization.id, since=clock.now() - timedelta(days=1)) if may("events.view") else {}
    found = problems(
        due,
        last,
        methods,
        rejected,
        subscription,
        now=now,
        organization=g.organization,
    )
    return stopped(limits.stops(session, g.organization.id, now=now), g.organization) + found
