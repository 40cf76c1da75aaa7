"""The named ways to measure a part of a cycle, day by day."""

from datetime import datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest

from core.periods import Period
from core.pricing.proration import Proration, length, share


def berlin(start: str, end: str) -> Period:
    zone = ZoneInfo("Europe/Berlin")
    return Period(*(datetime.fromisoformat(at).replace(tzinfo=zone).astimezone(ZoneInfo("UTC")) for at in (start, end)))


@pytest.mark.parametrize(
    ("start", "end", "policy", "expected"),
    [
        ("2026-03-01", "2026-04-01", "seconds", 743 * 3600 * 10**6),
        ("2026-03-01", "2026-04-01", "days", 31),
        ("2026-03-28T13:00", "2026-03-30T11:00", "days", 2),
        ("2026-03-28T13:00", "2026-03-28T23:00", "days", 0),
        ("2026-03-28T13:00", "2026-03-30T11:00", "actual_days_inclusive", 3),
        ("2026-03-28", "2026-03-30", "actual_days_inclusive", 2),
        ("2026-05-23", "2026-06-15", "fixed_30", 22),
        ("2026-05-23", "2026-06-15", "fixed_28", 20),
        ("2026-05-01", "2026-05-31", "fixed_30", 29),
        ("2026-05-30", "2026-05-31", "fixed_30", 0),
        ("2026-05-01", "2026-05-31", "fixed_28", 27),
        ("2026-02-01", "2026-03-01", "fixed_30", 30),
        ("2026-12-15", "2027-01-15", "fixed_28", 28),
    ],
)
def test_length_of_a_span(start: str, end: str, policy: str, expected: int) -> None:
    assert length(berlin(start, end), Proration(policy), "Europe/Berlin") == expected


def test_a_local_day_is_not_a_utc_day() -> None:
    window = berlin("2026-03-01T00:30", "2026-03-02T12:00")
    assert length(window, Proration.DAYS, "Europe/Berlin") == 1
    assert length(window, Proration.DAYS, "UTC") == 2


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("seconds", Fraction(15 * 24, 743)),
        ("days", Fraction(15, 31)),
        ("fixed_30", Fraction(15, 30)),
        ("fixed_28", Fraction(15, 28)),
        ("actual_days_inclusive", Fraction(15, 31)),
        ("none", Fraction(1)),
    ],
)
def test_half_of_a_berlin_march(policy: str, expected: Fraction) -> None:
    cycle, window = berlin("2026-03-01", "2026-04-01"), berlin("2026-03-01", "2026-03-16")
    assert share(window, cycle, Proration(policy), "Europe/Berlin") == expected
    assert share(cycle, cycle, Proration(policy), "Europe/Berlin") == 1
