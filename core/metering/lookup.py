"""When the events of an idempotency key happened: the log says where they were put, corrections where they were moved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core.errors import FieldError, Invalid
from core.metering import places
from core.metering.corrections import gate
from core.metering.tables import usage_corrections

CANCELED = "57014"
Moment = tuple[int, int, datetime]
"""Organization number, event number and time: a range of the index of `usage_events`."""


def moments(session: Session, key: str, organization_number: int | None = None) -> set[Moment]:
    """Of each event the key may be of, as logged and as corrected; of one organization or of any. Nothing that is older than the log."""
    with gate.connected(session) as connection:
        found = {(one.organization_number, one.event_number, one.timestamp) for one in places.find(connection, key, organization_number)}
    c = usage_corrections.c
    owners = {organization_number} if organization_number is not None else {owner for owner, _, _ in found}
    moved = select(c.organization_number, c.event_number, c.new_timestamp).where(c.new_timestamp.is_not(None))
    moved = moved.where(c.organization_number.in_(owners), c.idempotency_key == key)
    return found | {(row[0], row[1], row[2]) for row in session.execute(moved)} if owners else found


@contextmanager
def among_stored(session: Session, *, seconds: float = 2) -> Iterator[None]:
    """Look for a key the log does not know, or knows no more, among the stored events themselves: one by one, so for a moment only.

    Raises Invalid when they are too many.
    """
    try:
        with session.begin_nested():
            session.execute(text(f"SET LOCAL statement_timeout = {int(seconds * 1000)}"))
            yield
            session.execute(text("SET LOCAL statement_timeout = DEFAULT"))
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != CANCELED:
            raise
        detail = f"Nothing with this key came in the last {places.KEPT.days} days, and older events are too many to look through at once."
        raise Invalid(f"{detail} Look in a shorter time.", errors=(FieldError("/idempotency_key", detail),)) from error
