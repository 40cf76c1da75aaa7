"""Applying a staged file and taking it back: each one transaction, with the gate held, by the aggregator's own counting.

Both tell the aggregator to read the keys anew (the epoch moves on): it keeps them in memory, and a key of the file that is sent again
must be known to it.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from psycopg import Connection
from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, InvalidTransition, NotFound
from core.metering import columns as column_form
from core.metering import counting, places, rollups
from core.metering.columns import Corrupt
from core.metering.corrections import gate, hours, progress, staging
from core.metering.corrections.progress import Step
from core.metering.corrections.staging import APPLIED, REVERTED, STAGED, Backfill, Names
from core.metering.counting import Batch, Counted
from core.metering.dedup import Claim
from core.metering.directory import EventType, event_type
from core.metering.instants import instant, micros
from core.metering.runs import ENTRY, Entries
from core.metering.tables import usage_backfill_rows, usage_backfills

BATCH_EVENTS = 5_000
SEED = "SELECT dedup_seed FROM usage_state"
READ_KEYS_ANEW = "UPDATE usage_state SET epoch = epoch + 1 RETURNING dedup_seed"
ROWS = """SELECT line, event, idempotency_key FROM usage_backfill_rows WHERE backfill_id = %s AND line > %s ORDER BY line LIMIT %s"""
COUNTED_KEYS = """SELECT idempotency_key FROM usage_backfill_rows WHERE backfill_id = %(id)s
  INTERSECT SELECT idempotency_key FROM usage_events WHERE organization_number = %(organization)s"""
"""As sets: of a join, the planner would choose one by nested loops while it knows nothing of rows just staged."""
VOIDED_KEYS = """SELECT r.idempotency_key FROM usage_backfill_rows r CROSS JOIN LATERAL (
    SELECT c.kind FROM usage_corrections c WHERE c.organization_number = %(organization)s AND c.idempotency_key = r.idempotency_key
    ORDER BY c.id DESC LIMIT 1) AS newest WHERE r.backfill_id = %(id)s AND newest.kind = 'void'"""
TOUCHED = """SELECT event_number, date_trunc('hour', "timestamp", 'UTC') AS hour, min("timestamp") AS first_at, max("timestamp") AS last_at
  FROM usage_backfill_rows WHERE backfill_id = %s AND fault IS NULL GROUP BY 1, 2 ORDER BY 1, 2"""
LOG = """INSERT INTO usage_batches (received_at, organization_id, accepted, rejected, payload) VALUES (now(), %s, %s, 0, %b)
  RETURNING id, received_at"""
SEGMENT = "INSERT INTO usage_dedup_segments (received_on, entries, keys) VALUES (CURRENT_DATE, %s, %b) RETURNING id"
KEYS = """INSERT INTO usage_dedup_keys (key_hash, fingerprint, received_on) SELECT g.*, CURRENT_DATE
  FROM unnest(%b::bytea[], %s::bigint[]) AS g ORDER BY 1 ON CONFLICT (key_hash) DO NOTHING"""
RELEASE = "DELETE FROM usage_dedup_segments WHERE id = ANY(%s) RETURNING keys"
CORRECTED = "SELECT count(*) FROM usage_corrections WHERE batch_id = ANY(%s)"
TAKE_BACK = """WITH gone AS (DELETE FROM usage_events e WHERE e.organization_number = %(organization)s AND e.event_number = ANY(%(events)s)
      AND e."timestamp" >= %(first)s AND e."timestamp" <= %(last)s AND e.batch_id = ANY(%(batches)s) RETURNING e.*)
  INSERT INTO usage_corrections (kind, at, actor_kind, actor_id, actor_label, reason, backfill_id, organization_number, event_number,
    batch_id, position, idempotency_key, received_at, subscription_id, unit, old_timestamp, old_quantity, old_properties)
  SELECT 'revert', %(at)s, %(actor_kind)s, %(actor_id)s, %(actor_label)s, %(reason)s, %(id)s, organization_number, event_number,
    batch_id, position, idempotency_key, received_at, subscription_id, unit, "timestamp", quantity, properties FROM gone"""


@dataclass(frozen=True, slots=True)
class Done:
    """What applying or reverting did. `known` lines were left out: their keys are counted already; `void` ones were voided before."""

    backfill: Backfill
    counted: int
    known: int
    void: int
    instants: tuple[datetime, ...]
    """The first and last instant of the file in each hour it touches."""
    keys_released: bool = True
    """Of a revert: whether the events could be sent again at once; else their keys stay known for as long as keys are kept."""


@dataclass(slots=True)
class _Claims:
    """Takes every key as new, and remembers them."""

    taken: list[Entries] = field(default_factory=list)

    def claim(self, keys: Entries) -> Claim:
        """Each key is the first of its kind: those known were left out before."""
        self.taken.append(keys)
        return Claim(np.ones(len(keys), np.bool_), keys["fingerprint"].copy())


def apply(session: Session, organization_id: uuid.UUID, backfill_id: uuid.UUID, *, actor: Actor, at: datetime, trial: bool = False) -> Done:
    """Count the file's events. InvalidTransition unless it is staged, Conflict when a line cannot count. `at`: organization's present.

    A `trial` (see gate) is what its caller takes back.
    """
    row = _locked(session, organization_id, backfill_id, STAGED)
    if row.refused:
        raise Conflict(f"{row.refused} lines of the file cannot count. Correct them and stage the file again.", code="faulty_lines")
    with gate.connected(session) as connection:
        parts = list(_judged(connection, row, at))
    with gate.held(session, trial=trial) as connection:
        organization, touched = _touched(connection, row)
        _check_whole(connection, organization, touched, trial=trial)
        asked = {"id": backfill_id, "organization": organization}
        counted_keys = {key for (key,) in connection.execute(COUNTED_KEYS, asked)}
        void_keys = {key for (key,) in connection.execute(VOIDED_KEYS, asked)} - counted_keys
        types = _types(connection, {event for event, *_ in touched})
        seed, claims, batches, total = _keys_anew(connection, trial=trial), _Claims(), [], 0
        for part in _without(parts, counted_keys | void_keys):
            batch = _logged(connection, organization_id, part)
            counted = counting.count([batch], types, seed, claims.claim)
            if counted.poisoned:
                raise Corrupt(counted.poisoned[0][1])
            gate.emptied(connection)
            rollups.write(connection, counted)
            places.note(connection, counted.keys)
            rollups.settle(connection, counted, at=instant(batch.received_at))
            batches.append(batch.id)
            total += _size(counted)
            progress.note(connection, backfill_id, Step.TRYING if trial else Step.COUNTING, total, row.events)
        segments = [] if trial else [_remember(connection, keys) for keys in claims.taken]
    values = {"status": APPLIED, "applied_at": at, "applied_by_label": actor.label, "batch_ids": batches, "segment_ids": segments}
    made = _moved(session, organization_id, backfill_id, values)
    known, void = len(counted_keys), len(void_keys)
    audit.record(session, actor, "usage_backfill.applied", made, at=at, reason=made.reason, counted=total, known=known, void=void)
    return Done(made, total, known, void, _instants(touched))


def revert(
    session: Session, organization_id: uuid.UUID, backfill_id: uuid.UUID, *, reason: str, actor: Actor, at: datetime, trial: bool = False
) -> Done:
    """Take every event of an applied file back. Conflict when one of them was corrected since; InvalidTransition unless it is applied."""
    row = _locked(session, organization_id, backfill_id, APPLIED)
    with gate.held(session, trial=trial) as connection:
        if (corrected := _one(connection, CORRECTED, row.batch_ids)) > 0:
            raise Conflict(f"{corrected} events of the file were corrected since; void the others one by one.", code="corrected_since")
        organization, touched = _touched(connection, row)
        _check_whole(connection, organization, touched, trial=trial)
        who = {"actor_kind": actor.kind, "actor_id": actor.id, "actor_label": actor.label, "reason": reason, "at": at}
        events = sorted({event for event, *_ in touched})
        span = {"first": min(_instants(touched)), "last": max(_instants(touched))}
        asked = {**who, **span, "id": backfill_id, "organization": organization, "events": events, "batches": row.batch_ids}
        taken = connection.execute(TAKE_BACK, asked).rowcount
        for event, of_event in _by_event(touched).items():
            hours.add_up(connection, organization, event, of_event)
        released = _release(connection, row.segment_ids)
        _keys_anew(connection, trial=trial)
    made = _moved(session, organization_id, backfill_id, {"status": REVERTED, "reverted_at": at, "reverted_by_label": actor.label})
    audit.record(session, actor, "usage_backfill.reverted", made, at=at, reason=reason, events=taken, file_name=made.file_name)
    return Done(made, taken, 0, 0, _instants(touched), released)


def discard(session: Session, organization_id: uuid.UUID, backfill_id: uuid.UUID, *, actor: Actor, at: datetime) -> Backfill:
    """Give up a staged file; its lines are deleted, the record of it stays."""
    _locked(session, organization_id, backfill_id, STAGED)
    made = _moved(session, organization_id, backfill_id, {"status": staging.DISCARDED})
    session.execute(usage_backfill_rows.delete().where(usage_backfill_rows.c.backfill_id == backfill_id))
    audit.record(session, actor, "usage_backfill.discarded", made, at=at, file_name=made.file_name)
    return made


def _locked(session: Session, organization_id: uuid.UUID, backfill_id: uuid.UUID, wanted: str) -> Any:
    b = usage_backfills.c
    query = select(usage_backfills).where(b.id == backfill_id, b.organization_id == organization_id).with_for_update()
    row = session.execute(query).first()
    if row is None:
        raise NotFound("There is no such backfill.")
    if row.status != wanted:
        raise InvalidTransition(f"The backfill is {row.status}, not {wanted}.")
    return row


def _moved(session: Session, organization_id: uuid.UUID, backfill_id: uuid.UUID, values: Mapping[str, Any]) -> Backfill:
    session.execute(usage_backfills.update().where(usage_backfills.c.id == backfill_id).values(**values))
    return staging.get(session, organization_id, backfill_id)


Touched = Sequence[tuple[int, datetime, datetime, datetime]]
Judged = tuple[column_form.Columns | None, Sequence[tuple[str, str]]]
"""Lines that can count, and the key and the fault of each that cannot."""


def _touched(connection: Connection[Any], row: Any) -> tuple[int, Touched]:
    """Number of the organization; event number, hour, first and last instant of each hour."""
    organization = _one(connection, "SELECT number FROM organizations WHERE id = %s", row.organization_id)
    return organization, connection.execute(TOUCHED, (row.id,)).fetchall()


def _by_event(touched: Touched) -> dict[int, set[datetime]]:
    found: dict[int, set[datetime]] = {}
    for event, hour, *_ in touched:
        found.setdefault(event, set()).add(hour)
    return found


def _check_whole(connection: Connection[Any], organization: int, touched: Touched, *, trial: bool) -> None:
    for event, of_event in _by_event(touched).items():
        hours.check_whole(connection, organization, event, of_event, trial=trial)


def _instants(touched: Touched) -> tuple[datetime, ...]:
    return tuple(moment for _, _, first, last in touched for moment in (first, last))


def _types(connection: Connection[Any], events: Collection[int]) -> dict[int, EventType]:
    return {number: event_type("", number, tuple(hours.meters(connection, number))) for number in events}


def _judged(connection: Connection[Any], row: Any, at: datetime) -> Iterator[Judged]:
    """The file's lines, a batch of the log at a time, judged again: a metric may have changed since they were staged."""
    names, line, done = Names(connection), 0, 0
    while rows := connection.execute(ROWS, (row.id, line, BATCH_EVENTS)).fetchall():
        line, done = rows[-1][0], done + len(rows)
        columns, refused = staging.judge(names, row.organization_id, [bytes(raw) for _, raw, _ in rows], at)
        yield columns, [(rows[one.index][2], one.detail) for one in refused]
        progress.note(connection, row.id, Step.JUDGING, done, row.events)


