"""The dashboard: what needs a person today, then how billing goes, and whether usage comes in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from flask import g, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response

from admin import blueprint
from core import clock, rendering
from core.analytics import billing, work
from core.analytics.work import Work
from core.db import db
from core.identity import permissions
from core.metering import queries as metering
from core.metering import watch
from core.money import exponent, to_decimal
from core.notifications import queries as notifications
from web.auth import requires
from web.charts import Bar, Chart, bar_chart, sparkline, stacked_bar
from web.htmx import page

MONTHS = 12
THOUSANDS_FROM = 10_000
DAY = timedelta(days=1)
DRAFTS = {
    "start": "first charges",
    "period": "renewals",
    "change": "plan changes",
    "termination": "final invoices",
    "manual": "written by hand",
}
AGE_FILLS = ("f-mut", "f-c1 f-soft", "f-c1", "f-bad f-softer", "f-bad")
QUEUE: dict[str, tuple[str, str, str, str, str, dict[str, Any]]] = {
    "failed_payments": ("bad", "Failed payments", "payments.view", "Open payments", "admin.payments", {"status": "failed"}),
    "unrated": ("bad", "Subscriptions that cannot be rated", "runs.view", "Open runs", "admin.runs", {}),
    "quarantined": ("bad", "Usage requests that cannot be counted", "events.view", "Show events", "admin.events", {}),
    "drafts": ("warn", "Drafts to review", "runs.view", "Review", "admin.runs", {}),
    "rejected": ("warn", "Rejected events, 24 h", "events.view", "Show reasons", "admin.rejected_events", {}),
    "held": ("", "Drafts held back", "invoices.view", "Show drafts", "admin.invoices", {"status": "draft"}),
    "mails": ("", "Mails that did not arrive", "accounts.view", "Show mails", "admin.mails", {"status": "failed"}),
}
"""By kind of work, worst first: tone, title, the permission to see it, label and address of its one button."""


@blueprint.get("/")
@requires("dashboard.view")
def dashboard() -> Response:
    """The whole page; the work queue alone when it refreshes itself."""
    now = clock.now()
    context: dict[str, Any] = {"queue": _queue(now), "now": now}
    if permissions.can(g.role, "payments.view"):
        context |= _billing(now)
    if permissions.can(g.role, "events.view"):
        context |= _ingestion(now)
    return page("admin/dashboard/index.html", partial="admin/dashboard/_queue.html", current="dashboard", **context)


def _queue(now: datetime) -> list[dict[str, Any]]:
    """The kinds of work there are, worst first, as the table shows them."""
    found = {kind.key: kind for kind in work.waiting(db.session(), rejected_since=now - DAY)}
    count, oldest = notifications.undelivered(db.session())
    if count:
        found["mails"] = Work("mails", count, oldest=oldest)
    rows = []
    for key, (tone, title, needed, label, endpoint, values) in QUEUE.items():
        if key in found and permissions.can(g.role, needed):
            rows.append(
                {
                    "work": found[key],
                    "tone": tone,
                    "title": title,
                    "parts": _parts(found[key]),
                    "label": label,
                    "href": url_for(endpoint, **values),
                }
            )
    return rows


def _parts(kind: Work) -> list[tuple[str, int]]:
    """What it is made of, the most first, in words."""
    return [(DRAFTS.get(name, name) if kind.key in ("drafts", "held") else name, count) for name, count in kind.parts[:4]]


def _billing(now: datetime) -> dict[str, Any]:
    """The figures of one currency; the commonest unless the address names another."""
    session, today = db.session(), now.date()
    known = billing.currencies(session) or ["EUR"]
    currency = request.args.get("currency") if request.args.get("currency") in known else known[0]
    assert currency is not None
    month = datetime.combine(today.replace(day=1), time(), UTC)
    mrr, before = billing.recurring(session, currency, at=(now, month))
    open_ = billing.receivables(session, currency, on=today)
    first = _month(today, 1 - MONTHS)
    issued = billing.invoiced(session, currency, since=first, on=today)
    invoiced = issued.months
    parts = [(fill, Decimal(age.minor)) for fill, age in zip(AGE_FILLS, open_.ages, strict=True) if age.minor]
    return {
        "currency": currency,
        "currencies": known,
        "mrr": mrr,
        "mrr_before": before,
        "receivables": open_,
        "ages": list(zip(AGE_FILLS, open_.ages, strict=True)),
        "age_bar": stacked_bar(parts) if parts else Markup(""),
        "days_outstanding": issued.days_outstanding(open_.minor),
        "collected": billing.collected(session, currency, since=month, until=now + DAY),
        "invoiced": [(_month(today, back), invoiced.get(_month(today, back), 0)) for back in range(1 - MONTHS, 1)],
        "year": bar_chart(_year(invoiced, currency, today)),
        "thousands": max(invoiced.values(), default=0) >= THOUSANDS_FROM * 10 ** exponent(currency),
    }


def _ingestion(now: datetime) -> dict[str, Any]:
    session = db.session()
    seen = watch.ingestion(session, at=now)
    return {"ingestion": seen, "fresh": metering.freshness(session, None, at=now), "spark": sparkline(seen.minutes)}


def _year(invoiced: Mapping[date, int], currency: str, today: date) -> Chart:
    """Twelve months, the running one hatched; the scale in thousands when the amounts are."""
    months = [_month(today, back) for back in range(1 - MONTHS, 1)]
    amounts = [to_decimal(max(0, invoiced.get(month, 0)), currency) for month in months]
    scale = 1000 if max(amounts) >= THOUSANDS_FROM else 1
    bars = tuple(
        Bar((amount / scale,), f"{month:%B %Y}", f"{month:%b}", "partial" if month == months[-1] else "actual")
        for month, amount in zip(months, amounts, strict=True)
    )
    total = rendering.money(sum(invoiced.get(month, 0) for month in months), currency)
    sentence = f"Invoiced per month, net, {total} in twelve months. The table below has every number."
    return Chart("months", sentence, bars, axis=lambda value: f"{value:,f}")


def _month(today: date, offset: int) -> date:
    """The first of the month `offset` months from today's."""
    number = today.year * 12 + today.month - 1 + offset
    return date(number // 12, number % 12 + 1, 1)
