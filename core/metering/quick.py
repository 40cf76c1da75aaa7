"""Judging a request column by column, for the usual case that every event is in order.

`judge` answers None at the first sign of anything else; then the careful road finds out what it is. It must never accept what the
careful road would not, nor differently (tests/metering/test_roads.py compares them).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from msgspec.structs import astuple
from numpy.typing import NDArray

from core.metering import bodies, wire
from core.metering.accounts import Account
from core.metering.bodies import Form
from core.metering.careful import Bounds, Window, bounds, bounds_at, fed_codes
from core.metering.columns import Columns, Flags, Int32, Int64
from core.metering.directory import Directory, EventType
from core.metering.instants import BadTimestamp, parse, parse_column
from core.metering.plain import Event
from core.metering.texts import texts
from core.metering.wire import Candidate, Fault

PROPERTIES_BYTES_MAX = wire.PROPERTY_TEXT_LENGTH_MAX
TOKEN_LENGTH_MAX = 27
DOT, ZERO = np.uint8(ord(".")), np.uint8(ord("0"))
POWERS = 10 ** np.arange(13, dtype=np.int64)
Limits = tuple[Int64, Int64, Int64]
NUMBER, STATUS, FROZEN_TIME = map(attrgetter, ("number", "status", "frozen_time"))


class Unusual(Exception):
    """Something that is not judged by whole columns."""


_one = msgspec.json.Decoder(Event, float_hook=Decimal)
_many = msgspec.json.Decoder(list[Event], float_hook=Decimal)
_encode_lines = msgspec.json.Encoder(decimal_format="number", order="sorted").encode_lines
Column = Sequence[Any]


def judge(
    directory: Directory, own: Account | None, body: bytes, form: Form, *, window: Window, at: datetime
) -> tuple[Columns, Sequence[str]] | None:
    """The events of the body, all accepted, and the metrics each feeds; None when any of them needs a closer look."""
    if b"\\" in body:
        return None
    try:
        events = _one.decode_lines(body) if form == Form.NDJSON else _many.decode(body)
        if not 1 <= len(events) <= window.events_max or (form == Form.NDJSON and len(bodies.cut(body, form)) != len(events)):
            return None  # msgspec lets an event go on in the next line
        return _judged(
            directory, own, body, dict(zip(Event.__struct_fields__, zip(*map(astuple, events), strict=True), strict=True)), window, at
        )
    except (Unusual, msgspec.DecodeError, RecursionError, UnicodeDecodeError, ArithmeticError):
        return None


def _judged(
    directory: Directory, own: Account | None, body: bytes, given: dict[str, Column], window: Window, at: datetime
) -> tuple[Columns, Sequence[str]]:
    size = len(given["idempotency_key"])
    names = _one_name(given)
    types = directory.event_types(set(names))
    kinds = {name: known(types.get(name)) for name in set(names)}
    called, owned = _called(_references(given), size)
    organizations, limits = owners(directory, own, called, window, at)
    if len(limits[0]) > 1:
        limits = (limits[0][owned], limits[1][owned], limits[2][owned])
    timestamps, defaulted = _timestamps(given["timestamp"], limits)
    keys = _keys(given["idempotency_key"])
    wholes, fractions = _quantities(given["quantity"])
    properties = _properties(given["properties"])
    _no_name_twice(body, given, properties)
    columns = Columns(
        organizations[owned],
        np.array([kinds[name].number for name in names], np.int32),
        timestamps,
        defaulted,
        wholes,
        fractions,
        np.arange(size, dtype=np.int16),
        texts(keys, properties, units(given["unit"]), subscriptions(given["subscription_id"])),
    )
    return columns, fed(kinds, names, columns, given["properties"])


def known(kind: EventType | None) -> EventType:
    """An event type there is, whose metrics do not look at the time of each event; raises Unusual."""
    if kind is None or kind.timed:
        raise Unusual
    return kind


def _one_name(given: dict[str, Column]) -> Column:
    used = [name for name in wire.NAME_FIELDS if _is_given(given[name])]
    if len(used) != 1:
        raise Unusual
    return given[used[0]]


def _is_given(column: Column) -> bool:
    """Whether every event has the field; raises when only some have."""
    missing = column.count(UNSET)
    if missing not in (0, len(column)):
        raise Unusual
    return not missing


def _references(given: dict[str, Column]) -> Column:
    used = [name for name in wire.ORGANIZATION_FIELDS if _is_given(given[name])]
    if len(used) > 1:
        raise Unusual
    return given[used[0]] if used else ()


def _called(references: Column, size: int) -> tuple[list[str], NDArray[np.intp]]:
    """The different references, and which of them each event has."""
    places = {reference: place for place, reference in enumerate(dict.fromkeys(references))}
    return list(places), np.array([places[reference] for reference in references], np.intp) if places else np.zeros(size, np.intp)


def owners(directory: Directory, own: Account | None, called: Collection[str], window: Window, at: datetime) -> tuple[Int32, Limits]:
    """Numbers of the organizations `called` so (none: of the key's own); now, first and last acceptable timestamp of each, or of all.

    Raises Unusual.
    """
    if own is not None:
        if not all(map(own.is_called, called)) or own.id in directory.blocks():
            raise Unusual
        return np.full(max(1, len(called)), own.number, np.int32), _limits([own], window, at)
    if called and (usual := directory.usual_numbers(called)) is not None:
        return np.array(usual, np.int32), columns_of([bounds_at(at, window)])
    found = directory.accounts(called)
    accounts: list[Account] = [account for account in map(found.get, called) if account is not None]
    if not called or len(accounts) < len(called) or "closed" in set(map(STATUS, accounts)):
        raise Unusual
    if directory.blocks() and not directory.blocks().keys().isdisjoint([account.id for account in accounts]):
        raise Unusual
    one_time = set(map(FROZEN_TIME, accounts)) == {None}
    return np.fromiter(map(NUMBER, accounts), np.int32, len(accounts)), _limits(accounts[:1] if one_time else accounts, window, at)


def _limits(accounts: Collection[Account], window: Window, at: datetime) -> Limits:
    """Bounds of each account; one of each when all live in the same time."""
    times = {account.frozen_time: bounds(account, window, at) for account in {item.frozen_time: item for item in accounts}.values()}
    each = [times[account.frozen_time] for account in accounts] if len(times) > 1 else list(times.values())
    return columns_of(each)


def columns_of(limits: Sequence[Bounds]) -> Limits:
    """Bounds side by side."""
    return tuple(np.array([getattr(limit, name) for limit in limits], np.int64) for name in ("now", "first", "last"))  # type: ignore[return-value]


def now_for_all(size: int, limits: Limits) -> tuple[Int64, Flags]:
    """The timestamps of events that came without one."""
    return np.broadcast_to(limits[0], (size,)).copy(), np.ones(size, np.bool_)


def in_window(moments: Int64, limits: Limits) -> Int64:
    """`moments`, when all are acceptable; raises Unusual."""
    _, first, last = limits
    if (moments < first).any() or (moments > last).any():
        raise Unusual
    return moments


def _timestamps(texts: Column, limits: Limits) -> tuple[Int64, Flags]:
    if not _is_given(texts):
        return now_for_all(len(texts), limits)
    values = parse_column(texts)
    if values is None:
        try:
            values = np.array([parse(text) for text in texts], np.int64)
        except BadTimestamp as error:
            raise Unusual from error
    return in_window(values, limits), np.zeros(len(texts), np.bool_)


def _keys(keys: Column) -> list[bytes]:
    joined = "".join(keys)
    lengths = set(map(len, keys))
    if not joined.isascii() or not joined.isprintable() or " " in joined or not 1 <= min(lengths) <= max(lengths) <= 255:
        raise Unusual
    return "\n".join(keys).encode().split(b"\n")


def _quantities(tokens: Column) -> tuple[Int64, Int64]:
    if not _is_given(tokens):
        return np.ones(len(tokens), np.int64), np.zeros(len(tokens), np.int64)
    joined = b"\0".join(tokens)
    quotes = joined.count(b'"')
    if quotes and (quotes != 2 * len(tokens) or any(bytes(token)[:1] != b'"' for token in tokens)):
        raise Unusual
    return numbers(joined.replace(b'"', b"").split(b"\0"))


def numbers(texts: Sequence[bytes]) -> tuple[Int64, Int64]:
    """Whole units and 10^-12ths of decimals such as `12.5`, digit place by digit place for all rows at once; raises Unusual."""
    longest = max(map(len, texts))
    if longest > TOKEN_LENGTH_MAX:
        raise Unusual
    grid = np.array(texts, f"S{longest}").view(np.uint8).reshape(len(texts), longest)
    wholes, fractions, places, lead = (np.zeros(len(texts), np.int64) for _ in range(4))
    after = np.zeros(len(texts), np.bool_)
    for characters in np.ascontiguousarray(grid.T):
        is_dot = characters == DOT
        digits = characters - ZERO
        is_digit = digits < 10
        if not (is_digit | is_dot | (characters == 0)).all() or (is_dot & (after | (lead == 0))).any():
            raise Unusual
        before, behind = is_digit & ~after, is_digit & after
        wholes = np.where(before, wholes * 10 + digits, wholes)
        fractions = np.where(behind, fractions * 10 + digits, fractions)
        lead += before
        places += behind
        after |= is_dot
    if (lead == 0).any() or (lead > 14).any() or (places > 12).any() or (after & (places == 0)).any():
        raise Unusual
    return wholes, fractions * POWERS[12 - places]


def _properties(given: Column) -> list[bytes]:
    if not _is_given(given):
        return [b"{}"] * len(given)
    encoded = _encode_lines(given)
    if b"[" in encoded or encoded.count(b"{") != len(given):
        raise Unusual
    for names in set(map(tuple, given)):
        if len(names) > wire.PROPERTIES_MAX or not all(map(wire.is_name, names)):
            raise Unusual
    lines = encoded.split(b"\n")[:-1]
    if len(lines) != len(given) or max(map(len, lines)) > PROPERTIES_BYTES_MAX:
        raise Unusual
    return lines


def _no_name_twice(body: bytes, given: dict[str, Column], properties: Sequence[bytes]) -> None:
    """Compare the colons of the body with those the decoded events explain: a name that came twice leaves one over.

    Each name-value pair has one colon, and every other colon stands in a text (no text has an escape here).
    """
    explained = 0
    for name, column in given.items():
        if not _is_given(column):
            continue
        explained += len(column)
        if name == "properties":
            explained += b"\n".join(properties).count(b":")
        elif name != "quantity":
            explained += "".join(column).count(":")
    if explained != body.count(b":"):
        raise Unusual


def units(given: Column) -> dict[int, str]:
    """By row, unless no event has one; raises Unusual."""
    if not _is_given(given):
        return {}
    for unit in set(given):
        if not 1 <= len(unit) <= wire.UNIT_LENGTH_MAX or wire.UNPRINTABLE.search(unit):
            raise Unusual
    return dict(enumerate(given))


def subscriptions(ids: Column) -> dict[int, bytes]:
    """By row, unless no event has one; raises Unusual."""
    if not _is_given(ids):
        return {}
    try:
        return {row: wire.subscription_bytes(value) for row, value in enumerate(ids)}
    except ValueError as error:
        raise Unusual from error


def fed(kinds: dict[str, EventType], names: Column, columns: Columns, properties: Column) -> Sequence[str]:
    """The JSON list of metrics that each event feeds; raises Unusual."""
    if all(kind.plain for kind in kinds.values()):
        codes = {name: kind.codes for name, kind in kinds.items()}
        return [codes[name] for name in names]
    fed = []
    wholes, fractions = columns.wholes.tolist(), columns.fractions.tolist()
    for row, name in enumerate(names):
        kind = kinds[name]
        found = properties[row]
        item = Candidate(name, wholes[row], fractions[row], None, "", {} if found is UNSET else found, None, None, None)
        try:
            fed.append(kind.codes if kind.plain else fed_codes(kind, item))
        except Fault as fault:
            raise Unusual from fault
    return fed
