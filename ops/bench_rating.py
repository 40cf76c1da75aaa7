"""`python -m ops.bench_rating`: how fast a million quantities are priced and rounded, against a bare Decimal loop in the same run.

The bare loop multiplies and rounds with the same expression and nothing else. Loops take turns chunk by chunk, and each is judged by its
quickest chunks in processor time, so that a busy machine slows both alike. Prints a JSON line per measure; exits 1 if a goal is missed.
"""

import gc
import json
import random
import sys
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from statistics import mean
from time import thread_time_ns

from core.money import round_half_up
from core.pricing.price import explain, price
from core.pricing.rules import PerUnit, PriceModel, parse_model

PAIRS, CHUNK = 1_000_000, 50_000
ONE, SCALE, ROUNDING = Decimal(1), Decimal(100), Context(prec=96)

MODELS: list[dict[str, object]] = [
    {"model": "per_unit", "unit_price": "0.000008"},
    {
        "model": "graduated",
        "tiers": [
            {"up_to": "1000", "unit_price": "0.01", "flat_fee": "1"},
            {"up_to": "10000", "unit_price": "0.008"},
            {"up_to": "100000", "unit_price": "0.005"},
            {"up_to": None, "unit_price": "0.002"},
        ],
    },
    {
        "model": "volume",
        "tiers": [
            {"up_to": "1000", "unit_price": "0.01"},
            {"up_to": "100000", "unit_price": "0.008"},
            {"up_to": None, "unit_price": "0.005", "flat_fee": "5"},
        ],
    },
    {"model": "package", "package_size": "1000", "package_price": "0.40", "free_units": "500"},
]
Pairs = Sequence[tuple[PriceModel, Decimal]]


def bare(pairs: Sequence[tuple[Decimal, Decimal]]) -> int:
    """Multiply and round, with nothing around it."""
    total = 0
    for unit_price, quantity in pairs:
        total += int((unit_price * quantity * SCALE).quantize(ONE, ROUND_HALF_UP, ROUNDING))
    return total


def priced(pairs: Pairs) -> int:
    """The kernel's price, rounded."""
    total = 0
    for model, quantity in pairs:
        total += round_half_up(price(model, quantity), "EUR")
    return total


def explained(pairs: Pairs) -> int:
    """The kernel's price with its explanation, rounded."""
    total = 0
    for model, quantity in pairs:
        total += round_half_up(explain(model, quantity).amount, "EUR")
    return total


def quantities(rng: random.Random, count: int) -> list[Decimal]:
    """Quantities of every size up to ten million, some with decimals."""
    return [Decimal(rng.randrange(10 ** rng.randint(1, 7))).scaleb(-rng.choice((0, 0, 3))) for _ in range(count)]


def main() -> int:
    """Measure and print; 0 if every goal is met."""
    rng = random.Random(20260101)
    models = [parse_model(model) for model in MODELS]
    loops: dict[str, Callable[..., int]] = {"bare": bare, "per_unit": priced, "mixed": priced, "explained": explained}
    times: dict[str, list[float]] = {name: [] for name in loops}
    sums = dict.fromkeys(loops, 0)
    gc.disable()
    for _ in range(PAIRS // CHUNK):
        metered = quantities(rng, CHUNK)
        for name, pairs in _chunk(models, metered).items():
            began = thread_time_ns()
            sums[name] += loops[name](pairs)
            times[name].append((thread_time_ns() - began) / CHUNK)
        gc.collect()
    assert sums["bare"] == sums["per_unit"]
    assert sums["mixed"] == sums["explained"]
    quick = {name: mean(sorted(values)[: len(values) // 2]) for name, values in times.items()}
    met = [_report(name, quick[name], quick["bare"], goal) for name, goal in (("per_unit", 2.5), ("mixed", 4.0), ("explained", 5.0))]
    return 0 if all(met) else 1


def _chunk(models: Sequence[PriceModel], metered: Sequence[Decimal]) -> dict[str, Sequence[object]]:
    """The same quantities for every loop."""
    per_unit = models[0]
    assert isinstance(per_unit, PerUnit)
    mixed = [(models[i % 4], quantity) for i, quantity in enumerate(metered)]
    return {
        "bare": [(per_unit.unit_price, quantity) for quantity in metered],
        "per_unit": [(per_unit, quantity) for quantity in metered],
        "mixed": mixed,
        "explained": mixed,
    }


def _report(name: str, value: float, against: float, goal: float) -> bool:
    ratio = value / against
    line = {
        "name": f"rating_{name}",
        "value": round(value),
        "unit": "ns/pair",
        "ratio": round(ratio, 2),
        "against": f"bare Decimal loop with the same rounding, {against:.0f} ns/pair",
        "goal": f"<= {goal}",
        "met": ratio <= goal,
    }
    print(json.dumps(line), flush=True)
    return ratio <= goal


if __name__ == "__main__":
    sys.exit(main())
