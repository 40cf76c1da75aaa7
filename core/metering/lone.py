"""Judging the one event of a request: without lists and arrays, which one event does not repay.

`judge` answers None at the first sign of anything unusual; `careful` looks then. It must never accept what the careful road would
not, nor differently (tests/metering/test_roads.py compares them).
"""

from __future__ import annotations

from datetime import datetime

from core.metering import plain, wire
from core.metering.accounts import Account
from core.metering.careful import Window, bounds, fed_codes
from core.metering.columns import Lone
from core.metering.directory import Directory
from core.metering.wire import Candidate, Fault


def judge(directory: Directory, own: Account | None, raw: bytes, *, window: Window, at: datetime) -> tuple[Lone, str] | None:
    """The event, accepted, and the JSON list of metrics it feeds; None when it needs a closer look."""
    item = plain.read(raw)
    if item is None:
        return None
    account = _account(directory, own, item)
    kind = directory.event_types((item.name,)).get(item.name)
    if account is None or kind is None or kind.timed or account.status == "closed" or account.id in directory.blocks():
        return None
    limits = bounds(account, window, at)
    timestamp = limits.now if item.timestamp is None else item.timestamp
    if not limits.first <= timestamp <= limits.last:
        return None
    try:
        codes = kind.codes if kind.plain else fed_codes(kind, item)
    except Fault:
        return None
    key, properties = item.key.encode(), wire.encode_properties(item.properties)
    return Lone(account.number, kind.number, timestamp, item.timestamp is None, item.whole, item.fraction, key, properties), codes


def _account(directory: Directory, own: Account | None, item: Candidate) -> Account | None:
    if own is not None:
        return own if item.organization is None or own.is_called(item.organization) else None
    return None if item.organization is None else directory.accounts((item.organization,)).get(item.organization)
