"""The verdict on events that came in another product's wire format: each was translated into our JSON, or says why it could not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from core.metering import accept, bodies
from core.metering.accept import Verdict
from core.metering.bodies import Form, Malformed
from core.metering.careful import REFUSED_EVENT_BYTES_MAX, Refused, Window
from core.metering.columns import moved
from core.metering.directory import Directory, Principal
from core.metering.wire import Fault


@dataclass(frozen=True, slots=True)
class Untranslatable:
    """An event that has no form of ours; `fault` points into `sent`, the event as it came."""

    fault: Fault
    sent: bytes


def judge(
    directory: Directory, principal: Principal, events: Sequence[bytes | Untranslatable], *, window: Window, at: datetime, single: bool
) -> Verdict:
    """As accept.judge, for events of which those in bytes are our JSON objects, each without a line break.

    Refused events are kept in our form where they have one, so that they can be sent again.
    """
    if not events:
        raise Malformed("There is no event in the request.")
    if len(events) > window.events_max:
        raise bodies.too_many(window.events_max)
    places = [place for place, event in enumerate(events) if isinstance(event, bytes)]
    body = b"\n".join(event for event in events if isinstance(event, bytes))
    refused = [
        Refused(place, event.fault.code, event.fault.pointer, event.fault.detail, principal.organization_id, _shortened(event.sent))
        for place, event in enumerate(events)
        if isinstance(event, Untranslatable)
    ]
    if not places:
        accept.own_account(directory, principal)
        return Verdict(len(events), None, (), tuple(refused), principal.organization_id, principal.key_id, single)
    verdict = accept.judge(directory, principal, body, Form.NDJSON, window=window, at=at)
    columns = verdict.accepted
    if refused and columns is not None:
        columns = moved(columns, places)
    refused += [replace(one, index=places[one.index]) for one in verdict.refused]
    refused.sort(key=lambda one: one.index)
    return replace(verdict, events=len(events), accepted=columns, refused=tuple(refused), single=single)


def whole(verdict: Verdict) -> Verdict:
    """The verdict where the format has no word for a batch that is good in part: one refused event refuses them all."""
    return replace(verdict, accepted=None, fed=(), unclaimed=0) if verdict.refused else verdict


def _shortened(sent: bytes) -> bytes:
    return sent[:REFUSED_EVENT_BYTES_MAX]
