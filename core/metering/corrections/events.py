"""Voiding and amending one counted event, found by its idempotency key.

The event row changes, the log does not: `usage_corrections` says what the event was, and a recount of the log applies it. A void event's
key stays known, so sending it again counts nothing. Amending keeps the event's identity (batch and position) and its key.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.metering.columns import quantity
from core.metering.corrections import gate, hours
from core.metering.lookup import among_stored, moments
from core.metering.meters import UnreadableProperty, feeds, meter, properties, value_of
from core.metering.models import Metric, usage_event_names, usage_events
from core.metering.queries import shown_properties
from core.metering.sums import organizations
from core.metering.tables import usage_corrections
from core.metering.windows import hour_floor
from core.metering.wire import Fault, check_properties, encode_properties
from core.metering.wire import quantity as read_quantity

VOID, AMEND, REVERT = "void", "amend", "revert"
HISTORY_MAX = 100
SEARCH_SECONDS_MAX = 10
LIFTED = """DELETE FROM usage_events
  WHERE organization_number = %s AND event_number = %s AND "timestamp" = %s AND batch_id = %s AND position = %s
  RETURNING quantity, properties"""
PUT_BACK = """INSERT INTO usage_events ("timestamp", received_at, quantity, idempotency_key, properties, subscription_id, unit,
  organization_number, event_number, batch_id, position) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""
AMENDABLE = ("timestamp", "quantity", "properties")
KEPT = (
    *("organization_number", "event_number", "batch_id", "position"),
    *("idempotency_key", "received_at", "subscription_id", "unit"),
)
ACTS = {VOID: "usage_event.voided", AMEND: "usage_event.amended"}


@dataclass(frozen=True, slots=True)
class State:
    """What an event says: the part of it that can be amended."""

    timestamp: datetime
    quantity: Decimal
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction of one event, as it is kept. `new` is None where the event counts no more; `kind` is void, amend or revert."""

    id: int
    kind: str
    at: datetime
    actor: str
    reason: str
    event_id: str
    event_name: str
    idempotency_key: str
    old: State
    new: State | None
    backfill_id: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Amendment:
    """What an event is to say instead; None leaves a part as it is. `quantity` is the text of a decimal, `timestamp` is aware."""

    quantity: str | None = None
    timestamp: datetime | None = None
    properties: Mapping[str, Any] | None = None


def void(session: Session, organization_id: uuid.UUID, key: str, *, reason: str, actor: Actor, at: datetime) -> Correction:
    """Take the event out of every sum. NotFound when there is none with this key, Conflict when it is void already."""
    found = _found(session, organization_id, key)
    return _correct(session, organization_id, found, None, reason=reason, actor=actor, at=at)


def amend(
    session: Session, organization_id: uuid.UUID, key: str, amendment: Amendment, *, reason: str, actor: Actor, at: datetime
) -> Correction:
    """Let the event say something else. As `void`; Invalid when nothing would change or a metric could not read it any more."""
    found = _found(session, organization_id, key)
    new = _amended(session, found, amendment, at)
    return _correct(session, organization_id, found, new, reason=reason, actor=actor, at=at)


def history(session: Session, organization_id: uuid.UUID, key: str) -> list[Correction]:
    """Every correction of the organization's events with this key, newest first."""
    return newest(session, organization_id, key=key, limit=HISTORY_MAX)


def newest(
    session: Session, organization_id: uuid.UUID, *, key: str | None = None, before: int | None = None, limit: int = 50
) -> list[Correction]:
    """The organization's corrections (those of one key), newest first, the one numbered `before` and later ones left out."""
    c = usage_corrections.c
    mine = select(organizations.c.number).where(organizations.c.id == organization_id).scalar_subquery()
    query = (
        select(usage_corrections, usage_event_names.c.name)
        .join(usage_event_names, usage_event_names.c.number == c.event_number)
        .where(c.organization_number == mine)
    )
    query = query if key is None else query.where(c.idempotency_key == key)
    query = query if before is None else query.where(c.id < before)
    return [_correction(row) for row in session.execute(query.order_by(c.id.desc()).limit(limit))]


def read_properties(text: str) -> dict[str, Any]:
    """Properties as somebody types them, numbers exact; Invalid when that is no JSON object."""
    try:
        found: Any = properties(text.encode())
    except (msgspec.DecodeError, UnicodeError):
        found = None
    if not isinstance(found, dict):
        detail = 'Give one JSON object, such as {"region": "eu"}.'
        raise Invalid("The properties cannot be read.", errors=(FieldError("/properties", detail),))
    return found


def stored(session: Session, organization_id: uuid.UUID, key: str) -> Row[Any] | None:
    """The counted event with this key, whenever it happened: where the log says, else looked for among all; Invalid if too many."""
    e = usage_events.c
    mine = select(organizations.c.number).where(organizations.c.id == organization_id).scalar_subquery()
    query = select(usage_events).where(e.organization_number == mine, e.idempotency_key == key).limit(1)
    at = {moment for _, _, moment in moments(session, key, session.scalar(select(mine)))}
    if at:
        return session.execute(query.where(e.timestamp.in_(at))).first()
    with among_stored(session, seconds=SEARCH_SECONDS_MAX):
        return session.execute(query).first()


