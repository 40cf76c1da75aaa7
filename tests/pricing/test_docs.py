"""The prices and figures of the user documentation are true."""

import json
import re
from decimal import Decimal
from pathlib import Path

from core.money import round_half_up, to_decimal
from core.pricing.charge import charge
from core.pricing.models import MODIFIER_KEYS, NAMES, name_of, parse
from core.pricing.usage import ByMetric, Changes, Events, Grouped, ProratedChange, Several, Usage

TEXT = (Path(__file__).parents[2] / "docs" / "pricing-models.md").read_text()
BLOCKS = [parse(json.loads(block)) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
D = Decimal
PLACES = {("large", "eu"): D(2), ("large", "us"): D(3), ("small", "eu"): D(11), ("huge", "eu"): D(4)}
WORKED: list[tuple[str, Usage, str]] = [
    ("flat", D(1), "99.00"),
    ("per_unit", D(4088665), "32.71"),
    ("graduated", D(22361870), "38.54"),
    ("volume", D(65000), "39.00"),
    ("stairstep", D(11), "200.00"),
    ("package", D(19366), "8.00"),
    ("graduated_percentage", D(3000), "64.00"),
    ("graduated_blocks", D(5325), "15.00"),
    ("volume_blocks", D(5325), "6.00"),
    ("percentage", Events((D(50), D(100), D(250), D(400))), "7.20"),
    ("dynamic", D(10), "13.33"),
    ("matrix", Grouped(PLACES), "16.00"),
    ("time_of_use", Grouped({("peak",): D(10), ("night",): D(6), ("other hours",): D(5)}), "4.60"),
    ("graduated_prorated", Changes((ProratedChange(D(4), D("2.8")), ProratedChange(D(1), D("0.5")))), "133.00"),
    ("capacity", ByMetric({"projects": D(100), "storage_gb": D(1001)}), "20.00"),
    ("sum", Several((D(1000), D(30720))), "18.50"),
    ("per_unit", D(4001), "27.00"),
]


def test_every_model_is_documented() -> None:
    assert all(f"`{name}`" in TEXT for name in NAMES)
    assert all(f"`{key}`" in TEXT or f'"{key}"' in TEXT for key in MODIFIER_KEYS)
    assert [name_of(model) for model in BLOCKS] == [name for name, _, _ in WORKED]
    assert {name for name, _, _ in WORKED} == set(NAMES)


def test_the_worked_examples_are_right() -> None:
    for model, (_, usage, amount) in zip(BLOCKS, WORKED, strict=True):
        assert to_decimal(round_half_up(charge(model, usage), "EUR"), "EUR") == D(amount)
        assert amount in TEXT
