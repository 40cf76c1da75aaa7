"""The prices and figures of the user documentation are true."""

import json
import re
from decimal import Decimal
from pathlib import Path

from core.money import round_half_up, to_decimal
from core.pricing.price import price
from core.pricing.rules import MODEL_NAMES, name_of, parse_model

TEXT = (Path(__file__).parents[2] / "docs" / "pricing-models.md").read_text()
BLOCKS = [parse_model(json.loads(block)) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
WORKED = {
    "flat": [("1", "99.00")],
    "per_unit": [("4088665", "32.71")],
    "graduated": [("22361870", "38.54")],
    "volume": [("65000", "39.00")],
    "stairstep": [("11", "200.00")],
    "package": [("19366", "8.00")],
    "graduated_percentage": [("3000", "64.00")],
    "graduated_blocks": [("5325", "15.00")],
}


def test_every_model_is_documented() -> None:
    assert all(f"`{name}`" in TEXT for name in MODEL_NAMES)
    assert [name_of(model) for model in BLOCKS] == list(WORKED)


def test_the_worked_examples_are_right() -> None:
    for model in BLOCKS:
        for quantity, amount in WORKED[name_of(model)]:
            assert to_decimal(round_half_up(price(model, Decimal(quantity)), "EUR"), "EUR") == Decimal(amount)
            assert amount in TEXT
