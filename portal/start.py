"""First event in a minute: a test key of one's own in a snippet, and a panel that shows what arrives, priced, or why it does not."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from flask import current_app, g, make_response, request, url_for
from werkzeug.wrappers import Response

from core import clock
from core.db import db, transaction
from core.errors import Conflict
from core.identity import encryption, keys
from core.metering import queries as metering
from core.metering.models import Metric
from core.metering.queries import UsageEvent
from core.metering.rejections import finding as rejections
from core.metering.rejections.finding import Wanted
from core.money import round_half_up, to_decimal
from core.pricing.models import reads_one
from core.pricing.terms import Kind
from core.pricing.timeline import open_segments, usage_price
from portal import blueprint
from portal.account import billed_metrics, my_subscriptions, timelines_of
from web.auth import requires
from web.htmx import page, redirect_to

COOKIE = "vv_start"
KEY_LIFE = timedelta(hours=24)
LISTEN = timedelta(minutes=10)
LANGUAGES = (("curl", "curl"), ("python", "Python"))
SEND_SECONDS_MAX = 8


@blueprint.get("/start")
@requires("keys.change")
def start() -> Response:
    """The three steps and the live panel."""
    return _page()


@blueprint.post("/start/key")
@requires("keys.change")
def make_start_key() -> Response:
    """A test key that may only send usage, for a day. Its secret stays in an encrypted cookie of this browser while it is needed."""
    at = clock.now()
    with transaction() as session:
        key, token = keys.create(
            session,
            organization_id=g.organization.id,
            name=f"First event, {g.user.name}"[:100],
            mode="test",
            scopes=["usage:write"],
            actor=g.actor,
            at=at,
            expires_at=at + KEY_LIFE,
        )
    response = redirect_to(url_for("portal.start"))
    sealed = encryption.encrypt(f"{token} {at.isoformat()} {str(key.id)[-4:]}", place=_place())
    response.set_cookie(
        COOKIE, sealed, max_age=int(KEY_LIFE.total_seconds()), path="/portal/start", httponly=True, samesite="Lax", secure=request.is_secure
    )
    return response


@blueprint.get("/start/live")
@requires("keys.change")
def live_events() -> Response:
    """The panel alone; it asks again each second until the event is there."""
    return page("portal/start/live.html", partial="portal/start/_live.html", current="start", **_live(_key()))


@blueprint.post("/start/event")
@requires("keys.change")
def send_start_event() -> Response:
    """Send the snippet's event from here, over HTTP like anybody else, and show the answer as it came."""
    key = _key()
    if key is None:
        raise Conflict("Make your test key first.")
    body = json.dumps(_event(key)).encode()
    address = f"{current_app.config['SETTINGS'].public_url}/api/v1/billing/usage"
    sent = urllib.request.Request(address, body, {"Authorization": f"Bearer {key['token']}", "Content-Type": "application/json"})  # noqa: S310 - our own address
    try:
        with urllib.request.urlopen(sent, timeout=SEND_SECONDS_MAX) as answer:  # noqa: S310
            return _page(answer={"status": answer.status, "reason": answer.reason, "body": _pretty(answer.read())})
    except urllib.error.HTTPError as error:
        return _page(answer={"status": error.code, "reason": error.reason, "body": _pretty(error.read())})
    except OSError:
        return _page(answer={"status": 0, "reason": "The API did not answer. Nothing was sent. Try again.", "body": ""})


def _page(answer: dict[str, Any] | None = None) -> Response:
    key = _key()
    lang = request.values.get("lang", "curl")
    context: dict[str, Any] = {
        "key": key,
        "body": json.dumps(_event(key)),
        "lang": lang if lang in dict(LANGUAGES) else "curl",
        "languages": LANGUAGES,
        "answer": answer,
    }
    host = current_app.config["SETTINGS"].public_url
    return make_response(page("portal/start/index.html", current="start", host=host, metric=_metric(), **context, **_live(key)))


def _place() -> str:
    return f"start:{g.login.id}"


def _key() -> dict[str, Any] | None:
    """The test key of this browser and sign-in, as long as it lives."""
    try:
        token, made, mark = encryption.decrypt(request.cookies.get(COOKIE, ""), place=_place()).split(" ")
    except (encryption.NotDecryptable, ValueError):
        return None
    since = datetime.fromisoformat(made)
    shown = f"{token[:12]}…{token[-4:]}"
    return {"token": token, "shown": shown, "since": since, "mark": mark} if since + KEY_LIFE > clock.now() else None


def _metric() -> Metric | None:
    found = billed_metrics()
    return found[0] if found else None


def _event(key: dict[str, Any] | None) -> dict[str, Any]:
    metric = _metric()
    event: dict[str, Any] = {"metric_name": metric.event_name if metric else "api_calls", "quantity": 1200}
    if metric is not None and metric.property:
        event["properties"] = {metric.property: 1200}
        del event["quantity"]
    return {**event, "idempotency_key": f"hello-{key['mark'] if key else 1}"}


def _live(key: dict[str, Any] | None) -> dict[str, Any]:
    """What has arrived since the key was made, newest first, and whether to keep asking."""
    now = clock.now()
    since = key["since"] if key else now
    mine, wide = clock.now(g.organization), timedelta(days=36)
    found = (
        metering.events_page(db.session(), g.organization.id, start=mine - wide, end=mine + timedelta(days=1), limit=10).rows if key else []
    )
    events = [event for event in found if event.received_at >= since]
    refused = rejections.page(db.session(), Wanted(g.organization.id), limit=5).rows if key else []
    rejected = [row for row in refused if row.received_at >= since]
    listening = key is not None and not events
    return {
        "events": events,
        "rejected": rejected,
        "since": since,
        "rated": _rated(events[0]) if events else None,
        "polls": listening and now < since + LISTEN,
        "listening": listening,
    }


def _rated(event: UsageEvent) -> dict[str, Any] | None:
    """What the event added to its line and where the line stands now; None without a price for it."""
    now, currency = clock.now(g.organization), g.organization.currency
    for terms in timelines_of(my_subscriptions()).values():
        for segment in open_segments(terms, as_of=now):
            metric = next((m for m in billed_metrics() if str(m.id) == segment.rule.metric_id), None)
            if segment.rule.kind is not Kind.USAGE or metric is None or metric.event_name != event.event_name:
                continue
            asked = (g.organization.id, metric.id, segment.window.start, segment.window.end)
            total = metering.usage_sums(db.session(), [asked])[asked]
            if not reads_one(segment.rule.model):
                continue
            amount, before = (usage_price([segment], {segment.window: used}) for used in (total, total - event.quantity))
            if not isinstance(amount, Decimal) or not isinstance(before, Decimal):
                continue
            minor = round_half_up(amount, currency)
            return {
                "metric": metric,
                "added": amount - before,
                "amount": amount,
                "minor": minor,
                "exact": amount != to_decimal(minor, currency),
            }
    return None


def _pretty(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body.decode("utf-8", "replace")[:2000]
