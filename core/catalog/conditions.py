"""What a price says beside its model: the quantity it is held in, its own cycle, included units, and prices of spend. Pure.

A discount and a commitment are written as models of their own and kept as a kind of price with a plain model:
`percent_off` as a percentage, `amount_off` and `amount` as a flat price, the rates of a spend discount as volume tiers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from core.catalog.reader import CODE_FORM, Reader, as_text
from core.money import parse_decimal
from core.periods import Interval
from core.pricing.proration import Proration
from core.pricing.terms import Kind

BOUNDS = {"quantity_min", "quantity_max"}
KEYS = {"licensed", "included", "proration", "billing_period", "interval_count", "covers", "overage_factor", *BOUNDS}
"""Keys of a price that are no part of its model."""
SPEND_MODELS = {"commitment": Kind.COMMITMENT, "discount": Kind.DISCOUNT}
PRORATIONS = (Proration.SECONDS, Proration.DAYS, Proration.FIXED_30, Proration.NONE)
PERIOD_ALIASES = {
    "daily": Interval.DAY,
    "weekly": Interval.WEEK,
    "monthly": Interval.MONTH,
    "quarterly": Interval.QUARTER,
    "half_yearly": Interval.HALF_YEAR,
    "semiannual": Interval.HALF_YEAR,
    "yearly": Interval.YEAR,
    "annual": Interval.YEAR,
}
INTERVAL_COUNT_MAX = 120
COVERS_MAX = 100
_MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.HALF_YEAR: 6, Interval.YEAR: 12}
_DAYS = {Interval.DAY: 1, Interval.WEEK: 7}
_PERCENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Conditions:
    """As the columns of a pricing rule with these names; None: what the plan says."""

    licensed: str | None = None
    included: Decimal = Decimal(0)
    cycle: tuple[Interval, int] | None = None
    proration: Proration | None = None
    covers: tuple[str, ...] | None = None
    overage_factor: Decimal = Decimal(1)
    quantity_min: Decimal | None = None
    quantity_max: Decimal | None = None


PLAIN = Conditions()
"""Nothing but the model."""


def billing_period(reader: Reader, pointer: str, value: object) -> Interval:
    """An interval by its name or an alias such as monthly."""
    return reader.choice(pointer, PERIOD_ALIASES.get(str(value), value) if value is not None else "", Interval, Interval.MONTH)


def read_conditions(reader: Reader, pointer: str, item: Mapping[str, object], kind: Kind, plan_cycle: tuple[Interval, int]) -> Conditions:
    """The checked conditions of the price at `pointer`; faults where a kind of price does not know one."""
    known = {
        Kind.RECURRING: KEYS - {"included", "covers", "overage_factor"},
        Kind.USAGE: KEYS - {"covers", "overage_factor"} - BOUNDS,
        Kind.DISCOUNT: {"covers", "proration"},
        Kind.COMMITMENT: KEYS - {"licensed", "included"} - BOUNDS,
    }[kind]
    for key in sorted((KEYS & item.keys()) - known):
        if item[key] is not None:
            reader.fault(f"{pointer}/{key}", f"says nothing for a {kind} price")
    licensed = item.get("licensed")
    if licensed is not None and not (isinstance(licensed, str) and CODE_FORM.fullmatch(licensed)):
        reader.fault(f"{pointer}/licensed", "must be the name of a quantity: letters, digits and _ . : -")
        licensed = None
    factor = _number(reader, f"{pointer}/overage_factor", item.get("overage_factor", "1"))
    if factor < 1:
        reader.fault(f"{pointer}/overage_factor", "must be at least 1; what is cheaper above an amount is a discount with tiers")
    least, most = (_bound(reader, f"{pointer}/{key}", item.get(key)) for key in ("quantity_min", "quantity_max"))
    if most is not None and most < (least or 0):
        reader.fault(f"{pointer}/quantity_max", "must not be less than quantity_min")
    return Conditions(
        licensed=licensed if licensed is None else str(licensed),
        included=_number(reader, f"{pointer}/included", item.get("included", "0")),
        cycle=_cycle(reader, pointer, item, plan_cycle),
        proration=None
        if item.get("proration") is None
        else reader.choice(f"{pointer}/proration", item["proration"], PRORATIONS, Proration.SECONDS),
        covers=_covers(reader, f"{pointer}/covers", item.get("covers")),
        overage_factor=factor,
        quantity_min=least,
        quantity_max=most,
    )


def spend_model(reader: Reader, pointer: str, item: Mapping[str, object]) -> dict[str, Any]:
    """The plain model a discount or commitment is kept as; its keys are checked here, its amounts by `parse_model`."""
    keys = {key: as_text(value) for key, value in item.items()}
    if keys.pop("model") == "commitment":
        _only(reader, pointer, keys, {"amount"})
        return {"model": "flat", "flat_price": _money(reader, f"{pointer}/amount", keys.get("amount"))}
    _only(reader, pointer, keys, {"percent_off", "amount_off", "tiers"})
    if len(keys.keys() & {"percent_off", "amount_off", "tiers"}) != 1:
        reader.fault(pointer, "a discount has one of percent_off, amount_off and tiers")
        return {"model": "flat", "flat_price": "0"}
    if "amount_off" in keys:
        return {"model": "flat", "flat_price": _money(reader, f"{pointer}/amount_off", keys["amount_off"])}
    if "percent_off" in keys:
        percent = _percent(reader, f"{pointer}/percent_off", keys["percent_off"])
        return {"model": "graduated_percentage", "tiers": [{"up_to": None, "rate_percent": f"{percent:f}"}]}
    return {"model": "volume", "tiers": _rates(reader, f"{pointer}/tiers", keys["tiers"])}


def _rates(reader: Reader, pointer: str, tiers: object) -> list[dict[str, Any]]:
    """Tiers of spend, `percent_off` each, as volume tiers: the whole spend gets the rate of the tier it falls in."""
    if not isinstance(tiers, list) or not all(isinstance(tier, dict) for tier in tiers) or not tiers:
        reader.fault(pointer, "must be a list of tiers, each with up_to and percent_off")
        return [{"up_to": None, "unit_price": "0"}]
    found = []
    for i, tier in enumerate(tiers):
        _only(reader, f"{pointer}/{i}", tier, {"up_to", "percent_off"})
        percent = _percent(reader, f"{pointer}/{i}/percent_off", tier.get("percent_off"))
        bound = {"up_to": tier["up_to"]} if "up_to" in tier else {}
        found.append({**bound, "unit_price": f"{percent * _PERCENT:f}"})
    return found


def _cycle(reader: Reader, pointer: str, item: Mapping[str, object], plan_cycle: tuple[Interval, int]) -> tuple[Interval, int] | None:
    """The price's own cycle; it must divide the plan's or be divided by it, so that both begin together again and again."""
    if item.get("billing_period") is None:
        if item.get("interval_count") is not None:
            reader.fault(f"{pointer}/interval_count", "needs a billing_period")
        return None
    interval = billing_period(reader, f"{pointer}/billing_period", item["billing_period"])
    count = reader.whole(f"{pointer}/interval_count", item.get("interval_count", 1), least=1, most=INTERVAL_COUNT_MAX)
    if (interval, count) == plan_cycle:
        return None
    if not fits((interval, count), plan_cycle):
        detail = f"does not fit the plan's period: a whole number of one must make the other ({plan_cycle[1]} {plan_cycle[0]})"
        reader.fault(f"{pointer}/billing_period", detail)
    return interval, count


def fits(own: tuple[Interval, int], plan: tuple[Interval, int]) -> bool:
    """Whether a whole number of one cycle makes the other."""
    for lengths in (_MONTHS, _DAYS):
        if own[0] in lengths and plan[0] in lengths:
            a, b = lengths[own[0]] * own[1], lengths[plan[0]] * plan[1]
            return a % b == 0 or b % a == 0
    return own in {(Interval.DAY, 1)}


def _bound(reader: Reader, pointer: str, value: object) -> Decimal | None:
    return None if value is None else _number(reader, pointer, value)


def _covers(reader: Reader, pointer: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str) or not 1 <= len(value) <= COVERS_MAX:
        reader.fault(pointer, f"must be a list of 1 to {COVERS_MAX} codes of prices")
        return None
    return tuple(reader.code(f"{pointer}/{i}", code) for i, code in enumerate(value))


def _money(reader: Reader, pointer: str, value: object) -> str:
    amount = _number(reader, pointer, "" if value is None else value)
    return f"{amount:f}"


def _percent(reader: Reader, pointer: str, value: object) -> Decimal:
    percent = _number(reader, pointer, "" if value is None else value)
    if percent > 100:
        reader.fault(pointer, "must be at most 100")
    return percent


def _number(reader: Reader, pointer: str, value: object) -> Decimal:
    text = as_text(value)
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    try:
        return parse_decimal(text if isinstance(text, str) else "")
    except ValueError:
        reader.fault(pointer, 'must be a decimal string, such as "25" or "99.50"')
        return Decimal(0)


def _only(reader: Reader, pointer: str, item: Mapping[str, object], known: set[str]) -> None:
    for key in sorted(item.keys() - known):
        reader.fault(f"{pointer}/{key}", f"is not a key here; known: {', '.join(sorted(known))}")
