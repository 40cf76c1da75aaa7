"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07): the first answer to a POST is kept and given again.

The record is written in the transaction of the change itself, so either both exist or neither. While that transaction runs, an
advisory lock on (principal, key) tells a second request that the first is in flight. Work that spans several transactions claims
the key first and is completed at its end; a claim whose process died may be taken over after CLAIM_MAX, since such work is
itself found by state.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from core.errors import Conflict, Invalid
from core.identity.models import IdempotencyRecord

CLAIM_MAX = timedelta(seconds=60)


def lock(session: Session, *, principal: str, key: str) -> None:
    """Hold (principal, key) until the transaction ends; raises Conflict when another transaction holds it."""
    number = int.from_bytes(hashlib.sha256(f"{principal}\x00{key}".encode()).digest()[:8], "big", signed=True)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(number))):
        raise _in_flight()


def find(session: Session, *, principal: str, key: str, request_hash: bytes, at: datetime) -> IdempotencyRecord | None:
    """The record of this key if it holds an answer or a live claim; raises Invalid for another request, Conflict while in flight."""
    record = session.scalar(select(IdempotencyRecord).where(IdempotencyRecord.principal == principal, IdempotencyRecord.key == key))
    if record is None:
        return None
    if record.request_hash != request_hash:
        raise Invalid("This Idempotency-Key was used for another request. Use a new key for a new request.", code="idempotency_key_reused")
    if record.status is None and record.created_at > at - CLAIM_MAX:
        raise _in_flight()
    return record


def claim(session: Session, *, principal: str, key: str, request_hash: bytes, at: datetime) -> IdempotencyRecord:
    """Note that work under this key begins; a claim left behind is taken over."""
    record = session.scalar(select(IdempotencyRecord).where(IdempotencyRecord.principal == principal, IdempotencyRecord.key == key))
    if record is None:
        record = IdempotencyRecord(principal=principal, key=key, request_hash=request_hash)
        session.add(record)
    record.created_at = at
    session.flush()
    return record


def complete(session: Session, *, principal: str, key: str, status: int, content_type: str, body: bytes) -> None:
    """Keep the answer given under a claimed key."""
    record = session.scalars(select(IdempotencyRecord).where(IdempotencyRecord.principal == principal, IdempotencyRecord.key == key)).one()
    record.status, record.content_type, record.body = status, content_type, body
    session.flush()


def release(session: Session, *, principal: str, key: str) -> None:
    """Give a claimed key back: nothing was done under it."""
    session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.principal == principal, IdempotencyRecord.key == key))


def _in_flight() -> Conflict:
    return Conflict("The first request with this Idempotency-Key is still being worked on.", code="idempotency_in_flight")
