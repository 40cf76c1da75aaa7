"""Judging events one by one, each fault with its place: the reference that the quick road must agree with."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import numpy as np

from core.metering import plain, wire
from core.metering.accounts import Account
from core.metering.blocks import Block, stopped
from core.metering.columns import Columns, quantity
from core.metering.directory import Directory, EventType
from core.metering.instants import instant, micros
from core.metering.meters import HOUR_MICROS, UnreadableProperty, feeds, value_of
from core.metering.texts import texts
from core.metering.wire import Candidate, Fault

REFUSED_EVENT_BYTES_MAX = 8 * 1024


@dataclass(frozen=True, slots=True)
class Window:
    """Which timestamps are taken, relative to the organization's time, and how many events at once.

    `late`: whether metrics that reject late usage do so.
    """

    past: timedelta
    future: timedelta
    events_max: int
    late: bool = True


@dataclass(frozen=True, slots=True)
class Bounds:
    """An organization's now and its first and last acceptable timestamp, in microseconds since 1970."""

    now: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Refused:
    """One refused event. `pointer` is inside the event, `event` what was sent."""

    index: int
    code: str
    pointer: str
    detail: str
    organization_id: uuid.UUID | None
    event: bytes


@dataclass(frozen=True, slots=True)
class _Kept:
    index: int
    item: Candidate
    account: Account
    kind: EventType
    now: int


def bounds(account: Account, window: Window, at: datetime) -> Bounds:
    """What the organization takes when the real time is `at`."""
    return bounds_at(account.frozen_time or at, window)


def bounds_at(now: datetime, window: Window) -> Bounds:
    """What an organization takes that lives at `now`."""
    return Bounds(micros(now), micros(now - window.past), micros(now + window.future))


def judge(
    directory: Directory, own: Account | None, raws: Sequence[bytes], *, window: Window, at: datetime
) -> tuple[Columns | None, list[str], tuple[Refused, ...]]:
    """The accepted events, the metrics each of them feeds (JSON lists of codes), and the refused."""
    read = [_read(raw) for raw in raws]
    candidates = [item for item in read if isinstance(item, Candidate)]
    named = {item.organization for item in candidates if item.organization is not None}
    accounts = directory.accounts(named) if own is None and named else {}
    types = directory.event_types({item.name for item in candidates})
    unclaimed = directory.unclaimed(_unread(candidates, types, own, accounts))
    blocks = directory.blocks()
    kept: list[_Kept] = []
    fed: list[str] = []
    refused: list[Refused] = []
    for index, item in enumerate(read):
        account = own
        try:
            if isinstance(item, Fault):
                raise item
            account = _account(own, accounts, item)
            kind = types.get(item.name) or unclaimed.get((account.number, item.name))
            if kind is None:
                hint = directory.suggestion(item.name)
                raise Fault("unknown_metric", "/metric_name", f"No metric reads events named {item.name}. {hint}")
            limits = bounds(account, window, at)
            _check_time(item, limits)
            codes = kind.codes if kind.plain else fed_codes(kind, item)
            if window.late and item.timestamp is not None and (late := lateness(kind, codes, item.timestamp, limits.now)) is not None:
                raise Fault("late_event", "/timestamp", late)
            if account.id in blocks:
                _check_limits(blocks[account.id], limits.now, item, codes)
            fed.append(codes)
            kept.append(_Kept(index, item, account, kind, limits.now))
        except Fault as fault:
            raw = raws[index][:REFUSED_EVENT_BYTES_MAX]
            refused.append(Refused(index, fault.code, fault.pointer, fault.detail, account.id if account else None, raw))
            fault.__traceback__ = None  # `read` holds the fault and it would hold this frame: a circle, and the body in it
    return _columns(kept) if kept else None, fed, tuple(refused)


def lateness(kind: EventType, codes: str, timestamp: int, now: int) -> str | None:
    """A sentence when a metric that the event feeds (`codes`, a JSON list) rejects what is so old `now`; instants in microseconds."""
    for meter in kind.meters:
        if meter.late_after is not None and now - timestamp > meter.late_after and f'"{meter.code}"' in codes:
            return f"The metric {meter.code} takes events for {meter.late_after // HOUR_MICROS} hours; this one came later."
    return None


