"""Cycles over month ends, leap days, clock changes and all time zones."""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.periods import Anchor, Interval, Period, anniversary_anchor, calendar_anchor, cycle_containing, cycles, midnight

instants = st.datetimes(datetime(2000, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC))
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/Santiago",
                         "Pacific/Kiritimati", "Asia/Beirut", "Africa/Cairo", "Pacific/Apia"])  # fmt: skip
anchors = st.builds(Anchor, st.sampled_from(Interval), st.integers(1, 13), st.dates(date(1999, 1, 1), date(2030, 1, 1)), zones)


def local(period: Period, timezone: str) -> tuple[str, str]:
    zone = ZoneInfo(timezone)
    return period.start.astimezone(zone).isoformat(), period.end.astimezone(zone).isoformat()


@pytest.mark.parametrize(("interval", "months"), [(Interval.MONTH, 1), (Interval.QUARTER, 3), (Interval.HALF_YEAR, 6), (Interval.YEAR, 12)])
def test_every_anchor_day_is_clamped_to_short_months_and_comes_back(interval: Interval, months: int) -> None:
    for day in range(1, 32):
        anchors = [Anchor(interval, 1, date(2023, 1, day), "UTC"), Anchor(interval, 1, date(2023, 1, 28), "UTC", month_day=day)]
        for n in range(120 // months):
            year, month = 2023 + n * months // 12, n * months % 12 + 1
            expected = date(year, month, min(day, monthrange(year, month)[1]))
            assert [anchor.boundary(n).date() for anchor in anchors] == [expected, expected]


def test_a_leap_day_anniversary() -> None:
    anchor = Anchor(Interval.YEAR, 1, date(2024, 2, 29), "UTC")
    bounds = [anchor.boundary(n).date().isoformat() for n in range(5)]
    assert bounds == ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]


@pytest.mark.parametrize(
    ("timezone", "start", "end", "hours"),
    [
        ("Europe/Berlin", "2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00", 31 * 24 - 1),
        ("Europe/Berlin", "2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00", 31 * 24 + 1),
        ("America/New_York", "2026-03-01T00:00:00-05:00", "2026-04-01T00:00:00-04:00", 31 * 24 - 1),
        ("Asia/Kolkata", "2026-03-01T00:00:00+05:30", "2026-04-01T00:00:00+05:30", 31 * 24),
    ],
)
def test_months_begin_at_local_midnight_across_clock_changes(timezone: str, start: str, end: str, hours: int) -> None:
    at = datetime.fromisoformat(start) + timedelta(days=14)
    cycle = cycle_containing(calendar_anchor(Interval.MONTH, 1, at, timezone), at)
    assert local(cycle, timezone) == (start, end)
    assert cycle.seconds == hours * 3600


def test_a_day_without_midnight_begins_when_its_clocks_start() -> None:
    start = midnight(date(2026, 9, 6), "America/Santiago")
    assert start.astimezone(ZoneInfo("America/Santiago")).isoformat() == "2026-09-06T01:00:00-03:00"


def test_a_day_that_a_zone_skipped_has_no_cycle() -> None:
    anchor = Anchor(Interval.DAY, 1, date(2011, 12, 29), "Pacific/Apia")
    days = list(cycles(anchor, anchor.boundary(0), anchor.boundary(4)))
    assert [day.start.astimezone(ZoneInfo("Pacific/Apia")).day for day in days] == [29, 31, 1]
    assert [day.seconds for day in days] == [86400] * 3


@pytest.mark.parametrize(
    ("interval", "expected"),
    [(Interval.DAY, "2026-05-20"), (Interval.WEEK, "2026-05-18"), (Interval.MONTH, "2026-05-01"), (Interval.QUARTER, "2026-04-01"),
     (Interval.HALF_YEAR, "2026-01-01"), (Interval.YEAR, "2026-01-01")],
)  # fmt: skip
def test_calendar_cycles_hang_on_the_local_calendar(interval: Interval, expected: str) -> None:
    at = datetime(2026, 5, 19, 22, 30, tzinfo=UTC)  # already the 20th in Berlin
    assert calendar_anchor(interval, 1, at, "Europe/Berlin").day.isoformat() == expected


def test_an_anniversary_hangs_on_the_local_day() -> None:
    at = datetime(2026, 1, 30, 23, 30, tzinfo=UTC)
    assert anniversary_anchor(Interval.MONTH, 1, at, "Europe/Berlin").day == date(2026, 1, 31)


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        anniversary_anchor(Interval.MONTH, 1, datetime(2026, 1, 1), "UTC")


@settings(max_examples=300, deadline=None)
@given(anchors, instants, st.integers(1, 2000))
def test_cycles_tile_time_without_gap_or_overlap(anchor: Anchor, start: datetime, days: int) -> None:
    until = start + timedelta(days=days)
    found = list(cycles(anchor, start, until))
    assert found[0].contains(start)
    assert found[-1].start < until <= found[-1].end
    assert all(one.end == other.start for one, other in pairwise(found))
    assert all(cycle.start < cycle.end for cycle in found)


@settings(max_examples=300, deadline=None)
@given(anchors, instants)
def test_the_cycle_of_an_instant_contains_it_and_hangs_on_the_anchor(anchor: Anchor, at: datetime) -> None:
    cycle = cycle_containing(anchor, at)
    assert cycle.contains(at)
    assert cycle == anchor.cycle(anchor.index(at))


def test_in_every_zone_every_month_of_ten_years_begins_on_its_first_moment() -> None:
    for name in sorted(available_timezones() - {"Factory", "localtime"}):
        zone = ZoneInfo(name)
        anchor = Anchor(Interval.MONTH, 1, date(2024, 1, 1), name)
        bounds = [anchor.boundary(n) for n in range(121)]
        assert all(a < b for a, b in pairwise(bounds)), name
        for n, bound in enumerate(bounds):
            expected = date(2024 + n // 12, n % 12 + 1, 1)
            assert bound.astimezone(zone).date() == expected, (name, bound)
            assert (bound - timedelta(microseconds=1)).astimezone(zone).date() < expected, (name, bound)


@settings(max_examples=200, deadline=None)
@given(zones, st.dates(date(2012, 1, 1), date(2037, 1, 1)))
def test_every_day_begins_on_its_first_moment(timezone: str, day: date) -> None:
    zone, start = ZoneInfo(timezone), midnight(day, timezone)
    assert start.astimezone(zone).date() == day
    assert (start - timedelta(microseconds=1)).astimezone(zone).date() < day
