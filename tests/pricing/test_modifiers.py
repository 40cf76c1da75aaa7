"""What is done to a quantity before its price and to an amount after it."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.pricing.discounts import Discount, DiscountType, discounted
from core.pricing.modifiers import (
    Bounded,
    Commitment,
    Rounding,
    UnitConversion,
    added_steps,
    after_free_units,
    bounded,
    capped_credit,
    round_quantity,
)
from core.pricing.price import price
from core.pricing.rules import Package, PriceModel
from core.pricing.tax import included_tax_minor, tax_minor
from tests.pricing.histories import models, quantities

D = Decimal
PERCENT, FIXED = DiscountType.PERCENT, DiscountType.FIXED
money = st.integers(0, 10**7)


@pytest.mark.parametrize(
    ("quantity", "rounding", "precision", "expected"),
    [("123.456", Rounding.UP, 2, "123.46"), ("123.456", Rounding.DOWN, -2, "100"), ("123.456", Rounding.UP, -2, "200"),
     ("123.5", Rounding.HALF_UP, 0, "124"), ("-0.5", Rounding.HALF_UP, 0, "-1"), ("-0.5", Rounding.UP, 0, "0"),
     ("7", Rounding.DOWN, 0, "7")],
)  # fmt: skip
def test_rounding_a_quantity(quantity: str, rounding: Rounding, precision: int, expected: str) -> None:
    assert round_quantity(D(quantity), rounding, precision) == D(expected)


def test_unit_conversion_divides_or_multiplies_and_rounds_if_told() -> None:
    assert UnitConversion(False, D(1000), Rounding.UP).apply(D(1400)) == 2
    assert UnitConversion(False, D(1024)).apply(D(1536)) == D("1.5")
    assert UnitConversion(False, D(3)).apply(D(1)) == D("0.333333333333")
    assert UnitConversion(True, D(60)).apply(D("1.5")) == 90


@given(st.lists(quantities, min_size=1, max_size=6), quantities)
def test_free_units_are_given_once_however_the_usage_is_cut(parts: list[Decimal], free: Decimal) -> None:
    billed = prior = D(0)
    for part in parts:
        now, before = after_free_units(part, prior, free)
        assert before == billed
        billed, prior = billed + now, prior + part
    assert billed == max(sum(parts) - free, D(0))


@settings(max_examples=200, deadline=None)
@given(models, quantities, quantities)
def test_what_is_added_costs_the_difference(model: PriceModel, prior: Decimal, more: Decimal) -> None:
    steps = added_steps(model, prior, more)
    assert sum((step.amount for step in steps), D(0)) == price(model, prior + more) - price(model, prior)


def test_what_is_added_is_told_tier_by_tier() -> None:
    package = Package(D(10), D(15))
    assert [step.amount for step in added_steps(package, D(17), D(5))] == [15]
    assert added_steps(package, D(17), D(2)) == ()


@pytest.mark.parametrize(
    ("base", "before", "minimum", "maximum", "expected"),
    [
        ("75", "90", None, "100", ("75", "0", "65")),
        ("0", "100", "1000", None, ("0", "900", "0")),
        ("5", "0", None, None, ("5", "0", "0")),
        ("100", "0", "10", "100", ("100", "0", "0")),
        ("10", "200", None, "100", ("10", "0", "10")),
    ],
)
def test_a_period_is_held_between_its_bounds(base: str, before: str, minimum: str | None, maximum: str | None, expected: tuple) -> None:
    held = bounded(D(base), D(before), D(minimum) if minimum else None, D(maximum) if maximum else None)
    assert held == Bounded(*map(D, expected))


@given(st.lists(money, min_size=1, max_size=8), money, money)
def test_parts_of_a_period_bill_its_bounded_sum(parts: list[int], one: int, other: int) -> None:
    minimum, maximum = sorted((D(one), D(other)))
    billed = D(0)
    for part in parts[:-1]:
        billed += bounded(D(part), billed, None, maximum).amount
    billed += bounded(D(parts[-1]), billed, minimum, maximum).amount
    assert billed == min(max(sum(parts), minimum), maximum)


@given(money, money, st.lists(money, max_size=5))
def test_credits_never_exceed_what_was_paid(paid: int, credit: int, more: list[int]) -> None:
    given_back = D(0)
    for asked in [credit, *more]:
        given_back += capped_credit(D(asked), D(paid), given_back)
    assert given_back == min(sum([credit, *more]), paid)


def test_a_commitment_bills_overage_dearer_and_trues_up() -> None:
    assert Commitment(D(4), D(2)).apply(D(10)).amount == 16
    assert Commitment(D(10), D(2), true_up=True).apply(D(3)) == Bounded(D(3), D(7), D(0))
    assert Commitment(D(10), D(2)).apply(D(3)).amount == 3


@pytest.mark.parametrize(
    ("lines", "discounts", "parts"),
    [
        ([100, 200], [Discount(FIXED, D("1.00"))], [33, 67]),
        ([1000], [Discount(FIXED, D("15.00"))], [1000]),
        ([3333, 3333, 3334], [Discount(PERCENT, D("33.33"))], [1111, 1111, 1111]),
        ([5000, 5000], [Discount(PERCENT, D(10)), Discount(FIXED, D(10))], [1000, 1000]),
        ([5000, 5000], [Discount(FIXED, D(10)), Discount(PERCENT, D(10))], [950, 950]),
        ([], [Discount(FIXED, D(10))], []),
        ([0, 0], [Discount(PERCENT, D(10))], [0, 0]),
    ],
)
def test_discounts_stack_in_order(lines: list[int], discounts: list[Discount], parts: list[int]) -> None:
    assert discounted(lines, discounts, "EUR") == parts


@given(
    st.lists(money, min_size=1, max_size=8),
    st.lists(st.builds(Discount, st.sampled_from(DiscountType), st.decimals(0, 150, places=2)), max_size=4),
)
def test_discounts_lose_no_unit_and_leave_no_line_below_zero(lines: list[int], discounts: list[Discount]) -> None:
    parts = discounted(lines, discounts, "EUR")
    assert all(0 <= part <= line for part, line in zip(parts, lines, strict=True))
    assert sum(parts) == sum(discounted([sum(lines)], discounts, "EUR"))


@given(money, st.sampled_from([D(19), D("8.875"), D("0.01"), D(0), D(100)]), st.sampled_from(["EUR", "JPY", "KWD"]))
def test_a_gross_amount_contains_the_tax_of_its_net(net: int, rate: Decimal, currency: str) -> None:
    tax = tax_minor(net, rate, currency)
    assert abs(included_tax_minor(net + tax, rate, currency) - tax) <= 1