def fed_codes(kind: EventType, item: Candidate) -> str:
    """JSON list of the metrics the event feeds; raises Fault when a property cannot be read or no metric takes the event."""
    codes = []
    for newest in kind.meters:
        meter = newest if item.timestamp is None else newest.at(item.timestamp)
        if feeds(meter, item.properties):
            codes.append(meter.code)
            try:
                value_of(meter, quantity(item.whole, item.fraction), item.properties)
            except UnreadableProperty as error:
                pointer = f"/properties/{wire.escape(error.name)}"
                raise Fault("invalid_property", pointer, f"The metric {meter.code} reads this property: it {error}.") from error
    if not codes:
        wants = {name for meter in kind.meters for name in meter.reads - {*meter.group_by}}
        detail = f"Metrics read events named {kind.name}, but none takes this one; they look at {', '.join(sorted(wants))}."
        raise Fault("no_metric_matches", "/properties", detail)
    return msgspec.json.encode(codes).decode()


def _read(raw: bytes) -> Candidate | Fault:
    try:
        return plain.read(raw) or wire.read(raw)
    except Fault as fault:
        return Fault(fault.code, fault.pointer, fault.detail)  # without its traceback, whose frames hold the body and this very fault


def _unread(
    candidates: Sequence[Candidate], types: Mapping[str, EventType], own: Account | None, accounts: Mapping[str, Account]
) -> set[tuple[int, str]]:
    """Organizations and the names they sent that no metric reads."""
    senders = [(own or accounts.get(item.organization or ""), item.name) for item in candidates if item.name not in types]
    return {(account.number, name) for account, name in senders if account is not None and account.status != "closed"}


def _account(own: Account | None, accounts: Mapping[str, Account], item: Candidate) -> Account:
    if own is not None:
        if item.organization is not None and not own.is_called(item.organization):
            raise Fault("unknown_organization", "/organization_id", "This key belongs to another organization; leave the field out.")
        return own
    if item.organization is None:
        raise Fault("missing_field", "/organization_id", "A platform key's events name their organization by id or external id.")
    account = accounts.get(item.organization)
    if account is None or account.status == "closed":
        raise Fault("unknown_organization", "/organization_id", "There is no such organization.")
    return account


def _check_time(item: Candidate, limits: Bounds) -> None:
    if item.timestamp is None:
        return
    if item.timestamp < limits.first:
        detail = f"Events before {instant(limits.first):%Y-%m-%dT%H:%M:%SZ} are not taken any more."
        raise Fault("timestamp_too_old", "/timestamp", detail)
    if item.timestamp > limits.last:
        detail = f"The timestamp is after {instant(limits.last):%Y-%m-%dT%H:%M:%SZ}; is the clock right?"
        raise Fault("timestamp_in_future", "/timestamp", detail)


def _check_limits(blocks: Sequence[Block], now: int, item: Candidate, codes: str) -> None:
    block = stopped(blocks, now=now, timestamp=now if item.timestamp is None else item.timestamp, fed=codes)
    if block is not None:
        raise Fault(block.reason, "", block.sentence)


NUMBERS = np.dtype(
    [
        ("organizations", np.int32),
        ("events", np.int32),
        ("timestamps", np.int64),
        ("defaulted", np.bool_),
        ("wholes", np.int64),
        ("fractions", np.int64),
        ("positions", np.int16),
    ]
)


def _columns(kept: Sequence[_Kept]) -> Columns:
    items = [one.item for one in kept]
    rows = np.array([_numbers(one) for one in kept], NUMBERS)
    return Columns(
        **{name: rows[name] for name in NUMBERS.names or ()},
        texts=texts(
            [item.key.encode() for item in items],
            [wire.encode_properties(item.properties) for item in items],
            {row: item.unit for row, item in enumerate(items) if item.unit is not None},
            {row: item.subscription_id for row, item in enumerate(items) if item.subscription_id is not None},
        ),
    )


def _numbers(one: _Kept) -> tuple[int, int, int, bool, int, int, int]:
    item, left_out = one.item, one.item.timestamp is None
    at = one.now if item.timestamp is None else item.timestamp
    return one.account.number, one.kind.number, at, left_out, item.whole, item.fraction, one.index
