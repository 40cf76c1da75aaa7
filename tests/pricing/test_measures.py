"""Parts of one cycle: what happened adds up, different values count once, what stood owes its share."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.periods import Interval, Period, calendar_anchor
from core.pricing.aggregation import Reading, weighted_sum
from core.pricing.models import Model, parse
from core.pricing.proration import Proration
from core.pricing.replay import again, inputs
from core.pricing.rules import PerUnit, PriceModel
from core.pricing.terms import Kind, Measure, Rule, Term, Timing
from core.pricing.timeline import LineKey, Owed, owed, segments
from core.pricing.usage import Usage
from tests.pricing.histories import models, quantities
from tests.pricing.test_properties import many

START, CHANGE, END = (datetime(2026, month, day, tzinfo=UTC) for month, day in ((6, 1), (6, 16), (7, 1)))
ANCHOR = calendar_anchor(Interval.MONTH, 1, START, "UTC")
PER_SEAT = {"model": "per_unit", "unit_price": "10"}


def priced(model: Model, prorate: Proration = Proration.SECONDS, measure: Measure = Measure.LEVEL, **given: object) -> Rule:
    return Rule("old", "seats", Kind.USAGE, Timing.IN_ARREARS, model, "seats", prorate, measure=measure, **given)  # type: ignore[arg-type]


def terms(rule: Rule, *bounds: datetime, moved: bool = True) -> list[Term]:
    """Terms that follow each other under the price, each under a version of its own where customers are `moved`."""
    spans = list(enumerate(pairwise(bounds)))
    return [Term(str(n), a, b, (replace(rule, id=f"v{n}") if moved else rule,), Decimal(1), ANCHOR) for n, (a, b) in spans]


def bill(parts: list[Term], used: Usage) -> dict[LineKey, Owed]:
    """What is owed when every window measured the same."""
    cuts = segments(parts, as_of=END)
    return owed(cuts, {(cut.rule.reads, cut.window.start, cut.window.end): used for cut in cuts}, "EUR")


def total(parts: list[Term], used: Usage) -> Fraction:
    return sum((Fraction(entry.amount) for entry in bill(parts, used).values()), Fraction(0))


moments = st.lists(st.integers(1, 30 * 24 * 60 - 1), max_size=4, unique=True).map(
    lambda minutes: [datetime.fromtimestamp(START.timestamp() + 60 * minute, UTC) for minute in sorted(minutes)]
)


@many
@given(models, quantities, st.sampled_from([Proration.SECONDS, Proration.DAYS, Proration.FIXED_30]), moments, st.booleans())
def test_a_level_that_stands_costs_the_same_however_the_cycle_is_cut(
    model: PriceModel, level: Decimal, prorate: Proration, cuts: list[datetime], moved: bool
) -> None:
    rule = priced(model, prorate, included=Decimal(7))
    assert total(terms(rule, START, *cuts, END, moved=moved), level) == total(terms(rule, START, END), level)


@many
@given(
    st.decimals("0", "100", places=4),
    moments,
    st.lists(st.tuples(st.integers(0, 30 * 24 * 60 - 1), st.decimals("0", "50", places=2)), max_size=6),
)
def test_a_mean_over_time_per_unit_costs_the_same_whatever_changed_in_between(
    unit_price: Decimal, cuts: list[datetime], changes: list[tuple[int, Decimal]]
) -> None:
    readings = sorted(
        (Reading(datetime.fromtimestamp(START.timestamp() + 60 * minute, UTC), change) for minute, change in changes), key=lambda r: r.at
    )
    found, standing = Fraction(0), Decimal(0)
    for part in (Period(a, b) for a, b in pairwise([START, *cuts, END])):
        mean, standing = weighted_sum([reading for reading in readings if part.contains(reading.at)], part, standing)
        # The kernel takes decimals; the mean itself may be endless, and only its scale by the share is at stake here.
        [(_, entry)] = bill(terms(priced(PerUnit(unit_price)), part.start, part.end), Decimal(1)).items()
        found += Fraction(entry.amount) * mean
    assert found == weighted_sum(readings, Period(START, END))[0] * Fraction(unit_price)


@pytest.mark.parametrize(
    ("price", "given", "expected"),
    [
        (PER_SEAT, {}, "100"),
        (PER_SEAT, {"included": Decimal(4)}, "60"),
        ({"model": "volume", "tiers": [{"up_to": "9", "unit_price": "10"}, {"up_to": None, "unit_price": "5"}]}, {}, "50"),
        ({**PER_SEAT, "minimum_amount": "120"}, {}, "120"),
        ({**PER_SEAT, "maximum_amount": "80"}, {}, "80"),
    ],
)
def test_ten_seats_cost_a_moved_customer_what_they_cost_any_other(
    price: dict[str, object], given: dict[str, Decimal], expected: str
) -> None:
    rule = priced(parse(price), **given)
    for parts in (terms(rule, START, END), terms(rule, START, CHANGE, END), terms(rule, START, CHANGE, END, moved=False)):
        assert total(parts, Decimal(10)) == Decimal(expected)
    [half] = bill(terms(rule, CHANGE, END), Decimal(10)).values()
    assert (half.amount, half.quantity) == (Decimal(expected) / 2, 10)


def test_a_pause_owes_nothing_of_a_level_and_a_price_that_is_not_prorated_all_of_it() -> None:
    for prorate, price, expected in (
        (Proration.DAYS, PER_SEAT, 50),
        (Proration.NONE, PER_SEAT, 100),
        (Proration.DAYS, {**PER_SEAT, "prorate": False}, 100),
    ):
        first, _, last = terms(
            priced(parse(price), prorate), START, datetime(2026, 6, 6, tzinfo=UTC), datetime(2026, 6, 21, tzinfo=UTC), END, moved=False
        )
        assert total([first, last], Decimal(10)) == expected


@pytest.mark.parametrize("price", [PER_SEAT, {**PER_SEAT, "minimum_amount": "150", "prorate": False}])
def test_a_level_is_worked_out_again_from_what_is_stored(price: dict[str, object]) -> None:
    first, _, last = terms(priced(parse(price), included=Decimal(3)), START, *(START.replace(day=n) for n in (8, 20)), END, moved=False)
    [entry] = bill([first, last], Decimal(12)).values()
    detail = json.loads(json.dumps({**entry.detail(), **inputs(entry, [first, last]), "timing": "in_arrears"}))
    found = again(detail, "EUR")
    assert found is not None
    assert (found.minor, found.detail()) == (entry.minor, entry.detail())


def test_different_values_are_counted_where_the_cycle_saw_them_first() -> None:
    parts = terms(priced(PerUnit(Decimal(1)), measure=Measure.DISTINCT), START, CHANGE, END)
    assert [(cut.window.start, cut.measured_from) for cut in segments(parts, as_of=END)] == [(START, None), (CHANGE, START)]
