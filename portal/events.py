"""The events behind the numbers: those that were counted and those that were refused, with the reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import g, request, url_for
from werkzeug.wrappers import Response

from core import clock
from core.db import db
from core.invoicing import late_usage
from core.metering import queries as metering
from core.metering.rejections import finding as rejections
from core.metering.rejections import replaying
from core.metering.rejections.finding import Wanted
from portal import blueprint
from portal.account import billed_metrics
from web.auth import requires
from web.dates import begins, ends, read_day
from web.forms import once
from web.htmx import page
from web.pagination import PAGE_ROWS, Page, after

SHOWN = timedelta(days=35)


@blueprint.get("/usage/events")
@requires("events.view")
def usage_events() -> Response:
    """Counted events, newest first, by metric, day or idempotency key."""
    now, zone = clock.now(g.organization), g.organization.timezone
    day = read_day(request.args.get("day", ""))
    start, end = (begins(day, zone), ends(day, zone)) if day else (now - SHOWN, now + timedelta(days=1))
    metrics = billed_metrics()
    metric = next((metric for metric in metrics if metric.code == request.args.get("metric")), None)
    key = request.args.get("key", "").strip()
    found = metering.events_page(
        db.session(),
        g.organization.id,
        start=start,
        end=end,
        metric_id=metric.id if metric else None,
        idempotency_key=key or None,
        cursor=after(),
        limit=PAGE_ROWS,
    )
    rows = Page(found.rows, _more("portal.usage_events", found.next_cursor))
    return page(
        "portal/events/index.html",
        partial="portal/events/_rows.html" if after() else "portal/events/_list.html",
        current="usage",
        rows=rows,
        late=late_usage.of_events(db.session(), g.organization.id, found.rows),
        metrics=metrics,
        metric=metric,
        day=request.args.get("day", ""),
        key=key,
        start=start,
        announce=f"{len(found.rows)} events",
    )


@blueprint.get("/usage/rejected")
@requires("events.view")
def rejected_events() -> Response:
    """Refused events with what was wrong and what became of them since, newest first, by reason."""
    code, key = request.args.get("code", ""), request.args.get("key", "").strip()
    found = rejections.page(
        db.session(),
        Wanted(g.organization.id, code=code or None, idempotency_key=key or None),
        cursor=after(),
        limit=PAGE_ROWS,
    )
    rows = Page(found.rows, _more("portal.rejected_events", found.next_cursor))
    counts = rejections.counts(db.session(), g.organization.id, since=clock.now() - timedelta(days=1))
    return page(
        "portal/events/rejected.html",
        partial="portal/events/_rejected_rows.html" if after() else None,
        current="usage",
        rows=rows,
        counts=counts,
        code=code,
        key=key,
        waiting=any(row.replay is None or row.replay.status == "refused" for row in found.rows),
        accepted=_number(request.args.get("accepted", "")),
        refused=_number(request.args.get("refused", "")),
    )


@blueprint.post("/usage/rejected/replay")
@requires("events.send")
def replay_rejected_events() -> Response:
    """Judge anew, as they were sent, the rejected events of one reason or key, or all; counted ones are counted once."""
    code, key = request.form.get("code", ""), request.form.get("key", "").strip()

    def work() -> str:
        wanted = Wanted(g.organization.id, code=code or None, idempotency_key=key or None)
        done = replaying.replay(db.session(), wanted, actor=g.actor, at=clock.now())
        told: dict[str, Any] = {"accepted": done.accepted, "refused": len(done.tried) - done.accepted}
        told |= {name: text for name, text in (("code", code), ("key", key)) if text}
        return url_for("portal.rejected_events", **told)

    return once(work)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _more(endpoint: str, cursor: str | None) -> str | None:
    values: dict[str, Any] = {**request.args.to_dict(), "after": cursor}
    return url_for(endpoint, **values) if cursor else None
