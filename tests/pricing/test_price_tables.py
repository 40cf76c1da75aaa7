"""What a quantity costs under each model, at and around every bound."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.pricing.price import QuantityError, explain, price
from core.pricing.rules import MODEL_NAMES, RuleError, parse_model, to_json

TIERS = [
    {"up_to": "100", "unit_price": "2", "flat_fee": "10"},
    {"up_to": "200", "unit_price": "1", "flat_fee": "0"},
    {"up_to": None, "unit_price": "0.5", "flat_fee": "50"},
]
PACKAGE = {"package_size": "1000", "package_price": "0.40"}

TABLE = [
    ({"model": "flat", "flat_price": "99.00"}, [("0", "99"), ("7", "99")]),
    ({"model": "per_unit", "unit_price": "0.000008"}, [("0", "0"), ("4088665", "32.70932")]),
    ({"model": "graduated", "tiers": TIERS}, [("0", "10"), ("100", "210"), ("100.5", "210.5"), ("200", "310"), ("202", "361")]),
    ({"model": "volume", "tiers": TIERS}, [("0", "10"), ("100", "210"), ("100.5", "100.5"), ("200", "200"), ("202", "151")]),
    ({"model": "stairstep", "tiers": TIERS}, [("0", "10"), ("100", "10"), ("101", "0"), ("201", "50")]),
    ({"model": "package", **PACKAGE}, [("0", "0"), ("0.001", "0.4"), ("1000", "0.4"), ("1001", "0.8"), ("19366", "8")]),
    ({"model": "package", **PACKAGE, "free_units": "100"}, [("100", "0"), ("101", "0.4"), ("1100", "0.4"), ("1100.5", "0.8")]),
    ({"model": "package", **PACKAGE, "rounding": "down"}, [("999", "0"), ("1000", "0.4"), ("1999", "0.4")]),
]
TABLE += [
    (
        {"model": "graduated_percentage", "tiers": [{"up_to": "100", "rate_percent": "5"},
                                                    {"up_to": None, "rate_percent": "2", "flat_fee": "10"}]},
        [("0", "0"), ("50", "2.5"), ("100", "5"), ("150", "16")],
    ),
    (
        {"model": "graduated_blocks", "tiers": [{"up_to": "1000", "block_size": "100", "block_price": "1"},
                                                {"up_to": None, "block_size": "1000", "block_price": "1"}]},
        [("0", "0"), ("1", "1"), ("1000", "10"), ("1001", "11"), ("5325", "15")],
    ),
    (
        {"model": "volume_blocks", "tiers": [{"up_to": "1000", "block_size": "100", "block_price": "10"},
                                             {"up_to": None, "block_size": "100", "block_price": "1"}]},
        [("0", "0"), ("950", "100"), ("1001", "11"), ("2000", "20")],
    ),
]  # fmt: skip
ROWS = [(model, quantity, amount) for model, rows in TABLE for quantity, amount in rows]


@pytest.mark.parametrize(("model", "quantity", "amount"), ROWS)
def test_price(model: dict[str, object], quantity: str, amount: str) -> None:
    assert price(parse_model(model), Decimal(quantity)) == Decimal(amount)


@pytest.mark.parametrize(("model", "quantity", "amount"), ROWS)
def test_an_explanation_adds_up_to_the_price(model: dict[str, object], quantity: str, amount: str) -> None:
    explanation = explain(parse_model(model), Decimal(quantity))
    assert explanation.amount == Decimal(amount)
    assert sum(step.amount for step in explanation.steps) == explanation.amount
    assert explanation.formula


@pytest.mark.parametrize("model", [model for model, _ in TABLE])
def test_json_reads_back_to_the_same_model(model: dict[str, object]) -> None:
    parsed = parse_model(model)
    assert parse_model(to_json(parsed)) == parsed


@pytest.mark.parametrize("model", [model for model, _ in TABLE])
def test_a_negative_quantity_has_no_price(model: dict[str, object]) -> None:
    with pytest.raises(QuantityError):
        price(parse_model(model), Decimal("-0.01"))


def test_graduated_units_past_a_bounded_last_tier_cost_nothing() -> None:
    model = parse_model({"model": "graduated", "tiers": [{"up_to": "10", "unit_price": "5"}]})
    assert price(model, Decimal(15)) == 50


def test_volume_price_goes_on_past_a_bounded_last_tier() -> None:
    model = parse_model({"model": "volume", "tiers": [{"up_to": "10", "unit_price": "5"}]})
    assert price(model, Decimal(15)) == 75


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({}, "/model"),
        ({"model": "magic"}, "/model"),
        ({"model": ["flat"]}, "/model"),
        ({"model": "flat"}, "/flat_price"),
        ({"model": "flat", "flat_price": 1.5}, "/flat_price"),
        ({"model": "flat", "flat_price": True}, "/flat_price"),
        ({"model": "flat", "flat_price": "-1"}, "/flat_price"),
        ({"model": "flat", "flat_price": "1e3"}, "/flat_price"),
        ({"model": "flat", "flat_price": "１"}, "/flat_price"),
        ({"model": "flat", "flat_price": "1\n"}, "/flat_price"),
        ({"model": "flat", "flat_price": "NaN"}, "/flat_price"),
        ({"model": "flat", "flat_price": None}, "/flat_price"),
        ({"model": "per_unit", "unit_price": "1", "unit_prise": "2"}, "/unit_prise"),
        ({"model": "graduated"}, "/tiers"),
        ({"model": "graduated", "tiers": []}, "/tiers"),
        ({"model": "graduated", "tiers": {}}, "/tiers"),
        ({"model": "graduated", "tiers": ["x"]}, "/tiers/0"),
        ({"model": "graduated", "tiers": [{"up_to": None}]}, "/tiers/0"),
        ({"model": "graduated", "tiers": [{"unit_price": "1"}]}, "/tiers/0/up_to"),
        ({"model": "volume", "tiers": [{"up_to": "0", "unit_price": "1"}]}, "/tiers/0/up_to"),
        ({"model": "volume", "tiers": [{"up_to": None, "unit_price": "1"}, {"up_to": "5", "unit_price": "1"}]}, "/tiers/0/up_to"),
        ({"model": "volume", "tiers": [{"up_to": "5", "unit_price": "1"}, {"up_to": "5", "unit_price": "1"}]}, "/tiers/1/up_to"),
        ({"model": "volume", "tiers": [{"up_to": "5", "unit_price": "1"}, {"up_to": None, "unit_price": "x"}]}, "/tiers/1/unit_price"),
        ({"model": "volume", "tiers": [{"up_to": None, "price": "1", "flat_fee": "1"}]}, "/tiers/0/price"),
        ({"model": "graduated_percentage", "tiers": [{"up_to": None, "unit_price": "1"}]}, "/tiers/0/unit_price"),
        ({"model": "graduated_blocks", "tiers": [{"up_to": None, "block_size": "0", "block_price": "1"}]}, "/tiers/0/block_size"),
        ({"model": "volume_blocks", "tiers": [{"up_to": None, "block_size": "1"}]}, "/tiers/0/block_price"),
        ({"model": "package", "package_size": "0", "package_price": "1"}, "/package_size"),
        ({"model": "package", "package_size": "10", "package_price": "1", "rounding": "sideways"}, "/rounding"),
    ],
)
def test_a_wrong_model_names_the_value_that_is_wrong(data: dict[str, object], pointer: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_model(data)
    assert caught.value.pointer == pointer
    assert caught.value.detail


keys = st.sampled_from(
    ["model", "tiers", "up_to", "unit_price", "flat_fee", "flat_price", "package_size", "package_price", "rounding", "x"]
)
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from([*MODEL_NAMES, "1", "0.5", "1e9", "up"])
)
json_values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5), max_leaves=12)


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(keys, json_values, max_size=6), st.sampled_from(MODEL_NAMES))
def test_whatever_is_sent_is_a_model_or_a_pointed_error(data: dict[str, Any], name: str) -> None:
    try:
        model = parse_model({"model": name} | data)
    except RuleError as error:
        pointer = error.pointer
    else:
        assert parse_model(to_json(model)) == model
        pointer = "/"
    assert pointer == "" or pointer.startswith("/")


def test_every_model_name_is_covered_by_the_table() -> None:
    assert {str(model["model"]) for model, _ in TABLE} == set(MODEL_NAMES)
