"""Every model of the vocabulary, with its modifiers: JSON there and back, golden figures, explanations that add up, faults with a place."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest

from core.money import EXACT, round_half_up, to_decimal
from core.pricing.charge import charge, explain_charge
from core.pricing.fields import RuleError
from core.pricing.models import NAMES, bare, name_of, parse, to_json
from core.pricing.modifiers import Modified
from core.pricing.usage import Events, Grouped, Usage, merged, total
from tests.pricing.vocabulary import Told, told

D = Decimal
TOLD = list(told())
UNIT = {"model": "per_unit", "unit_price": "0.10"}
MATRIX = {
    "model": "matrix",
    "dimensions": ["model", "region"],
    "prices": [
        {"values": {"model": "large", "region": "eu"}, "unit_price": "3"},
        {"values": {"model": "large"}, "unit_price": "2"},
        {"values": {"model": "small"}, "model": "package", "package_size": "10", "package_price": "1"},
    ],
    "default": {"unit_price": "0.5"},
}
HOURS = {
    "model": "time_of_use",
    "windows": [
        {"name": "peak", "weekdays": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "20:00", "unit_price": "0.30"},
        {"name": "night", "from": "22:00", "to": "06:00", "unit_price": "0.10"},
    ],
    "default": {"unit_price": "0.20"},
}


def cost(price: dict[str, object], usage: Usage) -> Decimal:
    with localcontext(EXACT):
        amount = charge(parse(price), usage)
    assert isinstance(amount, Decimal)
    return amount


@pytest.mark.parametrize("case", TOLD, ids=lambda case: case.id)
def test_golden_figures_from_json(case: Told) -> None:
    model = parse(case.price)
    assert parse(to_json(model)) == model
    with localcontext(EXACT):
        amount, found = charge(model, case.usage), explain_charge(model, case.usage)
    assert Fraction(found.amount) == Fraction(amount)
    assert abs(Fraction(sum((step.amount for step in found.steps), D(0))) - Fraction(amount)) < Fraction(1, 10**11)
    if "amount" in case.expected:
        assert abs(Fraction(amount) - Fraction(case.expected["amount"])) < Fraction(1, 10**9)
    if "amount_rounded" in case.expected:
        assert to_decimal(round_half_up(amount, case.currency), case.currency) == D(case.expected["amount_rounded"])


def test_the_cases_know_nearly_every_model() -> None:
    known = {name_of(parse(case.price)) for case in TOLD}
    assert set(NAMES) - known == {"matrix", "time_of_use", "flat", "stairstep"}


def test_a_matrix_prices_each_combination_alone() -> None:
    usage = Grouped({("large", "eu"): D(2), ("large", "us"): D(3), ("small", "eu"): D(11), ("small", "us"): D(1), ("huge", ""): D(4)})
    assert cost(MATRIX, usage) == 2 * 3 + 3 * 2 + 2 + 1 + 2
    assert cost({**MATRIX, "default": None}, Grouped({("huge", "eu"): D(4)})) == 0


def test_hours_of_the_week_have_prices() -> None:
    model = bare(parse(HOURS))
    names = {(0, 480): "peak", (0, 479): "other hours", (4, 1199): "peak", (4, 1200): "other hours", (5, 600): "other hours"}
    names |= {(5, 1320): "night", (6, 359): "night", (6, 360): "other hours"}
    assert {at: model.slot_at(*at) for at in names} == names  # type: ignore[union-attr]
    assert cost(HOURS, Grouped({("peak",): D(10), ("night",): D(10), ("other hours",): D(10)})) == 6


def test_modifiers_apply_in_their_order() -> None:
    converted = {"unit_conversion": {"operation": "divide", "factor": "1000", "rounding": "up"}, "usage_discount": "2"}
    price = {**UNIT, "unit_price": "10", **converted, "discount_percent": "10", "minimum_amount": "5", "maximum_amount": "100"}
    assert cost(price, D(4001)) == 27  # 5 thousands begun, 2 included, 3 at 10 less 10 %
    assert cost(price, D(0)) == 5
    assert cost(price, D(1_000_000)) == 100


def test_a_part_of_a_cycle_has_its_part_of_minimum_and_included_units() -> None:
    model = parse({**UNIT, "usage_discount": "100", "minimum_amount": "9"})
    assert isinstance(model, Modified)
    half = model.part(Fraction(1, 2))
    assert (half.usage_discount, half.minimum_amount) == (50, D("4.5"))
    kept = parse({**UNIT, "minimum_amount": "9", "prorate": False})
    assert isinstance(kept, Modified)
    assert kept.part(Fraction(1, 2)) == kept


def test_usage_of_following_windows_adds_up() -> None:
    assert merged([]) == 0
    assert merged([D(1), D(2)]) == 3
    assert merged([Grouped({("a",): D(1)}), Grouped({("a",): D(2), ("b",): D(3)})], Grouped({})) == Grouped({("a",): D(3), ("b",): D(3)})
    assert total(merged([Events((D(1),)), Events((D(2), D(3)))], Events(()))) == 6
    with pytest.raises(TypeError, match="not usage of one price"):
        merged([Events(())], Grouped({}))


@pytest.mark.parametrize(
    ("price", "pointer"),
    [
        ({**UNIT, "minimum_amount": "x"}, "/minimum_amount"),
        ({**UNIT, "minimum_amount": "2", "maximum_amount": "1"}, "/maximum_amount"),
        ({**UNIT, "discount_percent": "101"}, "/discount_percent"),
        ({**UNIT, "bucket": "decade"}, "/bucket"),
        ({**UNIT, "bucket": "day", "usage_discount": "1"}, "/usage_discount"),
        ({**UNIT, "unit_conversion": {"operation": "add", "factor": "1"}}, "/unit_conversion/operation"),
        ({**UNIT, "unit_conversion": {"operation": "divide", "factor": "0"}}, "/unit_conversion/factor"),
        ({**UNIT, "minimum_ammount": "1"}, "/minimum_ammount"),
        ({"model": "percentage"}, "/rate_percent"),
        ({"model": "percentage", "rate_percent": "1", "free_events": "1.5"}, "/free_events"),
        ({"model": "percentage", "rate_percent": "1", "min_per_event": "2", "max_per_event": "1"}, "/max_per_event"),
        ({"model": "capacity", "capacity_tiers": [{"price": "1", "limits": {"a": "1"}}]}, "/capacity_tiers/0/limits"),
        ({**MATRIX, "prices": [{"values": {"colour": "red"}, "unit_price": "1"}]}, "/prices/0/values/colour"),
        ({**MATRIX, "prices": [{"values": {"model": "a"}, "unit_price": "1,0"}]}, "/prices/0/unit_price"),
        ({key: MATRIX[key] for key in ("model", "dimensions", "prices")}, "/default"),
        ({**HOURS, "windows": [{"name": "peak", "from": "25:00", "unit_price": "1"}]}, "/windows/0/from"),
        ({**HOURS, "windows": [{"name": "peak", "weekdays": ["someday"], "unit_price": "1"}]}, "/windows/0/weekdays/0"),
        ({**HOURS, "bucket": "day"}, "/bucket"),
        ({"model": "sum", "parts": [UNIT, {"model": "graduated", "tiers": [{"up_to": "1"}]}]}, "/parts/1/tiers/0"),
        ({"model": "sum", "parts": [{"model": "sum", "parts": [UNIT]}]}, "/parts/0/model"),
        ({"model": "barter"}, "/model"),
    ],
    ids=str,
)
def test_faults_name_their_place(price: dict[str, object], pointer: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse(price)
    assert caught.value.pointer == pointer
