"""RFC 3339 timestamps to microseconds since 1970, one at a time or a whole column at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FORM = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII)
LENGTH_MAX = 35
SEPARATORS = {4: "-", 7: "-", 10: "T", 13: ":", 16: ":"}


class BadTimestamp(ValueError):
    """The text is no RFC 3339 date-time with an offset; the message says what is wrong."""


def micros(at: datetime) -> int:
    """An aware datetime as microseconds since 1970."""
    return (at - EPOCH) // MICROSECOND


def instant(value: int) -> datetime:
    """Microseconds since 1970 as a UTC datetime."""
    return EPOCH + timedelta(microseconds=value)


def parse(text: str) -> int:
    """Microseconds of one timestamp; digits beyond the microsecond are cut. Raises BadTimestamp."""
    found = FORM.fullmatch(text) if len(text) <= LENGTH_MAX else None
    if found is None:
        without_zone = FORM.fullmatch(f"{text[:LENGTH_MAX]}Z") is not None
        reason = "has no offset: add Z or +hh:mm" if without_zone else "must be an RFC 3339 date-time such as 2026-11-22T10:30:00Z"
        raise BadTimestamp(reason)
    day, clock, fraction, offset = found.groups()
    try:
        at = datetime.fromisoformat(f"{day}T{clock}{(fraction or '')[:7]}{offset.upper()}")
        return micros(at)
    except (ValueError, OverflowError) as error:
        raise BadTimestamp("leap seconds cannot be stored" if clock.endswith(":60") else f"is no date: {error}") from error


def parse_column(texts: Sequence[str]) -> NDArray[np.int64] | None:
    """Microseconds of many timestamps of one form; None when any is different or no date. See parse_rows."""
    length = len(texts[0])
    joined = "".join(texts)
    if len(joined) != length * len(texts) or not joined.isascii():
        return None
    return parse_rows(np.frombuffer(joined.encode(), np.uint8).reshape(len(texts), length))


def parse_rows(rows: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Microseconds of timestamps of one form, `2026-11-22T10:30:00[.ffffff]` and Z or +00:00, a row of characters each; else None."""
    length = rows.shape[1]
    zone = "Z" if length and rows[0, -1] == ord("Z") else "+00:00"
    rows, end = rows[:, : length - len(zone)], rows[:, max(0, length - len(zone)) :]
    length -= len(zone)
    if not 19 <= length <= 26 or length == 20 or (end != np.frombuffer(zone.encode(), np.uint8)).any():
        return None
    separators = SEPARATORS if length == 19 else {**SEPARATORS, 19: "."}
    places = list(separators)
    if (rows[:, places] != np.frombuffer("".join(separators.values()).encode(), np.uint8)).any():
        return None
    digits = rows - np.uint8(ord("0"))
    digits[:, places] = 0
    if int(digits.max()) > 9:
        return None
    dates, hour, minute, second, in_day = (digits.astype(np.float64) @ WEIGHTS[:length]).T
    if hour.max() > 23 or minute.max() > 59 or second.max() > 59:
        return None
    distinct, which = (dates[:1], 0) if (dates == dates[0]).all() else np.unique(dates, return_inverse=True)
    try:
        midnights = [micros(datetime.strptime(f"{int(day):08}", "%Y%m%d").replace(tzinfo=UTC)) for day in distinct]
    except ValueError:
        return None
    whole: NDArray[np.int64] = np.array(midnights, np.int64)[which] + in_day.astype(np.int64)
    return whole


def _weights() -> NDArray[np.float64]:
    """One matrix turns rows of digits into yyyymmdd, hour, minute, second and microseconds of the day, all exact in float64."""
    weights = np.zeros((27, 5))
    weights[[0, 1, 2, 3, 5, 6, 8, 9], 0] = 10.0 ** np.arange(7, -1, -1)
    for part, (start, unit) in enumerate(((11, 3600), (14, 60), (17, 1)), start=1):
        weights[start : start + 2, part] = (10, 1)
        weights[start : start + 2, 4] = (10_000_000 * unit, 1_000_000 * unit)
    weights[20:26, 4] = 10.0 ** np.arange(5, -1, -1)
    return weights


WEIGHTS = _weights()
