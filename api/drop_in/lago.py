"""Lago's `POST /api/v1/events` and `/api/v1/events/batch`: events by subscription. https://getlago.com/docs/api-reference/events

`transaction_id` is the idempotency key, `code` the event's name, `external_subscription_id` our subscription's external id (or id), and
through it the organization. Metrics read `properties`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from api.drop_in.problem import SomeRefused
from api.drop_in.translation import (
    JSON_HEADERS,
    Answer,
    Pipeline,
    document,
    encode,
    flat,
    key_of,
    our_event,
    required,
    shown_pointer,
    text_at,
    unix_time,
)
from core.metering import foreign
from core.metering.bodies import Malformed
from core.metering.careful import Refused
from core.metering.directory import Principal
from core.metering.foreign import Untranslatable
from core.metering.wire import Fault
from core.subscriptions.external_ids import ExternalIds, Named

BATCH_PATH = "/api/v1/events/batch"
PRECISE = "precise_total_amount_cents"
POINTERS = {"/metric_name": "/code", "/idempotency_key": "/transaction_id", "/organization_id": "/external_subscription_id"}
Event = Mapping[str, Any]


class Lago:
    """The dialect, for the threads of one process."""

    def __init__(self, external_ids: ExternalIds) -> None:
        self._external_ids = external_ids

    def record(self, pipeline: Pipeline, principal: Principal, body: bytes, *, at: datetime) -> Answer:
        """Take `{"event": …}` or `{"events": […]}`, all of it or nothing. Raises SomeRefused, Malformed, TooLarge or Unavailable."""
        given, single = _events(document(body))
        named = self._subscriptions(given)
        events = [_translated(event, named, principal) for event in given]
        verdict = foreign.whole(pipeline.judge(principal, events, single=single))
        batch_id = pipeline.keep(principal, verdict)
        if verdict.refused:
            raise SomeRefused(verdict, lambda one: _pointer(one, single=single), 422)
        shown = [_shown(event, _one(event, named, principal), f"{batch_id}-{place}", at) for place, event in enumerate(given)]
        return 200, JSON_HEADERS, encode({"event": shown[0]} if single else {"events": shown})

    def _subscriptions(self, given: Sequence[Event]) -> Mapping[str, tuple[Named, ...]]:
        names = {event.get("external_subscription_id") for event in given if isinstance(event, dict)}
        texts = {name for name in names if isinstance(name, str) and "\x00" not in name}
        return self._external_ids.subscriptions(texts) if texts else {}


def is_sent(body: bytes) -> bool:
    """Whether a JSON body is Lago's: an object with the member `event` or `events`."""
    given = document(body)
    return isinstance(given, dict) and ("event" in given or "events" in given)


def _events(given: Any) -> tuple[Sequence[Event], bool]:
    if isinstance(given, dict) and "event" in given:
        return [given["event"]], True
    if isinstance(given, dict) and isinstance(given.get("events"), list):
        return given["events"], False
    raise Malformed('Send {"event": {…}}, or {"events": […]} for a batch.')


def _translated(event: Any, named: Mapping[str, tuple[Named, ...]], principal: Principal) -> bytes | Untranslatable:
    try:
        if not isinstance(event, dict):
            raise Fault("malformed_json", "", "An event is a JSON object.")
        return _ours(event, _one(event, named, principal))
    except Fault as fault:
        return Untranslatable(fault, encode(event))


def _one(event: Event, named: Mapping[str, tuple[Named, ...]], principal: Principal) -> Named:
    """The subscription of the event that the key may name. Raises Fault."""
    reference = required(event, "external_subscription_id", "Each event names its subscription.")
    found = [one for one in named.get(reference, ()) if principal.organization_id in (None, one.organization_id)]
    if not found:
        detail = "There is no subscription with this external id."
        raise Fault("unknown_subscription", "/external_subscription_id", detail)
    if len(found) > 1:
        detail = "Several organizations have a subscription of this external id; use a key of the organization's own, or the id."
        raise Fault("unknown_subscription", "/external_subscription_id", detail)
    return found[0]


def _ours(event: Event, subscription: Named) -> bytes:
    properties = event.get("properties")
    if properties is None:
        properties = {}
    if not isinstance(properties, dict):
        raise Fault("invalid_properties", "/properties", "Must be an object.")
    precise = text_at(event, PRECISE)
    return our_event(
        required(event, "code", "Each event has the code of its billable metric."),
        key_of(required(event, "transaction_id", "Each event needs a transaction_id: without one a retry would count twice.")),
        timestamp=_time(event.get("timestamp")),
        organization_id=str(subscription.organization_id),
        subscription_id=str(subscription.id),
        properties=flat(properties, "/properties") | ({PRECISE: precise} if precise else {}),
    )


def _time(given: Any) -> str | None:
    """Unix seconds, as a number or a text, or ISO 8601."""
    if isinstance(given, str) and ("-" in given[1:] or ":" in given):
        return given
    return unix_time(given if given != "" else None, "/timestamp")


def _pointer(one: Refused, *, single: bool) -> str:
    return f"{'/event' if single else f'/events/{one.index}'}{shown_pointer(one.pointer, POINTERS)}"


def _shown(event: Event, subscription: Named, event_id: str, at: datetime) -> dict[str, Any]:
    """The event as Lago answers it. `lago_id` is where our usage events page finds it."""
    return {
        "lago_id": event_id,
        "transaction_id": event["transaction_id"],
        "lago_customer_id": str(subscription.organization_id),
        "code": event["code"],
        "timestamp": _time(event.get("timestamp")) or at.isoformat(),
        PRECISE: event.get(PRECISE),
        "properties": event.get("properties") or {},
        "lago_subscription_id": str(subscription.id),
        "external_subscription_id": event["external_subscription_id"],
        "created_at": at.isoformat(),
    }
