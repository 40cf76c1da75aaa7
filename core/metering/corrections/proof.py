"""What the log's events are by now, corrections applied: for the recount, which compares the log with the events."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.orm import Session

NEWEST = """SELECT DISTINCT ON (c.batch_id, c.position) c.batch_id, c.position, c.new_timestamp, c.new_quantity
  FROM usage_batches b JOIN usage_corrections c ON c.batch_id = b.id
  WHERE b.received_at >= :start AND b.received_at < :end ORDER BY c.batch_id, c.position, c.id DESC"""
STILL_THERE = """SELECT e.organization_number, e."timestamp", e.quantity FROM (
    SELECT DISTINCT ON (c.batch_id, c.position) c.* FROM usage_batches b JOIN usage_corrections c ON c.batch_id = b.id
    WHERE b.received_at >= :start AND b.received_at < :end ORDER BY c.batch_id, c.position, c.id DESC) AS newest
  JOIN usage_events e ON e.organization_number = newest.organization_number AND e.event_number = newest.event_number
    AND e."timestamp" = newest.old_timestamp AND e.batch_id = newest.batch_id AND e.position = newest.position
  WHERE newest.new_timestamp IS DISTINCT FROM newest.old_timestamp"""
Place = tuple[int, int]


def corrected(session: Session, *, start: datetime, end: datetime) -> dict[Place, tuple[datetime, Decimal] | None]:
    """By batch and position of requests received in [start, end): what a corrected event says now, None where it counts no more."""
    rows = session.execute(text(NEWEST), {"start": start, "end": end})
    return {(row.batch_id, row.position): None if row.new_timestamp is None else (row.new_timestamp, row.new_quantity) for row in rows}


def still_there(session: Session, *, start: datetime, end: datetime) -> list[tuple[int, datetime, Decimal]]:
    """Events of those requests that are stored as they were before their newest correction: organization number, instant, quantity."""
    return [
        (row.organization_number, row.timestamp, row.quantity) for row in session.execute(text(STILL_THERE), {"start": start, "end": end})
    ]
