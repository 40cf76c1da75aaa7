"""Charge models: a case's prices become price models, its modifiers become the kernel's modifiers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Any

from core.money import EXACT, exponent, round_half_up, to_decimal
from core.periods import Interval, calendar_anchor
from core.pricing.compound import CapacityTier, Percentage, ProratedChange, capacity, graduated_prorated, percentage
from core.pricing.modifiers import Rounding, UnitConversion, added_steps, after_free_units, bounded
from core.pricing.price import QuantityError, explain, packages, price, tier_index
from core.pricing.rules import Flat, Package, PerUnit, PriceModel, RuleError, Tier, VolumeBlocks, parse_model
from core.pricing.timeline import Kind, LineKey, Proration, Rule, Term, Timing, due, owed, segments
from tests.golden.compare import Unsupported
from tests.golden.reading import decimal, maybe, only

ZERO = Decimal(0)
CURRENCY = "USD"
"""Of cases that name none."""
HELD = "previously_billed minimum_amount maximum_amount discount_percent"
PRICES = {
    "per_unit": "unit_price",
    "flat": "flat_price",
    "package": "package_size package_price free_units rounding",
    "graduated": "tiers",
    "volume": "tiers",
    "stairstep": "tiers",
    "graduated_percentage": "tiers",
    "graduated_blocks": "tiers",
    "volume_blocks": "tiers",
}
MODIFIERS = (
    "model currency quantity prior_quantity previously_billed cumulative_quantity minimum_amount maximum_amount discount_percent "
    "usage_discount unit_conversion bucket_quantities prorated_quantity groups unit_price_by_group"
)


def answer(given: Mapping[str, Any]) -> dict[str, object]:
    """All figures the kernel can tell about the case."""
    given = {"currency": CURRENCY, **given}
    with localcontext(EXACT):
        match given.get("model"):
            case "percentage":
                return _percentage(given)
            case "graduated_prorated":
                return _graduated_prorated(given)
            case "dynamic":
                return _dynamic(given)
            case "capacity":
                return _capacity(given)
            case "sum":
                return _sum(given)
            case "usage_discount":
                return _usage_discount(given)
            case "flat":
                return _flat(given)
            case str(model) if model in PRICES:
                return _priced(given, model)
            case model:
                raise Unsupported(f"no model {model}")


def _model(given: Mapping[str, Any], name: str) -> PriceModel:
    try:
        return parse_model({"model": name, **{key: given[key] for key in PRICES[name].split() if key in given}})
    except RuleError as error:
        raise Unsupported(f"refused price: {error.pointer} {error.detail}") from None


def _priced(given: Mapping[str, Any], name: str) -> dict[str, object]:
    only(given, f"{MODIFIERS} {PRICES[name]}")
    if "groups" in given:
        return _groups(given, name)
    model = _model(given, name)
    currency = given["currency"]
    if "bucket_quantities" in given:
        amounts = [price(model, _converted(given, decimal(quantity))) for quantity in given["bucket_quantities"]]
        return {"bucket_amounts": amounts} | _held(given, [sum(amounts, ZERO)], currency)
    metered = decimal(given.get("quantity", 0))
    if isinstance(model, PerUnit | Package):
        metered = max(metered, ZERO)  # a negative total of metered usage bills nothing, as in a timeline
    try:
        return _line(given, model, metered, currency)
    except QuantityError:
        return {"error": "invalid_quantity"}


def _line(given: Mapping[str, Any], model: PriceModel, metered: Decimal, currency: str) -> dict[str, object]:
    """One line: convert, take free units off, price what is added, discount, hold between minimum and maximum."""
    prior = decimal(given.get("prior_quantity", 0))
    if "cumulative_quantity" in given:
        metered = decimal(given["cumulative_quantity"]) - prior
    quantity = _converted(given, metered)
    out: dict[str, object] = {}
    if "usage_discount" in given:
        quantity, prior = after_free_units(quantity, prior, decimal(given["usage_discount"]))
        out |= {"prior_billed_quantity": prior}
    priced = decimal(given["prorated_quantity"]) if "prorated_quantity" in given else quantity
    started = prior > 0 or decimal(given.get("previously_billed") or 0) > 0
    steps = added_steps(model, prior, priced) if started else explain(model, priced).steps
    base = sum((step.amount for step in steps), ZERO)
    out |= {
        "billed_quantity": quantity,
        "base_amount": base,
        "tier_amounts": [step.amount for step in steps],
        "cumulative_amount": price(model, prior + priced),
        "unit_amount": Fraction(base) / Fraction(_paid_units(model, quantity)) if _paid_units(model, quantity) else ZERO,
    }
    out |= _tiers(model, prior + priced)
    return out | _held(given, [step.amount for step in steps], currency)


def _converted(given: Mapping[str, Any], quantity: Decimal) -> Decimal:
    conversion = given.get("unit_conversion")
    if not conversion:
        return quantity
    only(conversion, "operation factor rounding precision")
    rounding = {None: None, "none": None, "up": Rounding.UP, "ceil": Rounding.UP, "down": Rounding.DOWN, "floor": Rounding.DOWN}
    way = conversion.get("rounding")
    if conversion["operation"] not in ("divide", "multiply"):
        raise Unsupported(f"conversion {conversion['operation']}")
    how = UnitConversion(
        conversion["operation"] == "multiply",
        decimal(conversion["factor"]),
        rounding.get(way, Rounding.HALF_UP),
        int(conversion.get("precision") or 0),
    )
    return how.apply(quantity)


def _paid_units(model: PriceModel, quantity: Decimal) -> Decimal:
    return max(quantity - model.free_units, ZERO) if isinstance(model, Package) else quantity


def _tiers(model: PriceModel, total: Decimal) -> dict[str, object]:
    match model:
        case Package():
            count = packages(model, total)
            return {"packages": count, "billed_units": count * model.package_size}
        case PerUnit() | Flat() | VolumeBlocks():
            return {}
        case _:
            index = tier_index(model.tiers, total)
            return {"tier_index": index, "last_tier_index": index}


def _held(given: Mapping[str, Any], amounts: Sequence[Decimal], currency: str) -> dict[str, object]:
    """Discount, then the bounds of the period, line by line in the order of the tiers."""
    base = sum(amounts, ZERO)
    discount = base * decimal(given.get("discount_percent") or 0) / 100
    minimum, maximum = maybe(given.get("minimum_amount")), maybe(given.get("maximum_amount"))
    out: dict[str, object] = {"discount_amount": discount}
    if "minimum_amount" not in given and "maximum_amount" not in given:
        return out | _money(base - discount, currency)
    before = decimal(given.get("previously_billed") or 0)
    rounded = _rounded(base - discount, currency)
    held = bounded(rounded, before, minimum, maximum)
    out |= {"minimum_top_up": held.top_up, "maximum_discount": held.discount, "base_amount": _rounded(base, currency)}
    kept: list[Decimal] = []
    cuts: list[Decimal] = []
    for amount in amounts:
        part = bounded(_rounded(amount, currency), before + sum(kept, ZERO), None, maximum)
        kept.append(part.amount)
        cuts.append(part.discount)
    return out | {"tier_amounts_after_cap": kept, "maximum_discounts": cuts} | _money(held.amount, currency)


def _money(amount: Decimal | Fraction, currency: str) -> dict[str, object]:
    minor = round_half_up(amount, currency)
    return {"amount": amount, "amount_rounded": to_decimal(minor, currency), "amount_minor": minor}


def _rounded(amount: Decimal, currency: str) -> Decimal:
    return to_decimal(round_half_up(amount, currency), currency)


def _groups(given: Mapping[str, Any], name: str) -> dict[str, object]:
    """Each group priced alone, at its own price where it has one."""
    groups, prices = given["groups"], given.get("unit_price_by_group", {})
    if isinstance(groups, list) and all(isinstance(group, dict) and {"key", "quantity"} <= group.keys() for group in groups):
        groups = {group["key"]: group["quantity"] for group in groups}
    if not isinstance(groups, dict):
        raise Unsupported("groups that are not an object of quantities")
    amounts: dict[str, Decimal] = {}
    for key, quantity in groups.items():
        model = PerUnit(decimal(prices[key])) if key in prices else _model(given, name)
        amounts[key] = price(model, _converted(given, decimal(quantity)))
    return {"group_amounts": amounts} | _held(given, list(amounts.values()), given["currency"])


def _percentage(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, f"model currency event_amounts rate_percent fixed_fee_per_event free_events free_amount min_per_event max_per_event {HELD}")
    free_events = given.get("free_events")
    model = Percentage(
        decimal(given["rate_percent"]),
        decimal(given.get("fixed_fee_per_event") or 0),
        None if free_events is None else int(free_events),
        maybe(given.get("free_amount")),
        maybe(given.get("min_per_event")),
        maybe(given.get("max_per_event")),
    )
    result = percentage(model, [decimal(amount) for amount in given["event_amounts"]])
    total = sum(map(decimal, given["event_amounts"]), ZERO)
    unit = Fraction(result.fee) / Fraction(total) if total else ZERO
    paid = {"paid_amount": result.paid_amount, "paid_events": result.paid_events, "unit_amount": unit, "base_amount": result.fee}
    return paid | _held(given, [result.fee], given["currency"])


def _graduated_prorated(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "model currency events tiers")
    tiers = [Tier(maybe(t.get("up_to")), decimal(t.get("unit_price") or 0), decimal(t.get("flat_fee") or 0)) for t in given["tiers"]]
    changes = [ProratedChange(decimal(event["units"]), decimal(event["prorated_units"])) for event in given["events"]]
    return _money(graduated_prorated(tiers, changes), given["currency"])


def _dynamic(given: Mapping[str, Any]) -> dict[str, object]:
    """The price is carried by the events: what was metered is money, times a multiplier."""
    only(given, f"model currency metered_amount multiplier event_amount_minor_total quantity {HELD}")
    if "event_amount_minor_total" in given:
        amount = decimal(given["event_amount_minor_total"]).scaleb(-exponent(given["currency"]))
    else:
        amount = price(PerUnit(decimal(given.get("multiplier", 1))), decimal(given["metered_amount"]))
    return {"base_amount": amount} | _held(given, [amount], given["currency"])


def _capacity(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, f"model currency quantities capacity_tiers {HELD}")
    tiers = [
        CapacityTier(decimal(tier["price"]), {name: maybe(limit) for name, limit in tier["limits"].items()})
        for tier in given["capacity_tiers"]
    ]
    quantities = {name: decimal(value) for name, value in given["quantities"].items()}
    try:
        return _held(given, [capacity(tiers, quantities)], given["currency"])
    except ValueError:
        return {"error": "no_tier"}


def _sum(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, f"model currency parts {HELD}")
    parts = [answer({"currency": given["currency"], **part}) for part in given["parts"]]
    amounts = [part["amount"] for part in parts]
    if any(key in given for key in HELD.split()):
        return {"part_amounts": amounts} | _held(given, [amount for amount in amounts if isinstance(amount, Decimal)], given["currency"])
    total = sum((Fraction(amount) for amount in amounts if isinstance(amount, Decimal | Fraction)), Fraction(0))
    return {"part_amounts": amounts} | _money(total, given["currency"])


def _usage_discount(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "model quantity prior_quantity usage_discount currency")
    billed, before = after_free_units(
        decimal(given["quantity"]), decimal(given.get("prior_quantity") or 0), decimal(given["usage_discount"])
    )
    return {"billed_quantity": billed, "prior_billed_quantity": before}


CYCLE = [datetime(2026, 6, day, tzinfo=UTC) for day in (1, 11, 21)] + [datetime(2026, 7, 1, tzinfo=UTC)]


def _flat(given: Mapping[str, Any]) -> dict[str, object]:
    """A flat fee over a cycle that two changes cut into a first, a middle and a last line."""
    only(given, f"model currency flat_price payment_term line_position quantity {HELD}")
    position = given.get("line_position", "whole_period")
    lines = {"whole_period": (0, 3), "first": (0, 1), "mid_period": (1, 2), "last": (2, 3)}
    if position not in lines:
        raise Unsupported(f"line position {position}")
    rule = Rule("flat", "flat", Kind.RECURRING, Timing(given.get("payment_term", "in_advance")), Flat(decimal(given["flat_price"])))
    rule = replace(rule, prorate=Proration.NONE)
    anchor = calendar_anchor(Interval.MONTH, 1, CYCLE[0], "UTC")
    cuts = [CYCLE[0], CYCLE[-1]] if position == "whole_period" else CYCLE
    terms = [Term(str(i), a, b, (rule,), Decimal(1), anchor) for i, (a, b) in enumerate(pairwise(cuts))]
    first, last = lines[position]
    billed: dict[LineKey, int] = {}
    amount = 0
    for as_of in cuts:
        now = sum(item.minor for item in due(owed(segments(terms, as_of=as_of), {}, given["currency"]), billed))
        for key, entry in owed(segments(terms, as_of=as_of), {}, given["currency"]).items():
            billed[key] = entry.minor
        belongs = CYCLE[first] <= as_of < CYCLE[last] if rule.timing is Timing.IN_ADVANCE else CYCLE[first] < as_of <= CYCLE[last]
        amount += now if belongs else 0
    return _held(given, [to_decimal(amount, given["currency"])], given["currency"])
