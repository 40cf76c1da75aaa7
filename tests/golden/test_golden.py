"""The golden cases that ship with the product, and the runner's own manners."""

import json
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.golden.compare import Prefix, same
from tests.golden.runner import run

CASES = Path(__file__).parent / "cases"
FLOORS = {
    "aggregations.json": 37,
    "billing_periods.json": 174,
    "charge_models.json": 139,
    "credits_wallets.json": 16,
    "dunning.json": 2,
    "invoice_totals.json": 40,
    "proration.json": 111,
    "taxes_currency.json": 139,
}


def test_no_golden_case_fails_and_hardly_any_is_unsupported() -> None:
    result = run(CASES)
    assert result.failures == []
    for name, floor in FLOORS.items():
        assert result.by_file[name].passed >= floor, name


def write(directory: Path, name: str, cases: Any) -> None:
    (directory / name).write_text(json.dumps(cases))


def case(expected: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {"id": "x", "area": "charge_models", "input": given, "expected": expected}


def test_a_wrong_answer_fails_and_is_shown(tmp_path: Path) -> None:
    write(tmp_path, "charge_models.json", [case({"amount": "11"}, model="per_unit", currency="EUR", quantity="2", unit_price="5")])
    done = subprocess.run([sys.executable, "-m", "tests.golden", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'FAILED charge_models.json x: expected {"amount": "11"}, got {"amount": "10"}' in done.stdout
    assert "charge_models.json     0 passed    1 failed    0 unsupported (0.0%)" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "passed": 0,
        "failed": 1,
        "unsupported": 0,
        "by_file": {"charge_models.json": {"passed": 0, "failed": 1, "unsupported": 0}},
    }


def test_what_is_unknown_is_counted_with_its_reason_and_never_crashes(tmp_path: Path) -> None:
    write(tmp_path, "moon.json", [{"id": "m", "area": "moon", "input": {"op": "orbit"}, "expected": {"days": 28}}, "text", None, {"id": 1}])
    write(tmp_path, "charge_models.json", [
        case({"amount": "1"}, model="auction", currency="EUR"),
        case({"amount": "10", "mood": "good"}, model="per_unit", currency="EUR", quantity="2", unit_price="5"),
        case({"amount": "10"}, model="per_unit", currency="EUR", quantity="2", unit_price="5", surprise=True),
        case({"amount": "1"}, model="capacity", currency="EUR", quantities=None, capacity_tiers=7),
    ])  # fmt: skip
    write(tmp_path, "proration.json", {"cases": 5})
    (tmp_path / "broken.json").write_text("{")
    result = run(tmp_path)
    assert result.total("passed") == 0
    assert result.total("failed") == 0
    assert {reason for _, _, reason in result.reasons} == {
        "no adapter for moon", "not a case with input and expected", "no model auction", "does not answer mood", "does not read surprise",
        "cannot be read: TypeError: 'int' object is not iterable",
    }  # fmt: skip


def test_an_error_of_the_product_is_a_failure(tmp_path: Path) -> None:
    write(tmp_path, "charge_models.json", [case({"amount": "1"}, model="per_unit", currency="XXX", quantity="1", unit_price="1")])
    result = run(tmp_path)
    assert result.failures[0][3] == {"exception": "UnknownCurrency: 'XXX' is not a currency code of ISO 4217"}


def test_a_marked_disagreement_is_not_a_failure(tmp_path: Path) -> None:
    marked = case({"amount": "11"}, model="per_unit", currency="EUR", quantity="2", unit_price="5") | {"disagrees": "elsewhere it is 11"}
    write(tmp_path, "charge_models.json", [marked])
    assert run(tmp_path).summary()["by_file"] == {"charge_models.json": {"passed": 0, "failed": 0, "unsupported": 1}}


@pytest.mark.parametrize(
    ("expected", "got", "equal"),
    [
        ("10.00", Decimal(10), True), ("10.01", Decimal(10), False), ("0.67", Fraction(2, 3), True), ("0.66", Fraction(2, 3), False),
        ("0.67", Decimal("0.666"), False), ("1 + 14/31", Fraction(45, 31), True), ("1", Fraction(2, 3), True), (True, 1, False),
        (None, None, True), ([1, 2], Prefix([1, 2, 3]), True), ([1, 2], [1, 2, 3], False), ({"a": "1"}, {"a": 1, "b": 2}, True),
        ("x", "y", False),
    ],
)  # fmt: skip
def test_comparison_is_of_values_not_of_text(expected: object, got: object, equal: bool) -> None:
    assert same(expected, got) is equal
