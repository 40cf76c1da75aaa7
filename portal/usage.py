"""The usage explorer: one metric, its cost or quantity over time, beside the invoice line it makes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from flask import g, request, url_for
from werkzeug.wrappers import Response

from core import clock
from core.db import db
from core.invoicing.usage_cost import UsageCost, billed_minor, line_keys, open_minor, usage_by_bucket
from core.metering import queries as metering
from core.metering.reading import Question as Asked
from core.metering.reading import read
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
    answer, line = _answer(question)
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
        line=line,
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
    answer, _ = _answer(question)
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


def _answer(question: Question) -> tuple[Answer, dict[str, object] | None]:
    """The rows, those of the range compared with, and the line they make: read together."""
    rows, now = my_subscriptions(), question.now
    timelines = timelines_of(rows)

    def asked(start: datetime, end: datetime) -> Asked[list[UsageCost]]:
        return usage_by_bucket(
            [question.metric],
            g.organization.id,
            timelines,
            currency=g.organization.currency,
            start=start,
            end=end,
            timezone=question.zone,
            granularity=question.granularity,
            group_by=question.group_by or None,
        )

    shown = asked(question.start, question.end)
    range_before = question.earlier(periods(rows, question.start)[1] if question.period in ("this", "previous") else None)
    earlier = [asked(*range_before)] if range_before and range_before[0] < range_before[1] else []
    keys = line_keys(timelines, question.metric, start=question.start, end=question.end) if question.period == "this" else ()
    running = open_minor(g.organization.id, timelines, keys, currency=g.organization.currency, as_of=now)
    usage = read(db.session(), shown, *earlier, running)
    cost = shown.answer(usage)[0]
    names = explorer.largest(cost, question.measure) if question.group_by else ()
    answer = Answer(question, cost, earlier[0].answer(usage)[0] if earlier else None, names)
    return answer, _line(answer, running.answer(usage))


def _line(answer: Answer, running_minor: int) -> dict[str, object] | None:
    """What the view is held against: the invoice lines of whole periods, once billed."""
    cost = answer.cost
    if not cost.whole or answer.question.period not in ("this", "previous"):
        return None
    if answer.question.period == "this":
        return {"name": f"statement line “{cost.metric.name}”", "minor": running_minor, "href": url_for("portal.overview") + "#statement"}
    billed = billed_minor(db.session(), [row.id for row in my_subscriptions()], cost.keys)
    return None if billed is None else {"name": f"invoice line “{cost.metric.name}”", "minor": billed, "href": url_for("portal.invoices")}
