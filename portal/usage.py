"""The usage explorer: one metric, its cost or quantity over time, beside the invoice line it makes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from flask import g, request, url_for
from werkzeug.wrappers import Response

from core import clock
from core.db import db
from core.invoicing.usage_cost import UsageCost, billed_minor, open_minor, usage_costs
from core.metering import queries as metering
from core.money import to_decimal
from portal import blueprint, explorer
from portal.account import billed_metrics, my_subscriptions, periods, timelines_of
from portal.explorer import Answer, Question
from web.auth import requires
from web.downloads import csv_file
from web.htmx import page


@blueprint.get("/usage")
@requires("usage.view")
def usage() -> Response:
    """The explorer; a change of the form answers with the result alone."""
    question = _question()
    if question is None:
        return page("portal/usage/none.html", current="usage")
    answer = _answer(question)
    fresh = metering.freshness(db.session(), g.organization.id, at=clock.now())
    return page(
        "portal/usage/index.html",
        partial="portal/usage/_explorer.html",
        status=422 if question.errors else 200,
        current="usage",
        errors=dict(question.errors),
        q=question,
        answer=answer,
        metrics=billed_metrics(),
        freshness=fresh,
        line=_line(answer),
        periods=explorer.PERIODS,
        compares=explorer.COMPARES,
        csv_href=url_for("portal.usage_csv", **cast(dict[str, Any], request.args.to_dict())),
        events_href=url_for("portal.usage_events", metric=question.metric.code),
        announce=f"{question.metric.name}: {answer.text(answer.total)}",
    )


@blueprint.get("/usage.csv")
@requires("usage.export")
def usage_csv() -> Response:
    """The rows of the view, exactly as the table shows them; the amounts add up to its total."""
    question = _question()
    if question is None:
        return csv_file("usage", ("start", "end", "quantity", "cost"), ())
    answer = _answer(question)
    currency = answer.cost.currency
    rows = [
        (
            row.start,
            row.end,
            *(_plain(answer, answer.value(row, name)) for name in answer.names),
            row.quantity,
            to_decimal(row.minor, currency),
        )
        for row in answer.cost.buckets
    ]
    head = (
        "start",
        "end",
        *(f"{question.measure}: {name}" for name in answer.names),
        f"quantity_{answer.cost.metric.code}",
        f"cost_{currency}",
    )
    return csv_file(f"usage-{answer.cost.metric.code}-{question.first}-{question.last}", head, rows)


def _plain(answer: Answer, value: object) -> object:
    return to_decimal(int(str(value)), answer.cost.currency) if answer.by_cost else value


def _question() -> Question | None:
    rows = my_subscriptions()
    metrics = billed_metrics()
    if not metrics:
        return None
    now = clock.now(g.organization)
    running, previous = periods(rows, now)
    return explorer.read(request.args, metrics=metrics, running=running, previous=previous, now=now, zone=g.organization.timezone)


def _answer(question: Question) -> Answer:
    rows = my_subscriptions()
    timelines = timelines_of(rows)

    def ask(start: datetime, end: datetime) -> UsageCost:
        return usage_costs(
            db.session(),
            g.organization.id,
            timelines,
            metric_codes=[question.metric.code],
            currency=g.organization.currency,
            start=start,
            end=end,
            timezone=question.zone,
            granularity=question.granularity,
            group_by=question.group_by or None,
        )[0]

    cost = ask(question.start, question.end)
    earlier = question.earlier(periods(rows, question.start)[1] if question.period in ("this", "previous") else None)
    names = explorer.largest(cost, question.measure) if question.group_by else ()
    return Answer(question, cost, ask(*earlier) if earlier and earlier[0] < earlier[1] else None, names)


def _line(answer: Answer) -> dict[str, object] | None:
    """What the view is held against: the invoice lines of whole periods, once billed."""
    if not answer.cost.whole or answer.question.period not in ("this", "previous"):
        return None
    rows, cost = my_subscriptions(), answer.cost
    if answer.question.period == "this":
        minor = open_minor(
            db.session(), g.organization.id, timelines_of(rows), cost.keys, currency=cost.currency, as_of=answer.question.now
        )
        return {"name": f"statement line “{cost.metric.name}”", "minor": minor, "href": url_for("portal.overview") + "#statement"}
    billed = billed_minor(db.session(), [row.id for row in rows], cost.keys)
    return None if billed is None else {"name": f"invoice line “{cost.metric.name}”", "minor": billed, "href": url_for("portal.invoices")}
