"""Events for operators: the live tail, what is refused and how to fix it, one event with what it was counted for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from flask import current_app, make_response, request
from werkzeug.wrappers import Response

from admin import blueprint
from core import clock, rendering
from core.db import db
from core.errors import Invalid, NotFound
from core.identity import queries as identity
from core.identity.models import Organization
from core.invoicing import late_usage
from core.invoicing import queries as invoicing
from core.invoicing.late_usage import Arrival, Late
from core.metering import places, watch
from core.metering import queries as metering
from core.metering.corrections import events as corrections
from core.metering.queries import UsageEvent
from core.metering.rejections import finding as rejections
from web.auth import requires
from web.dates import ends, read_day
from web.htmx import page

TAIL_SHOWN = 50
LOOK_BACK = timedelta(days=35)
LOOK_FURTHER = timedelta(days=400)
SINCE = (("1", "Last hour"), ("24", "Last 24 hours"), ("168", "Last 7 days"))
FIXES = {
    "unknown_metric": "Create a metric that reads this event name, or correct the name where it is sent. Then send the events again.",
    "no_metric_matches": "The metrics of this name filter it out or read a property it lacks: send that property, or widen the filter.",
    "invalid_property": "A metric adds this property up: send a number from 0 with at most 12 decimals.",
    "invalid_quantity": "Send a number from 0 with at most 12 decimals, not negative and not text.",
    "invalid_timestamp": "Send RFC 3339 with an offset, such as 2026-11-22T10:30:00Z, or leave the timestamp out.",
    "timestamp_too_old": "The acceptance window is over. Bill the usage by a line written by hand, if it is owed.",
    "timestamp_in_future": "The sender's clock is ahead. Set it right and send again.",
    "missing_field": "Send the field that is named; each event needs an idempotency key of its own.",
    "unknown_organization": "Create the account with this external ID, or correct the reference; a key of an account needs none.",
    "unknown_field": "Put values of your own into properties.",
    "limit_reached": "The account's limit is used up until its window ends. Raise the limit, then let the customer send the events again.",
    "spend_cap_reached": "The customer's own spend cap is reached. Only the customer raises it; then the events can be sent again.",
    "too_large": "Send less: large texts do not belong into usage events.",
}
FIX = "Correct what is named and send the events again with the same idempotency keys."


@blueprint.get("/events")
@requires("events.view")
def events() -> Response:
    """What comes in, newest first, with the numbers of the last minute."""
    account, wanted = _account(request.args.get("account", ""))
    tail = watch.seen(db.session(), organization_id=account.id if account else None, limit=TAIL_SHOWN)
    return page("admin/events/index.html", current="events", account=account, wanted=wanted, **_rows(tail), **_numbers())


@blueprint.get("/events/tail")
@requires("events.view")
def events_tail() -> Response:
    """The rows behind the cursor, to be put above the others; 204 when nothing came."""
    account, wanted = _account(request.args.get("account", ""))
    cursor = request.args.get("after", "")
    tail = watch.seen(db.session(), organization_id=account.id if account else None, cursor=cursor, limit=TAIL_SHOWN)
    if tail.cursor == cursor:
        return make_response("", 204)
    return page(
        "admin/events/tail.html", partial="admin/events/_tail.html", current="events", account=account, wanted=wanted, **_rows(tail)
    )


@blueprint.get("/events/numbers")
@requires("events.view")
def events_numbers() -> Response:
    """The figures above the tail alone."""
    return page("admin/events/numbers.html", partial="admin/events/_numbers.html", current="events", **_numbers())


@blueprint.get("/events/rejected")
@requires("events.view")
def rejected_events() -> Response:
    """Refused events by reason and key, each with a sample and what to do."""
    hours = request.args.get("hours") if request.args.get("hours") in dict(SINCE) else "24"
    account, wanted = _account(request.args.get("account", ""))
    since = clock.now() - timedelta(hours=int(hours or 24))
    groups = watch.groups(db.session(), since=since, organization_id=account.id if account else None)
    return page(
        "admin/events/rejected.html",
        partial="admin/events/_groups.html",
        current="events",
        groups=groups,
        names=_names(group.organization_id for group in groups),
        keys=identity.key_labels(db.session(), {group.api_key_id for group in groups if group.api_key_id}),
        hours=hours,
        since=SINCE,
        account=account,
        wanted=wanted,
        fixes=FIXES,
        fix=FIX,
        announce=f"{len(groups)} groups",
    )


@blueprint.get("/events/unclaimed")
@requires("events.view")
def unclaimed_events() -> Response:
    """Event names that no metric reads, with their accounts and a way to a metric."""
    names = watch.unclaimed(db.session())
    return page(
        "admin/events/unclaimed.html",
        current="events",
        names=names,
        accounts=_names(one.organization_id for one in names),
        counted_max=watch.EVENTS_COUNTED_MAX,
        lenient=current_app.config["SETTINGS"].usage_unknown_events == "lenient",
    )


@blueprint.get("/accounts/<uuid:account_id>/event")
@requires("events.view")
def event(account_id: UUID) -> Response:
    """One event by its idempotency key: as sent, what each metric made of it, and the invoice line it fell on.

    What the log does not know any more is looked for in 35 days at a time: those up to the day `until` of the account's time zone.
    """
    account, session = identity.organization(db.session(), account_id), db.session()
    key, now = request.args.get("key", "").strip(), clock.now(account)
    day = read_day(request.args.get("until", ""))
    until = ends(day, account.timezone) if day else now + LOOK_BACK
    start = until - LOOK_BACK if day else now - LOOK_BACK
    history = corrections.history(session, account_id, key) if key else []
    counted, too_many = _counted(account_id, key, start, until)
    refused = rejections.with_key(session, account_id, key) if key else []
    found = counted[0] if counted else None
    fed = watch.fed(session, found) if found else []
    metric_ids = [one.metric.id for one in fed if one.value is not None]
    return page(
        "admin/events/show.html",
        current="events",
        account=account,
        zone=account.timezone,
        key=key,
        event=found,
        start=start,
        before=rendering.local_day(start, account.timezone),
        until=min(until, now),
        too_many=too_many,
        logged_days=places.KEPT.days,
        further=start > now - LOOK_FURTHER,
        fed=fed,
        lines=invoicing.lines_at(session, account_id, metric_ids, found.timestamp) if found else {},
        lateness=late_usage.of_events(session, account_id, counted).get(found.id, ()) if found else (),
        refused=refused,
        history=history,
        fixes=FIXES,
        fix=FIX,
    )


def _counted(account_id: UUID, key: str, start: datetime, until: datetime) -> tuple[list[UsageEvent], bool]:
    """The event with this key, and whether there were too many to look through."""
    try:
        return metering.events_page(
            db.session(), account_id, start=start, end=until, idempotency_key=key, limit=1
        ).rows if key else [], False
    except Invalid:
        return [], True


def _rows(tail: watch.Tail) -> dict[str, Any]:
    return {"tail": tail, "names": _names(one.organization_id for one in tail.events), "late": _late(tail.events)}


def _late(events: Sequence[watch.Seen]) -> dict[int, tuple[Late, ...]]:
    """By place in the tail, the accepted events that came late."""
    came = [(place, one) for place, one in enumerate(events) if one.status != "duplicate"]
    arrivals = {
        place: Arrival(one.organization_id, one.event_name, one.timestamp, one.received_at, one.properties)
        for place, one in came
        if one.organization_id is not None and one.timestamp is not None
    }
    return dict(zip(arrivals, late_usage.find(db.session(), list(arrivals.values())), strict=True))


def _names(ids: Any) -> dict[UUID, str]:
    return invoicing.owner_names(db.session(), {one for one in ids if one is not None})


def _numbers() -> dict[str, Any]:
    session, now = db.session(), clock.now()
    return {"ingestion": watch.ingestion(session, at=now), "fresh": metering.freshness(session, None, at=now)}


def _account(reference: str) -> tuple[Organization | None, str]:
    """The account the form names, and its words; nothing narrows when there is none."""
    reference = reference.strip()
    if not reference:
        return None, ""
    try:
        return identity.organization_by_reference(db.session(), reference), reference
    except NotFound:
        return None, reference