def _found(session: Session, organization_id: uuid.UUID, key: str) -> Row[Any]:
    found = stored(session, organization_id, key)
    if found is not None:
        return found
    before = history(session, organization_id, key)
    if before:
        done = "was reverted with its backfill" if before[0].kind == REVERT else "was voided"
        raise Conflict(f"This event {done} on {before[0].at:%Y-%m-%d} by {before[0].actor}.", code="event_is_void")
    raise NotFound("No event with this idempotency key is counted.")


def _amended(session: Session, found: Row[Any], amendment: Amendment, at: datetime) -> State:
    old = State(found.timestamp, found.quantity, properties(bytes(found.properties)))
    new = State(_timestamp(amendment, old, at), _quantity(amendment, old), _properties(amendment, old))
    if new == old:
        raise Invalid("Nothing would change.", errors=(FieldError("", "Give a quantity, timestamp or properties that differ."),))
    _check_read(session, found, new)
    return new


def _timestamp(amendment: Amendment, old: State, at: datetime) -> datetime:
    new = old.timestamp if amendment.timestamp is None else amendment.timestamp.astimezone(UTC)
    if new > max(at, old.timestamp):
        raise Invalid("The timestamp is not usable.", errors=(FieldError("/timestamp", "Must not be in the future."),))
    return new


def _quantity(amendment: Amendment, old: State) -> Decimal:
    if amendment.quantity is None:
        return old.quantity
    try:
        return quantity(*read_quantity(amendment.quantity))
    except ValueError:
        detail = "Must be a number from 0 to 99999999999999 with at most 12 decimals."
        raise Invalid("The quantity is not usable.", errors=(FieldError("/quantity", detail),)) from None


def _properties(amendment: Amendment, old: State) -> Mapping[str, Any]:
    if amendment.properties is None:
        return old.properties
    try:
        return check_properties(dict(amendment.properties))
    except Fault as fault:
        raise Invalid("The properties are not usable.", errors=(FieldError(fault.pointer, fault.detail),)) from fault


def _check_read(session: Session, found: Row[Any], new: State) -> None:
    """As for an event that is sent: a metric that takes it must be able to read it."""
    name = select(usage_event_names.c.name).where(usage_event_names.c.number == found.event_number).scalar_subquery()
    for metric in session.scalars(select(Metric).where(Metric.event_name == name, Metric.archived_at.is_(None))):
        counted = meter(metric)
        try:
            if feeds(counted, new.properties):
                value_of(counted, new.quantity, new.properties)
        except UnreadableProperty as error:
            detail = f"The metric {metric.code} reads this property: it {error}."
            raise Invalid("A metric could not read the event.", errors=(FieldError(f"/properties/{error.name}", detail),)) from error


def _correct(
    session: Session, organization_id: uuid.UUID, found: Row[Any], new: State | None, *, reason: str, actor: Actor, at: datetime
) -> Correction:
    touched = {hour_floor(found.timestamp)} | ({hour_floor(new.timestamp)} if new else set())
    with gate.held(session) as connection:
        hours.check_whole(connection, found.organization_number, found.event_number, touched)
        identity = (found.organization_number, found.event_number, found.timestamp, found.batch_id, found.position)
        lifted = connection.execute(LIFTED, identity).fetchone()
        if lifted is None or (lifted[0], bytes(lifted[1])) != (found.quantity, bytes(found.properties)):
            raise Conflict("The event was corrected by somebody else at this moment. Read it again.", code="changed_meanwhile")
        if new is not None:
            raw = encode_properties(new.properties)
            named = (found.idempotency_key, raw, found.subscription_id, found.unit)
            connection.execute(PUT_BACK, (new.timestamp, found.received_at, new.quantity, *named, *identity[:2], *identity[3:]))
        hours.add_up(connection, found.organization_number, found.event_number, touched)
    row = {name: getattr(found, name) for name in KEPT} | {f"old_{name}": getattr(found, name) for name in AMENDABLE}
    row |= {"kind": VOID if new is None else AMEND, "at": at, "reason": reason}
    row |= {"actor_kind": actor.kind, "actor_id": actor.id, "actor_label": actor.label}
    if new is not None:
        row |= {"new_timestamp": new.timestamp, "new_quantity": new.quantity, "new_properties": encode_properties(new.properties)}
    session.execute(usage_corrections.insert().values(**row))
    made = history(session, organization_id, found.idempotency_key)[0]
    told = {"idempotency_key": made.idempotency_key, "event_name": made.event_name, "before": _told(made.old), "after": _told(made.new)}
    audit.record(session, actor, ACTS[made.kind], made, at=at, organization_id=organization_id, reason=reason, **told)
    return made


def _told(state: State | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {"timestamp": state.timestamp.isoformat(), "quantity": f"{state.quantity:f}", "properties": dict(state.properties)}


def _correction(row: Row[Any]) -> Correction:
    old = State(row.old_timestamp, row.old_quantity, shown_properties(bytes(row.old_properties)))
    new = None
    if row.new_timestamp is not None:
        new = State(row.new_timestamp, row.new_quantity, shown_properties(bytes(row.new_properties)))
    event = f"{row.batch_id}-{row.position}"
    return Correction(
        row.id, row.kind, row.at, row.actor_label, row.reason, event, row.name, row.idempotency_key, old, new, row.backfill_id
    )
