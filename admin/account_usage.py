"""What an account's usage cost day by day: one bar a day, a series a metric, the same numbers in a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from werkzeug.wrappers import Response

from admin import blueprint
from core import clock, rendering
from core.db import db
from core.identity import queries
from core.invoicing.usage_cost import UsageCost, usage_costs
from core.money import to_decimal
from core.subscriptions import queries as subscriptions
from core.subscriptions import timeline
from web.auth import requires
from web.charts import Bar, Chart, bar_chart
from web.dates import begins
from web.htmx import page

DAYS = 30
SERIES_MAX = 6


@blueprint.get("/accounts/<uuid:account_id>/usage")
@requires("accounts.view")
def account_usage(account_id: UUID) -> Response:
    """The last 30 days."""
    session, found = db.session(), queries.organization(db.session(), account_id)
    rows, now = subscriptions.subscriptions(session, account_id), clock.now(found)
    codes = list(
        dict.fromkeys(
            rule.metric.code for row in rows for term in reversed(row.terms) for rule in term.plan_version.rules if rule.metric is not None
        )
    )
    start = begins(rendering.local_day(now, found.timezone) - timedelta(days=DAYS - 1), found.timezone)
    costs = (
        usage_costs(
            session,
            account_id,
            {row.id: timeline.terms(timeline.spans(row)) for row in rows},
            metric_codes=codes[:SERIES_MAX],
            currency=found.currency,
            start=start,
            end=now,
            timezone=found.timezone,
            granularity="day",
        )
        if codes
        else []
    )
    chart = daily(costs, found.timezone, now) if any(cost.quantity for cost in costs) else None
    return page(
        "admin/accounts/section.html",
        partial="admin/accounts/_usage.html",
        part="admin/accounts/_usage.html",
        current="accounts",
        account=found,
        zone=found.timezone,
        costs=costs,
        svg=bar_chart(chart) if chart else None,
        days=[bucket.start for bucket in costs[0].buckets] if costs else [],
    )


def daily(costs: Sequence[UsageCost], zone: str, now: datetime) -> Chart:
    """The days as stacked bars, the running one hatched."""
    bars = []
    for index, bucket in enumerate(costs[0].buckets):
        values = tuple(to_decimal(max(0, cost.buckets[index].minor), cost.currency) for cost in costs)
        name = rendering.day_month(bucket.start, zone)
        bars.append(Bar(values, name, name if index % 7 == 0 else "", "partial" if bucket.end >= now else "actual"))
    total = rendering.money(sum(cost.minor for cost in costs), costs[0].currency)
    sentence = f"Usage per day over {len(bars)} days, {total} together. The table below has every number."
    return Chart("account-days", sentence, tuple(bars), tuple(cost.metric.name for cost in costs), axis=_whole)


def _whole(value: Decimal) -> str:
    return f"{value:,f}"