def _without(parts: Iterable[Judged], skipped: Collection[str]) -> Iterator[column_form.Columns]:
    """What of each batch is to be counted. Conflict when a line of it cannot count any more."""
    left_out = {key.encode() for key in skipped}
    for columns, refused in parts:
        detail = next((detail for key, detail in refused if key not in skipped), None)
        if detail is not None:
            raise Conflict(f"A line of the file cannot count any more: {detail} Stage it again.", code="faulty_lines")
        if columns is not None:
            kept = np.array([row for row, key in enumerate(columns.texts.all_keys()) if key not in left_out], np.int64)
            if len(kept):
                yield column_form.only(columns, kept)


def _logged(connection: Connection[Any], organization_id: uuid.UUID, part: column_form.Columns) -> Batch:
    """The part as an entry of the log, so that a recount of the log knows its events. Real time, whatever clock the customer is on."""
    payload = column_form.pack(part)
    row = connection.execute(LOG, (organization_id, len(part), payload)).fetchone()
    if row is None:
        raise LookupError("the database answered with no row")
    return Batch(row[0], micros(row[1]), payload)


def _size(counted: Counted) -> int:
    return sum(fate.counted for fate in counted.fates)


def _keys_anew(connection: Connection[Any], *, trial: bool) -> int:
    """Have the aggregator read the keys again once this commits; returns the keys' seed."""
    return _one(connection, SEED if trial else READ_KEYS_ANEW)


def _remember(connection: Connection[Any], keys: Entries) -> int:
    """Keep the keys where either store of keys finds them."""
    hashes = [key.tobytes()[:16] for key in keys]
    connection.execute(KEYS, (hashes, keys["fingerprint"].tolist()))
    return _one(connection, SEGMENT, len(keys), keys.tobytes())


def _release(connection: Connection[Any], segment_ids: Sequence[int]) -> bool:
    """Forget the keys again; False when some left the segments since (see runs)."""
    rows = connection.execute(RELEASE, (list(segment_ids),)).fetchall()
    for (keys,) in rows:
        hashes = [key.tobytes()[:16] for key in np.frombuffer(bytes(keys), ENTRY)]
        connection.execute("DELETE FROM usage_dedup_keys WHERE key_hash = ANY(%s)", (hashes,))
    return len(rows) == len(segment_ids)


def _one(connection: Connection[Any], statement: str, *values: Any) -> int:
    row = connection.execute(statement, values).fetchone()
    if row is None:
        raise LookupError("the database answered with no row")
    return int(row[0])
