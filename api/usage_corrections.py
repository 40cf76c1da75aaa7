"""Correcting counted usage: voiding and amending single events, and reading what was corrected, by whom and why."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.reading import Exact
from api.values import LINE_PATTERN, Reference, amount, plain_decimal
from core.errors import FieldError, Invalid
from core.identity.permissions import Scope
from core.invoicing import usage_effect
from core.invoicing.usage_effect import Effect
from core.metering.corrections import events
from core.metering.corrections.events import Amendment, Correction, State

TAG = "Usage"
Why = Annotated[
    str, Meta(min_length=10, max_length=500, pattern=LINE_PATTERN, description="Kept with the correction and in the audit trail.")
]
Key = Annotated[str, Meta(min_length=1, max_length=255, description="The idempotency key the event was sent with.")]
Trial = Annotated[bool, Meta(description="Only say what would change.")]


class Voiding(Input):
    """Which event, and why."""

    idempotency_key: Key
    reason: Why
    organization_id: Reference | None = None
    dry_run: Trial = False


class Amending(Input):
    """What the event says instead; a part that is left out stays as it is."""

    idempotency_key: Key
    reason: Why
    organization_id: Reference | None = None
    dry_run: Trial = False
    quantity: Exact | UnsetType = UNSET
    timestamp: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET
    properties: Annotated[dict[str, Any], Meta(description="All of them: those left out are gone.")] | UnsetType = UNSET


class EventState(Output):
    """What an event says: the part of it that can be amended."""

    timestamp: datetime
    quantity: Decimal
    properties: dict[str, Any]


class CorrectionOut(Output):
    """One correction of one event. `after` is null where the event counts no more; `kind` is void, amend or revert."""

    id: str
    kind: str
    corrected_at: datetime
    corrected_by: str
    reason: str
    event_id: str
    event_name: str
    idempotency_key: str
    before: EventState
    after: EventState | None


class ChangeOut(Output):
    """A price whose amount changes, net. `adjusts`: its cycle is over, and the next invoice settles the difference."""

    subscription_id: uuid.UUID
    code: str
    cycle_start: datetime
    cycle_end: datetime
    currency: str
    before: str
    after: str
    adjusts: bool


class Corrected(Output):
    """A correction and what it changes in money; with `dry_run` nothing was changed and the correction was not kept."""

    dry_run: bool
    correction: CorrectionOut
    changes: list[ChangeOut]


class CorrectionsQuery(Listing):
    """Which corrections."""

    organization_id: Reference | None = None
    idempotency_key: Annotated[str, Meta(max_length=255)] | None = None


@endpoint("POST", "/billing/usage/events/void", scope=Scope.BILLING_WRITE, tag=TAG)
def void_usage_event(call: Call, body: Voiding) -> Corrected:
    """Void a counted event: it leaves every sum, its record stays. Needs a platform key.

    The key stays known, so the event cannot be sent again. An event of a period that is closed for good is refused.
    """
    call.require_platform()
    organization = call.organization(body.organization_id)
    made, effect = usage_effect.void(
        call.session,
        organization.id,
        body.idempotency_key,
        reason=body.reason,
        actor=call.actor,
        at=call.now(organization),
        dry_run=body.dry_run,
    )
    return Corrected(dry_run=body.dry_run, correction=correction_out(made), changes=changes_out(effect))


@endpoint("POST", "/billing/usage/events/amend", scope=Scope.BILLING_WRITE, tag=TAG)
def amend_usage_event(call: Call, body: Amending) -> Corrected:
    """Amend a counted event: another quantity, time or properties under the same key. Needs a platform key.

    What it said before stays on record. An event of a period that is closed for good, or moved into one, is refused.
    """
    call.require_platform()
    organization = call.organization(body.organization_id)
    amendment = Amendment(
        quantity=None if body.quantity is UNSET else plain_decimal(body.quantity),
        timestamp=None if body.timestamp is UNSET else body.timestamp,
        properties=None if body.properties is UNSET else body.properties,
    )
    made, effect = usage_effect.amend(
        call.session,
        organization.id,
        body.idempotency_key,
        amendment,
        reason=body.reason,
        actor=call.actor,
        at=call.now(organization),
        dry_run=body.dry_run,
    )
    return Corrected(dry_run=body.dry_run, correction=correction_out(made), changes=changes_out(effect))


@endpoint("GET", "/billing/usage/corrections", scope=Scope.BILLING_READ, tag=TAG)
def list_usage_corrections(call: Call, query: CorrectionsQuery) -> Page[CorrectionOut]:
    """List corrected events with what they said before, newest first."""
    organization = call.organization(query.organization_id)
    rows = events.newest(call.session, organization.id, key=query.idempotency_key, before=_before(query.cursor), limit=query.limit + 1)
    return page_of(rows, query.limit, correction_out, lambda row: row.id)


def correction_out(made: Correction) -> CorrectionOut:
    """A correction as the API tells it."""
    return CorrectionOut(
        id=str(made.id),
        kind=made.kind,
        corrected_at=made.at,
        corrected_by=made.actor,
        reason=made.reason,
        event_id=made.event_id,
        event_name=made.event_name,
        idempotency_key=made.idempotency_key,
        before=_state(made.old),
        after=_state(made.new) if made.new else None,
    )


def changes_out(effect: Effect) -> list[ChangeOut]:
    """What changes in money as the API tells it."""
    return [
        ChangeOut(
            subscription_id=one.subscription_id,
            code=one.code,
            cycle_start=one.cycle.start,
            cycle_end=one.cycle.end,
            currency=one.currency,
            before=amount(one.before_minor, one.currency),
            after=amount(one.after_minor, one.currency),
            adjusts=one.adjusts,
        )
        for one in effect.changes
    ]


def _state(state: State) -> EventState:
    return EventState(timestamp=state.timestamp, quantity=state.quantity, properties=dict(state.properties))


def _before(cursor: str | None) -> int | None:
    if cursor is None or (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        return int(cursor) if cursor else None
    raise Invalid("This page does not exist.", errors=(FieldError("/cursor", "Use a next_cursor of an earlier answer."),))
