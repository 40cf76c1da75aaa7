"""The newest accepted events, straight from the log: what a person watches while integrating."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core.metering.columns import Columns, Corrupt, quantity, unpack
from core.metering.instants import instant
from core.metering.models import usage_batch_results, usage_batches, usage_event_names
from core.metering.queries import shown_properties
from core.metering.sums import organizations

BATCHES_MAX = 50
EVENTS_MAX = 200
SHOWN_MAX = 50
NUMBER_LENGTH = 19


@dataclass(frozen=True, slots=True)
class TailEvent:
    """One accepted event. `status` is pending, counted, duplicate or conflict; `id` its batch and position, also the cursor."""

    id: str
    organization_id: uuid.UUID
    status: str
    event_name: str
    received_at: datetime
    timestamp: datetime
    quantity: Decimal
    idempotency_key: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """What a tail has shown: every batch up to `base`, and `shown` behind it.

    Numbers are given before the commit, so a batch may become visible after one with a higher number; `shown` leaves room for it.
    """

    base: int = 0
    shown: frozenset[int] = frozenset()

    def moved(self, batches: Collection[int]) -> Place:
        """The place after these were shown too. Of a first look, or one at more than fits, what is older counts as shown."""
        base = max(self.base, min(batches) - 1) if batches and (not self.base or len(batches) >= BATCHES_MAX) else self.base
        known = sorted(self.shown.union(batches))
        if len(known) > SHOWN_MAX:
            base = max(base, known[-SHOWN_MAX - 1])
        return Place(base, frozenset(number for number in known if number > base))

    def __str__(self) -> str:
        return "-".join(map(str, [self.base, *(number - self.base for number in sorted(self.shown))]))

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place written so; the beginning when it is none."""
        parts = text.split("-")
        if len(parts) > SHOWN_MAX + 1 or not all(part.isascii() and part.isdigit() and len(part) < NUMBER_LENGTH for part in parts):
            return cls()
        base, *rest = map(int, parts)
        return cls(base, frozenset(base + number for number in rest))


def newest(
    session: Session, organization_id: uuid.UUID | None = None, *, after: Place = Place(), limit: int = EVENTS_MAX
) -> list[TailEvent]:
    """The events accepted last, newest first: of one organization, or of all (an operator). `after` leaves out what was shown."""
    b, r = usage_batches.c, usage_batch_results.c
    query = select(b.id, b.received_at, b.payload, r.counted, r.duplicates, r.conflicts).outerjoin(usage_batch_results, r.batch_id == b.id)
    if organization_id is not None:
        query = query.where(or_(b.organization_id == organization_id, b.organization_id.is_(None)))
    query = query.where(b.id > after.base, b.id.not_in(after.shown))
    batches = session.execute(query.order_by(b.id.desc()).limit(BATCHES_MAX)).all()
    read = [(batch, columns) for batch in batches if (columns := _columns(batch)) is not None]
    numbers = {int(number) for _, columns in read for number in set(columns.organizations.tolist())}
    owners = session.execute(select(organizations.c.number, organizations.c.id).where(organizations.c.number.in_(numbers)))
    accounts: dict[int, uuid.UUID] = {row.number: row.id for row in owners}
    names: dict[int, str] = {row.number: row.name for row in session.execute(select(usage_event_names))}
    found: list[TailEvent] = []
    for batch, columns in read:
        for row in range(len(columns) - 1, -1, -1):
            if organization_id in (None, accounts[int(columns.organizations[row])]):
                found.append(_event(batch, columns, row, accounts, names))
            if len(found) >= min(limit, EVENTS_MAX):
                return found
    return found


def _columns(batch: Any) -> Columns | None:
    try:
        return unpack(bytes(batch.payload))
    except Corrupt:
        return None


def _event(batch: Any, columns: Columns, row: int, accounts: Mapping[int, uuid.UUID], names: Mapping[int, str]) -> TailEvent:
    position = int(columns.positions[row])
    one = columns.texts.take(np.array([row]))
    status = "duplicate" if position in (batch.duplicates or ()) else "conflict" if position in (batch.conflicts or ()) else "counted"
    return TailEvent(
        id=f"{batch.id}-{position}",
        organization_id=accounts[int(columns.organizations[row])],
        status=status if batch.counted is not None else "pending",
        event_name=names[int(columns.events[row])],
        received_at=batch.received_at,
        timestamp=instant(int(columns.timestamps[row])),
        quantity=quantity(int(columns.wholes[row]), int(columns.fractions[row])),
        idempotency_key=one.all_keys()[0].decode(),
        properties=shown_properties(one.all_properties()[0]),
    )
