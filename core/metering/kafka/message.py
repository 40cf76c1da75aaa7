"""One message of the log: a judged request, in MessagePack."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Any

import msgspec

from core.metering.accept import Verdict
from core.metering.careful import Refused

FORM = 1
ADDRESS = re.compile(r"kafka://([^/\s]+)/([A-Za-z0-9._-]{1,249})")
BYTES_MAX = 8 * 1024 * 1024


class Message(msgspec.Struct, array_like=True, frozen=True):
    """A request as the log keeps it; `id` is its batch's, given before it is sent. `payload` is columns.pack(), empty without events."""

    form: int
    id: int
    received_at: datetime
    organization_id: uuid.UUID | None
    api_key_id: uuid.UUID
    accepted: int
    payload: bytes
    refused: tuple[Refused, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def encode(verdict: Verdict, payload: bytes, *, batch_id: int, at: datetime) -> bytes:
    """The message of a verdict received at `at`."""
    accepted = len(verdict.accepted) if verdict.accepted is not None else 0
    return _encode(Message(FORM, batch_id, at, verdict.organization_id, verdict.api_key_id, accepted, payload, verdict.refused))


def decode(raw: bytes) -> Message:
    """The message written so. Raises ValueError when it is none, or of a form this version does not know."""
    found = _decode(raw)
    if found.form != FORM:
        raise ValueError(f"form {found.form} is not known")
    return found


def address(url: str) -> tuple[str, str]:
    """Brokers and topic of kafka://host:9092,host:9092/topic. Raises ValueError."""
    found = ADDRESS.fullmatch(url)
    if found is None:
        raise ValueError("a log's address is kafka://host:9092,host:9092/topic")
    return found[1], found[2]


def client(url: str, **given: Any) -> dict[str, Any]:
    """Settings of a client of that log."""
    return {"bootstrap.servers": address(url)[0], "client.id": "valueverse-usage", "log_level": 3, **given}
