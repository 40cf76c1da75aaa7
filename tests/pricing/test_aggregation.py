"""What each aggregation makes of events."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.periods import Period
from core.pricing.aggregation import Aggregation, Reading, aggregate, by_key, max_of_daily_sums, unique_days, weighted_sum

D = Decimal
MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))


def day(number: int, quantity: str = "1", hour: int = 0) -> Reading:
    return Reading(datetime(2026, 3, number, hour, tzinfo=UTC), D(quantity))


def seen(number: int, value: str, removed: bool = False, hour: int = 0) -> Reading:
    return Reading(datetime(2026, 3, number, hour, tzinfo=UTC), value=value, removed=removed)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("count", D(4)), ("sum", D("16.5")), ("max", D(10)), ("min", D("-1")), ("avg", Fraction(33, 8)), ("latest", D("4.5"))],
)
def test_aggregations_of_numbers(aggregation: str, expected: Decimal | Fraction) -> None:
    readings = [day(3, "10"), day(9, "4.5"), day(1, "3"), day(4, "-1")]
    assert aggregate(Aggregation(aggregation), readings) == expected


@pytest.mark.parametrize("aggregation", list(Aggregation))
def test_without_events_everything_is_zero(aggregation: Aggregation) -> None:
    assert aggregate(aggregation, []) == 0


def test_of_two_readings_at_one_instant_the_later_arrival_is_the_latest() -> None:
    assert aggregate(Aggregation.LATEST, [day(1, "5"), day(1, "7")]) == 7


def test_unique_values_count_while_they_are_present() -> None:
    events = [seen(1, "a"), seen(2, "b"), seen(2, "b"), seen(5, "a", removed=True), seen(6, "c"), seen(3, "c", removed=True)]
    assert aggregate(Aggregation.UNIQUE_COUNT, events) == 2


def test_presence_is_counted_in_local_days_both_ends_included() -> None:
    events = [seen(1, "a"), seen(3, "a", removed=True), seen(30, "b"), seen(3, "a", hour=12), seen(4, "a", removed=True)]
    assert unique_days(events, MARCH, "UTC") == 4 + 2


def test_the_numberof_a_reading_is_local() -> None:
    readings = [day(1, "5", hour=22), day(1, "7", hour=23), day(2, "1")]
    assert max_of_daily_sums(readings, "UTC") == 12
    assert max_of_daily_sums(readings, "Europe/Berlin") == 8
    assert max_of_daily_sums([], "UTC") == 0


def test_a_weighted_sum_is_the_mean_of_a_running_total() -> None:
    assert weighted_sum([day(5, "2500")], MARCH) == (Fraction(2500 * 27, 31), D(2500))
    assert weighted_sum([], MARCH, initial=D(7)) == (7, D(7))


@given(st.lists(st.tuples(st.integers(0, 30), st.decimals(-100, 100, places=3)), max_size=12))
def test_a_weighted_sum_is_the_mean_over_the_days(changes: list[tuple[int, Decimal]]) -> None:
    readings = [Reading(MARCH.start + timedelta(days=days), quantity) for days, quantity in changes]
    totals = [sum((Fraction(q) for d, q in changes if d <= number), Fraction(0)) for number in range(31)]
    assert weighted_sum(readings, MARCH)[0] == sum(totals, Fraction(0)) / len(totals)


def test_groups_keep_the_order_of_arrival() -> None:
    groups = by_key([day(3), day(1), day(3)], lambda reading: reading.at.day)
    assert [(key, len(rows)) for key, rows in groups.items()] == [(3, 2), (1, 1)]
