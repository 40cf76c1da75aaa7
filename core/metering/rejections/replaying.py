"""Sending rejected events into the log again, as they were sent, once the cause is mended: with a verdict on each.

A replay is a request like any other: its events stand in the log and are counted by their keys, so an event that was counted meanwhile,
or is replayed twice, is a duplicate. What was rejected, when and why stays; every attempt is kept beside it.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from psycopg import Connection
from sqlalchemy import Row, insert, select
from sqlalchemy.orm import Session

from core import audit, config
from core.audit import Actor
from core.metering import careful, log
from core.metering.accept import Verdict
from core.metering.accounts import Account
from core.metering.careful import REFUSED_EVENT_BYTES_MAX, Window
from core.metering.columns import Columns, only, pack
from core.metering.corrections import gate
from core.metering.corrections.staging import Names
from core.metering.directory import Directory
from core.metering.instants import micros
from core.metering.rejections.finding import OPEN, Wanted
from core.metering.rejections.tables import usage_rejections, usage_replays

EVENTS_MAX = 5_000
"""In one replay; what is left is replayed by the next one."""
SHORTENED = "Only the first 8 KiB of this event were kept; it has to be sent again."
TOO_OLD = "It was rejected more than {days} days ago, longer than keys are surely known; send it in a file of past usage instead."


@dataclass(frozen=True, slots=True)
class Tried:
    """The verdict on one rejected event: `batch_id` in which it is counted, or why it was refused again."""

    id: int
    batch_id: int | None
    position: int = 0
    code: str = ""
    pointer: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did; `left` says that more of the wanted events wait for another one. `id` names it in the audit trail."""

    id: str
    tried: tuple[Tried, ...]
    left: bool

    @property
    def accepted(self) -> int:
        """How many stand in the log now."""
        return sum(one.batch_id is not None for one in self.tried)


class _Names(Names):
    """The directory in the session's transaction; the customer's limits hold."""

    blocks = Directory.blocks


def replay(session: Session, wanted: Wanted, *, actor: Actor, at: datetime) -> Replayed:
    """Judge up to EVENTS_MAX of the wanted events that no replay has accepted yet, oldest first, and log those that are in order.

    `at` is real time; the window is that of events that are sent. One without a timestamp has the time at which it was received.
    Rejected events that another replay holds at this moment are left to it.
    """
    r = usage_rejections.c
    query = select(usage_rejections).where(*replace(wanted, state=OPEN).conditions()).order_by(r.id)
    rows = session.execute(query.limit(EVENTS_MAX + 1).with_for_update(skip_locked=True, of=usage_rejections)).all()
    left, rows = len(rows) > EVENTS_MAX, rows[:EVENTS_MAX]
    if not rows:
        return Replayed("", (), False)
    settings = config.current()
    past, future = timedelta(days=settings.usage_window_past_days), timedelta(seconds=settings.usage_window_future_seconds)
    window = Window(past, future, EVENTS_MAX, late=False)
    with gate.connected(session) as connection:
        tried = [one for group in _grouped(rows) for one in _of_one(connection, group, at, window)]
    made = Replayed(f"{rows[0].id}-{rows[-1].id}", tuple(sorted(tried, key=lambda one: one.id)), left)
    who = {"at": at, "actor_kind": actor.kind, "actor_id": actor.id, "actor_label": actor.label}
    session.execute(insert(usage_replays), [who | _kept(one) for one in made.tried])
    reasons = Counter(one.code for one in made.tried if one.batch_id is None)
    owners = Counter(row.organization_id for row in rows)
    for organization_id, events in owners.items():
        told: dict[str, Any] = {"events": events, "accepted": made.accepted, "refused": dict(reasons), "of_accounts": len(owners)}
        audit.record(session, actor, "usage.replayed", made, at=at, organization_id=organization_id, **told)
    return made


def _grouped(rows: Sequence[Row[Any]]) -> Iterable[Sequence[Row[Any]]]:
    """By account and key: a batch of the log is one sender's."""
    groups: dict[tuple[uuid.UUID | None, uuid.UUID | None], list[Row[Any]]] = {}
    for row in rows:
        groups.setdefault((row.organization_id, row.api_key_id), []).append(row)
    return groups.values()


def _of_one(connection: Connection[Any], rows: Sequence[Row[Any]], at: datetime, window: Window) -> list[Tried]:
    names, organization_id = _Names(connection), rows[0].organization_id
    found = [fault for row in rows if (fault := _unusable(row, at, window.past)) is not None]
    usable = [row for row in rows if row.id not in {one.id for one in found}]
    own = names.accounts((str(organization_id),))[str(organization_id)] if organization_id else None
    if own is not None and own.status == "closed":
        return [_refused(row, "organization_closed", "", "The account is closed.") for row in rows]
    events = [bytes(row.event) for row in usable]
    columns, fed, refused = careful.judge(names, own, events, window=window, at=at) if usable else (None, [], ())
    found += [_refused(usable[one.index], one.code, one.pointer, one.detail) for one in refused]
    if columns is None:
        return found
    _date(columns, usable, own)
    late = _late(names, columns, fed, usable)
    found += [_refused(usable[place], "late_event", "/timestamp", detail) for place, detail in late.items()]
    kept = np.array([row for row, place in enumerate(columns.positions.tolist()) if place not in late], np.int64)
    if not len(kept):
        return found
    taken = only(columns, kept)
    batch_id = log.write(connection, [(Verdict(len(taken), taken, (), (), organization_id, rows[0].api_key_id), pack(taken))])[0]
    return found + [Tried(usable[place].id, batch_id, place) for place in taken.positions.tolist()]


def _refused(row: Row[Any], code: str, pointer: str, detail: str) -> Tried:
    return Tried(row.id, None, 0, code, pointer, detail)


def _unusable(row: Row[Any], at: datetime, past: timedelta) -> Tried | None:
    if row.received_at < at - past:
        return _refused(row, "rejected_long_ago", "", TOO_OLD.format(days=past.days))
    if len(row.event) >= REFUSED_EVENT_BYTES_MAX:
        return _refused(row, "event_shortened", "", SHORTENED)
    return None


def _late(names: Directory, columns: Columns, fed: Sequence[str], rows: Sequence[Row[Any]]) -> dict[int, str]:
    """Places of events that came too late, measured from when they came first, for a metric they feed; each with a sentence."""
    kinds = {kind.number: kind for kind in names.event_types(()).values()}
    found = {}
    for row, place in enumerate(columns.positions.tolist()):
        came = micros(rows[place].received_at)
        detail = careful.lateness(kinds[int(columns.events[row])], fed[row], int(columns.timestamps[row]), came)
        if detail is not None:
            found[place] = detail
    return found


def _date(columns: Columns, rows: Sequence[Row[Any]], own: Account | None) -> None:
    """Give events that were sent without a time the one at which they came; on a test clock that time is not known."""
    if own is not None and own.frozen_time is not None:
        return
    received = [micros(rows[place].received_at) for place in columns.positions.tolist()]
    columns.timestamps = columns.timestamps.copy()
    columns.timestamps[columns.defaulted] = [at for at, left_out in zip(received, columns.defaulted, strict=True) if left_out]


def _kept(one: Tried) -> dict[str, Any]:
    if one.batch_id is None:
        refusal = {"code": one.code, "pointer": one.pointer, "detail": one.detail}
        return {"rejection_id": one.id, "outcome": "refused", "batch_id": None, "position": None, **refusal}
    place = {"batch_id": one.batch_id, "position": one.position}
    return {"rejection_id": one.id, "outcome": "accepted", **place, "code": None, "pointer": None, "detail": None}
