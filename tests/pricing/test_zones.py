"""Every time zone of the IANA database, 2024 to 2034: billing periods follow each other without a gap, an overlap or a duplicate."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

from core.periods import Anchor, Interval, day_anchor, instant

FIRST, YEARS = 2024, 11
START, END = datetime(FIRST - 1, 11, 1, tzinfo=UTC), datetime(FIRST + YEARS, 3, 1, tzinfo=UTC)
STEP, SECOND = timedelta(days=21), timedelta(seconds=1)


@lru_cache(maxsize=1)
def clocks() -> dict[tuple[tuple[datetime, timedelta], ...], list[str]]:
    """The zones, by what their clocks do: those with the same offset and the same changes of it at the same instants are one case."""
    found: dict[tuple[tuple[datetime, timedelta], ...], list[str]] = {}
    for name in sorted(available_timezones() - {"Factory", "localtime"}):
        found.setdefault(_changes(ZoneInfo(name)), []).append(name)
    return found


def _changes(zone: ZoneInfo) -> tuple[tuple[datetime, timedelta], ...]:
    """The offset at the start and each instant at which it changes; no zone changes it twice within three weeks."""
    at, offset = START, _offset(zone, START)
    found = [(at, offset)]
    while at < END:
        following = at + STEP
        if (later := _offset(zone, following)) != offset:
            found.append((_change(zone, at, following), later))
            offset = later
        at = following
    return tuple(found)


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    old = _offset(zone, before)
    while after - before > SECOND:
        middle = before + (after - before) // 2
        before, after = (middle, after) if _offset(zone, middle) == old else (before, middle)
    return after.replace(microsecond=0)


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def test_every_zone_is_looked_at() -> None:
    assert sum(map(len, clocks().values())) > 480
    assert 60 < len(clocks()) < 200  # some keep daylight saving time, some Ramadan, most none


def test_every_anchor_day_gives_the_right_dates() -> None:
    """The calendar half, which knows no zone: day n of each month, the last day where the month is shorter, and back again."""
    for day in range(1, 32):
        monthly = day_anchor(Interval.MONTH, 1, datetime(FIRST, 1, 1, tzinfo=UTC), "UTC", day)
        expected = [date(FIRST + n // 12, n % 12 + 1, min(day, monthrange(FIRST + n // 12, n % 12 + 1)[1])) for n in range(12 * YEARS)]
        assert [monthly.boundary(n).date() for n in range(12 * YEARS)] == expected
        for month in range(1, 13):
            yearly = day_anchor(Interval.YEAR, 1, datetime(FIRST, month, 1, tzinfo=UTC), "UTC", day)
            first = yearly.index(datetime(FIRST, month, monthrange(FIRST, month)[1], 12, tzinfo=UTC))
            expected = [date(FIRST + n, month, min(day, monthrange(FIRST + n, month)[1])) for n in range(YEARS)]
            assert [yearly.boundary(first + n).date() for n in range(YEARS)] == expected


def test_in_every_zone_monthly_and_annual_periods_of_every_anchor_day_adjoin() -> None:
    """The clock half: each boundary is the first moment of its local day, later than the one before, so that periods tile the years."""
    days = [date(FIRST, 1, 1) + timedelta(days=n) for n in range(366 * YEARS)]
    for changes, names in clocks().items():
        name, zone = names[0], ZoneInfo(names[0])
        begins = [instant(day, name) for day in days]
        assert all(one < other for one, other in pairwise(begins)), name
        unusual = {at.date() + timedelta(days=n) for at, _ in changes for n in range(-2, 3)}
        for day, begin in zip(days, begins, strict=True):
            if day not in unusual and day.day not in (1, 31):
                continue  # between two changes of the clocks one day is like another
            assert begin.astimezone(zone).date() == day, (name, day)
            assert (begin - SECOND).astimezone(zone).date() < day, (name, day)
        for month_day in range(1, 32):  # the periods themselves; their boundaries are days checked above
            hung = date(FIRST, 1, month_day)
            for anchor, count in ((Anchor(Interval.MONTH, 1, hung, name), 12 * YEARS), (Anchor(Interval.YEAR, 1, hung, name), YEARS)):
                bounds = [anchor.boundary(n) for n in range(count)]
                assert all(one < other for one, other in pairwise(bounds)), (name, anchor)
                assert anchor.cycle(count - 2).end == anchor.cycle(count - 1).start == bounds[-1]
                assert anchor.index(bounds[-1]) == anchor.index(bounds[-1] - SECOND) + 1 == count - 1
