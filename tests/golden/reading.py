"""Small readers the adapters share."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from core.periods import Anchor, Interval, local_date
from core.periods import instant as local_instant
from tests.golden.compare import Unsupported


def decimal(value: object) -> Decimal:
    """A decimal from a case's text or integer."""
    return Decimal(str(value))


def maybe(value: object) -> Decimal | None:
    """As `decimal`; None stays None."""
    return None if value is None else decimal(value)


def only(given: Mapping[str, Any], known: str) -> None:
    """Refuse a case that says something this adapter would ignore; `known` lists the keys it reads."""
    unknown = sorted(set(given) - set(known.split()))
    if unknown:
        raise Unsupported(f"does not read {', '.join(unknown)}")


def at(value: str, timezone: str = "UTC") -> datetime:
    """An instant from ISO text; a bare day is its local midnight."""
    if len(value) == 10:
        return local_instant(date.fromisoformat(value), timezone)
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else local_instant(moment.date(), timezone, moment.time())


def interval_of(given: Mapping[str, Any]) -> tuple[Interval, int]:
    """The interval and its count."""
    name = given.get("interval", "month")
    if name not in {interval.value for interval in Interval}:
        raise Unsupported(f"no interval {name}")
    return Interval(name), int(given.get("interval_count") or 1)


def hung(given: Mapping[str, Any], key: str = "start") -> Anchor:
    """Cycles from the start's month on `anchor_day`; counted in days they begin at the start."""
    interval, n = interval_of(given)
    timezone = given.get("timezone") or "UTC"
    day = local_date(at(given[key], timezone), timezone)
    by_days = interval in (Interval.DAY, Interval.WEEK, Interval.DAYS_30)
    return Anchor(interval, n, day, timezone, None if by_days else given.get("anchor_day"))
