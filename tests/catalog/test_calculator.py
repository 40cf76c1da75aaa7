"""The calculator: every model is asked what it needs, and answers with the figures of the documentation and of an invoice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.catalog import calculator
from core.catalog.plan_document import read_plan
from core.errors import Invalid
from core.metering.models import Metric
from core.pricing.models import NAMES

DOCS = Path(__file__).parents[2] / "docs"
PRICES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", (DOCS / "pricing-models.md").read_text(), re.DOTALL)]
TYPED: list[tuple[dict[str, str], int]] = [
    ({}, 9900),
    ({"quantity": "4088665"}, 3271),
    ({"quantity": "22,361,870"}, 3854),
    ({"quantity": "65000"}, 3900),
    ({"quantity": "11"}, 20000),
    ({"quantity": "19366"}, 800),
    ({"quantity": "3000"}, 6400),
    ({"quantity": "5325"}, 1500),
    ({"quantity": "5325"}, 600),
    ({"events": "50 100 250 400"}, 720),
    ({"quantity": "10"}, 1333),
    ({"cell_0": "2", "cell_1": "3", "cell_2": "11", "cell_other": "4"}, 1600),
    ({"slot_0": "10", "slot_1": "6", "slot_other": "5"}, 460),
    ({"units": "4 1", "shares": "70 50"}, 13300),
    ({"of_projects": "100", "of_storage_gb": "1001"}, 2000),
    ({"part_0_quantity": "1000", "part_1_quantity": "30720"}, 1850),
    ({"quantity": "4001"}, 2700),
]
"""What is typed for each price of the documentation, and what it comes to there, in cents."""


def metric(code: str) -> Metric:
    return Metric(id=uuid4(), code=code, name=code, aggregation="sum", group_by=["model", "region"])


METRICS = {code: metric(code) for code in ("calls", "projects", "storage_gb", "minutes", "megabytes")}


def plan_of(*prices: dict[str, Any], **given: Any) -> Any:
    return read_plan({"code": "x", "name": "X", "currency": "EUR", "billing_period": "month", "prices": list(prices), **given}, METRICS)


def test_every_model_comes_to_what_the_documentation_says() -> None:
    assert {price["model"] for price in PRICES} == set(NAMES)
    for price, (typed, cents) in zip(PRICES, TYPED, strict=True):
        plan = plan_of({**price, "metric": "calls"})
        found = calculator.calculate(plan, [typed])
        assert {ask.key for ask in calculator.asks(plan.prices[0])} >= typed.keys()
        assert found.total_minor == cents, price
        assert calculator.calculate(plan, [calculator.sample(plan.prices[0])]).lines[0].formula


def test_a_plan_comes_to_what_its_parts_say_together() -> None:
    plan = plan_of(
        {"licensed": "seats", "model": "per_unit", "unit_price": "10"},
        {"metric": "calls", "model": "per_unit", "unit_price": "0.01", "included": "100", "billing_period": "month"},
        {"code": "off", "model": "discount", "percent_off": "10", "covers": ["seats"]},
        {"code": "least", "model": "commitment", "amount": "1000"},
        billing_period="year",
        base_price="120",
    )
    found = calculator.calculate(plan, [{"held": "5"}, {"quantity": "1100"}])
    # 120 + 50 + 12 x 10 - 5 = 285, and 715 are missing to 1,000
    assert [line.minor for line in found.lines] == [12000, 5000, 12000, -500, 71500]
    assert [line.cycles for line in found.lines] == [1, 1, 12, 1, 1]
    assert (found.lines[2].included, found.total_minor) == (100, 100_000)


def test_what_is_no_number_is_refused_where_it_was_typed() -> None:
    plan = plan_of({"metric": "calls", "model": "per_unit", "unit_price": "1"}, {"metric": "calls", "code": "b", **PRICES[9]})
    with pytest.raises(Invalid) as refused:
        calculator.calculate(plan, [{"quantity": "lots"}, {"events": "1 x 3"}])
    assert [fault.pointer for fault in refused.value.errors] == ["/prices/0/use/quantity", "/prices/1/use/events"]
